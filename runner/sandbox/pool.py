"""The pool: attempts find a worker of their function here, idle or new, and leave it for the next one.

A worker that was idle last is used first, so that what is not needed falls idle for long and is
retired. There are never more than `workers_max` workers, and a few spare ones: programs that take
long to start are started before anybody asks, so that a cold start has only the function to load.
"""

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from quarterhour.body import INLINE_BYTES_MAX
from quarterhour.clock import Clock
from quarterhour.errors import SettingsError
from quarterhour.users import MORE_WORKERS, Users
from runner.sandbox.attempt import Attempt
from runner.sandbox.guard import Exit, GuardGone
from runner.sandbox.guards import Guards
from runner.sandbox.job import AttemptLost, Code, Job, LogLine, Program
from runner.sandbox.table import Table
from runner.sandbox.worker import WorkerProcess

__all__ = ["Attempt", "Sandbox", "SandboxSettings"]

GUARDS_TRIED_MAX = 2
SPARES_MAX = 2
SPARE_AFTER_S = 0.2  # the function that took the last one has the processors first

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """What the sandbox is told. `environment` is what every worker sees; sizes are bytes, times seconds.

    `users`: whom workers run as; None: as this process does.
    A result of more than `held_bytes_max` is never held whole.
    """

    workers_max: int
    python: Path
    environment: Mapping[str, str]
    response_bytes_max: int
    held_bytes_max: int = INLINE_BYTES_MAX
    stream_bytes_max: int = 20 * 1024 * 1024
    users: Users | None = None
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
        self._table = Table(settings.workers_max + MORE_WORKERS)
        self.landlock = 0  # the version of it that workers are kept in, once it is known
        self._guards = Guards(self._table, clock=clock)
        self._workers: dict[int, WorkerProcess] = {}
        self._retiring: set[int] = set()
        self._idle: OrderedDict[int, tuple[WorkerProcess, float]] = OrderedDict()  # the longest idle first
        self._spares: dict[Program, WorkerProcess] = {}
        self._wanted: Sequence[Program] = ()  # of which a spare worker is kept
        self._last_number = 0
        self._tasks = asyncio.TaskGroup()
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        try:
            guard = await self._guards.running(self.settings.python)
        except GuardGone:
            message = (
                f"{self.settings.python} cannot run functions: its guard did not start; see the lines above. "
                "Name another Python, 3.11 or newer, with --function-python."
            )
            raise SettingsError(message) from None
        self.landlock = guard.landlock
        await self._tasks.__aenter__()
        self._sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._wanted = ()
        await self._guards.close()
        await self._tasks.__aexit__(None, None, None)
        for worker in list(self._workers.values()):
            self._ended(worker, Exit(status=0, killed="guard"))
        self._table.close()

    def attempt(self, job: Job) -> Attempt:
        """An attempt, not yet begun."""
        return Attempt(self, job)

    async def take(self, code: Code) -> WorkerProcess:
        """A worker for `code` that does nothing else. Raises `AttemptLost` if none can be had."""
        for number, (worker, _) in reversed(self._idle.items()):
            if worker.code == code:
                del self._idle[number]
                return worker
        busy = len(self._workers) - len(self._retiring) - len(self._spares)
        if busy >= self.settings.workers_max and self._idle:
            self.retire(next(iter(self._idle.values()))[0])
        for _ in range(GUARDS_TRIED_MAX):
            with suppress(GuardGone):  # it died before anything was started: the next one will do
                spare = code.program in self._spares
                worker = self._spares.pop(code.program) if spare else await self._spawn(code.program)
                worker.serve(code, response_bytes_max=self.settings.response_bytes_max)
                self._fill_later()
                return worker
        raise AttemptLost(reason="guard")

    def keep_moments(
        self, worker: WorkerProcess, *, limit_at: float | None, leased_until: float | None
    ) -> None:
        """Have the guard keep the worker's limit and lease; the row of one that has ended is another's."""
        if worker.number in self._workers:
            self._table.set(worker.row, limit_at=limit_at, leased_until=leased_until)

    def give_back(self, worker: WorkerProcess) -> None:
        """The worker has made its attempt and may make another."""
        if worker.number in self._workers and not worker.hung_up and not worker.stale:
            self._idle[worker.number] = (worker, self.clock.boot())
        else:
            self.retire(worker)

    def retire(self, worker: WorkerProcess) -> None:
        """End the worker: it makes no further attempt."""
        self._forget(worker)
        if worker.number in self._workers and worker.number not in self._retiring:
            self._retiring.add(worker.number)
            if worker.guard is not None:
                worker.guard.kill(worker.number)

    async def keep(self, codes: Collection[Code]) -> None:
        """From now on just these are served: workers of others finish what they do and end."""
        for worker in list(self._workers.values()):
            if worker.code is not None and worker.code not in codes:
                worker.stale = True
                if worker.number in self._idle:
                    self.retire(worker)
        programs = Counter(code.program for code in codes)
        self._wanted = [program for program, _ in programs.most_common() if program.launch.command][
            :SPARES_MAX
        ]
        for program, worker in list(self._spares.items()):
            if program not in self._wanted:
                self.retire(worker)
        self._fill_later()
        await self._guards.keep({self.settings.python, *map(self._python, programs)})

    def _python(self, program: Program) -> Path:
        return program.launch.python or self.settings.python

    def _fill_later(self) -> None:
        if self._wanted:
            asyncio.get_running_loop().call_later(SPARE_AFTER_S, self._fill)

    def _fill(self) -> None:
        for program in self._wanted:
            if program not in self._spares:
                self._tasks.create_task(self._spawn_spare(program))

    async def _spawn_spare(self, program: Program) -> None:
        with suppress(GuardGone, AttemptLost):
            worker = await self._spawn(program)
            if self._spares.setdefault(program, worker) is not worker:
                self.retire(worker)

    async def _spawn(self, program: Program) -> WorkerProcess:
        guard = await self._guards.running(self._python(program))
        self._last_number += 1
        row = self._table.take()
        try:
            worker, descriptors = await WorkerProcess.open(
                self._last_number,
                row,
                response_bytes_max=self.settings.response_bytes_max,
                held_bytes_max=self.settings.held_bytes_max,
                on_hung_up=self.retire,
            )
        except OSError as error:
            self._table.give_back(row)
            log.warning("worker_not_opened", why=error.strerror)
            raise AttemptLost(reason="worker") from None
        self._workers[worker.number] = worker
        worker.guard = guard
        worker.equip({**self.settings.environment, **dict(program.environment)})
        users = self.settings.users
        try:
            guard.spawn(
                worker.number,
                row=worker.row,
                program=program,
                user=None if users is None else users.of(worker.row),
                processes_max=None if users is None else users.processes_max,
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
        self._forget(worker)
        self._retiring.discard(worker.number)
        if self._workers.pop(worker.number, None) is None:
            return
        self._table.give_back(worker.row)
        if worker.user is not None:
            worker.user.on_exit(exit_)
        worker.close()

    def _forget(self, worker: WorkerProcess) -> None:
        """Nobody is given the worker any more."""
        self._idle.pop(worker.number, None)
        for program, spare in list(self._spares.items()):
            if spare is worker:
                del self._spares[program]

    def _sweep(self) -> None:
        """Retire what has been idle for too long, and look again later."""
        idle_since = self.clock.boot() - self.settings.idle_s
        for worker in [worker for worker, since in self._idle.values() if since < idle_since]:
            self.retire(worker)
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(max(1.0, self.settings.idle_s / 4), self._sweep)
