"""The guards of a sandbox: one for each interpreter that functions need, started when it is needed."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import structlog

from quarterhour.clock import Clock
from runner.sandbox.guard import Guard, GuardGone
from runner.sandbox.orphans import adopt_orphans, end_orphans
from runner.sandbox.table import Table

__all__ = ["Guards"]

AGAIN_S = 1.0  # a guard that dies at once is not started again and again without a pause

log = structlog.get_logger()


class Guards:
    """Guards by interpreter; they share the table, of which each worker has a row of its own."""

    def __init__(self, table: Table, *, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._guards: dict[Path, Guard] = {}
        self._started_at: dict[Path, float] = {}
        self._starting: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        adopt_orphans()

    async def running(self, python: Path) -> Guard:
        """The guard under this interpreter. Raises `GuardGone`: it cannot be started."""
        async with self._starting[python]:
            guard = self._guards.get(python)
            if guard is None or guard.gone:
                await asyncio.sleep(self._started_at.get(python, -AGAIN_S) + AGAIN_S - self._clock.boot())
                self._started_at[python] = self._clock.boot()
                guard = self._guards[python] = self._start(python)
                await guard.ready()
            return guard

    def _start(self, python: Path) -> Guard:
        def on_gone() -> None:
            log.error("guard_died", python=str(python))
            self._end_orphans()  # before its attempts are handed back, and run again

        try:
            return Guard(python, self._table.fd, self._table.rows, on_gone=on_gone)
        except OSError as error:
            why = f"{python} cannot be started: {error.strerror}."
            raise GuardGone(why) from None

    async def keep(self, pythons: Collection[Path]) -> None:
        """End the guards of other interpreters, but for those whose workers have something to finish."""
        for python, guard in list(self._guards.items()):
            if python not in pythons and not guard.has_workers:
                del self._guards[python]
                await guard.close()
                self._end_orphans()

    async def close(self) -> None:
        """End all guards and their workers."""
        await asyncio.gather(*(guard.close() for guard in self._guards.values()))
        self._end_orphans()

    def _end_orphans(self) -> None:
        end_orphans({guard.pid for guard in self._guards.values()})
