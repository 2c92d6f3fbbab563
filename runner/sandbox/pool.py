"""The pool: attempts find a worker of their function here, idle or new, and leave it for the next one.

A worker that was idle last is used first, so that what is not needed falls idle for long and is
retired. There are never more than `workers_max` workers.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from quarterhour.clock import Clock
from quarterhour.errors import SettingsError
from runner.sandbox.attempt import Attempt
from runner.sandbox.guard import Exit, GuardGone
from runner.sandbox.guards import Guards
from runner.sandbox.job import AttemptLost, Code, Job, LogLine
from runner.sandbox.table import Table
from runner.sandbox.worker import WorkerProcess

__all__ = ["Attempt", "Sandbox", "SandboxSettings"]

GUARDS_TRIED_MAX = 2
SPARE_ROWS = 64  # workers that are being killed still have theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What the sandbox is told. `environment` is what every worker sees; sizes are bytes, times seconds."""

    workers_max: int
    python: Path
    environment: Mapping[str, str]
    response_bytes_max: int
    stream_bytes_max: int = 20 * 1024 * 1024
    idle_s: float = 300.0


class Sandbox:
    """Workers and their guards. Entered, it can make attempts; left, no process of it remains."""

    def __init__(
        self, settings: SandboxSettings, *, clock: Clock, on_line: Callable[[LogLine], None]
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.on_line = on_line
        self.stream_bytes_max = settings.stream_bytes_max
        self.table = Table(settings.workers_max + SPARE_ROWS)
        self._guards = Guards(self.table, clock=clock)
        self._workers: dict[int, WorkerProcess] = {}
        self._retiring: set[int] = set()
        self._idle: OrderedDict[int, tuple[WorkerProcess, float]] = OrderedDict()  # the longest idle first
        self._last_number = 0
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._guards.running(self.settings.python)
        except GuardGone:
            message = (
                f"{self.settings.python} cannot run functions: its guard did not start; see the lines above. "
                "Name another Python, 3.11 or newer, with --function-python."
            )
            raise SettingsError(message) from None
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._guards.close()
        for worker in list(self._workers.values()):
            self._ended(worker, Exit(status=0, killed="guard"))
        self.table.close()

    def attempt(self, job: Job) -> Attempt:
        """An attempt, not yet begun."""
        return Attempt(self, job)

    async def take(self, code: Code) -> WorkerProcess:
        """A worker for `code` that does nothing else. Raises `AttemptLost` if no guard can be had."""
        for number, (worker, _) in reversed(self._idle.items()):
            if worker.code == code:
                del self._idle[number]
                return worker
        if len(self._workers) - len(self._retiring) >= self.settings.workers_max and self._idle:
            self.retire(next(iter(self._idle.values()))[0])
        for _ in range(GUARDS_TRIED_MAX):
            with suppress(GuardGone):  # it died before anything was started: the next one will do
                return await self._spawn(code)
        raise AttemptLost(reason="guard")

    def give_back(self, worker: WorkerProcess) -> None:
        """The worker has made its attempt and may make another."""
        if worker.number in self._workers and not worker.hung_up and not worker.stale:
            self._idle[worker.number] = (worker, self.clock.boot())
        else:
            self.retire(worker)

    def retire(self, worker: WorkerProcess) -> None:
        """End the worker: it makes no further attempt."""
        self._idle.pop(worker.number, None)
        if worker.number in self._workers and worker.number not in self._retiring:
            self._retiring.add(worker.number)
            if worker.guard is not None:
                worker.guard.kill(worker.number)

    async def keep(self, codes: Collection[Code]) -> None:
        """From now on just these are served: workers of others finish what they do and end."""
        for worker in list(self._workers.values()):
            if worker.code not in codes:
                worker.stale = True
                if worker.number in self._idle:
                    self.retire(worker)
        await self._guards.keep({self.settings.python, *map(self._python, codes)})

    def _python(self, code: Code) -> Path:
        return code.launch.python or self.settings.python

    async def _spawn(self, code: Code) -> WorkerProcess:
        guard = await self._guards.running(self._python(code))
        self._last_number += 1
        worker, descriptors = await WorkerProcess.open(
            self._last_number,
            self.table.take(),
            code,
            frame_bytes_max=self.settings.response_bytes_max,
            on_hung_up=self.retire,
        )
        self._workers[worker.number] = worker
        worker.guard = guard
        try:
            guard.spawn(
                worker.number,
                row=worker.row,
                code=code,
                environment={**self.settings.environment, **dict(code.environment)},
                descriptors=descriptors,
                on_exit=lambda exit_: self._ended(worker, exit_),
            )
        except GuardGone:
            self._ended(worker, Exit(status=0, killed="guard"))
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return worker

    def _ended(self, worker: WorkerProcess, exit_: Exit) -> None:
        self._idle.pop(worker.number, None)
        self._retiring.discard(worker.number)
        if self._workers.pop(worker.number, None) is None:
            return
        self.table.give_back(worker.row)
        if worker.user is not None:
            worker.user.on_exit(exit_)
        worker.close()

    def _sweep(self) -> None:
        """Retire what has been idle for too long, and look again later."""
        idle_since = self.clock.boot() - self.settings.idle_s
        for worker in [worker for worker, since in self._idle.values() if since < idle_since]:
            self.retire(worker)
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(max(1.0, self.settings.idle_s / 4), self._sweep)
