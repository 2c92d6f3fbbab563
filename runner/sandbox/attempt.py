"""One attempt in one worker, from the frame that starts it to its outcome."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Protocol

from quarterhour.clock import Clock
from quarterhour.errors import EnvelopeError
from quarterhour.invocation import unpack
from quarterhour.outcome import Crashed, Error, Failed, Outcome, TimedOut
from runner.judge import judge
from runner.sandbox.guard import Exit
from runner.sandbox.job import AttemptLost, Code, Finished, Job, LogLine, LossReason
from runner.sandbox.table import Table
from runner.sandbox.worker import WorkerProcess

__all__ = ["Attempt"]

# The guard may have begun to end a worker whose result came this close to a deadline.
CLOSE_TO_LIMIT_S = 0.2
CLOSE_TO_LEASE_END_S = 0.8
EXIT_S = 0.05  # a worker that closes its channel is about to exit; one that does not is ended


class Workers(Protocol):
    """What an attempt needs of the pool that its worker comes from."""

    clock: Clock
    table: Table
    on_line: Callable[[LogLine], None]

    async def take(self, code: Code) -> WorkerProcess:
        """A worker for `code` that does nothing else. Raises `AttemptLost`."""
        ...

    def give_back(self, worker: WorkerProcess) -> None:
        """The worker may make another attempt."""

    def retire(self, worker: WorkerProcess) -> None:
        """The worker makes no further attempt."""


class Attempt:
    """An attempt. `started_at` is None until a worker has it."""

    def __init__(self, workers: Workers, job: Job) -> None:
        self.started_at: float | None = None
        self._workers = workers
        self._job = job
        self._worker: WorkerProcess | None = None
        self._stopped = False
        self._leased_until = job.leased_until
        self._limit_at = 0.0
        self._end: asyncio.Future[bytes | Exit] | None = None

    def extend(self, leased_until: float) -> None:
        """Its lease was renewed until `leased_until` (boot clock, seconds)."""
        self._leased_until = leased_until
        if self._worker is not None and self._end is not None and not self._end.done():
            self._workers.table.extend(self._worker.row, leased_until)

    def stop(self) -> None:
        """End it without an outcome: `run` raises `AttemptLost`."""
        self._stopped = True
        if self._worker is not None and self._end is not None and not self._end.done():
            self._workers.retire(self._worker)

    async def run(self) -> Finished:
        """Make the attempt. Raises `AttemptLost` if it ended without an outcome of its own."""
        workers, job = self._workers, self._job
        worker = await workers.take(job.code)
        if self._stopped:
            workers.give_back(worker)
            raise AttemptLost(reason="stopped")
        if self._leased_until is not None and self._leased_until <= workers.clock.boot():
            workers.give_back(worker)  # it waited for its worker for too long: another runner may have it
            raise AttemptLost(reason="lease")
        started_at = self.started_at = workers.clock.now()
        try:
            end = await self._start(worker)
        except asyncio.CancelledError:
            workers.retire(worker)
            raise
        finally:
            worker.user = None
            logs = worker.output.end()
        finished_at = workers.clock.now()
        outcome = self._outcome_of_exit(end) if isinstance(end, Exit) else self._outcome_of_frame(worker, end)
        return Finished(outcome=outcome, started_at=started_at, finished_at=finished_at, logs=logs)

    def _start(self, worker: WorkerProcess) -> asyncio.Future[bytes | Exit]:
        """Give the worker its frame; what comes of it is a frame or the worker's exit."""
        end: asyncio.Future[bytes | Exit] = asyncio.get_running_loop().create_future()
        self._worker, self._end = worker, end
        worker.user = self
        worker.output.begin(self._line)
        self._limit_at = self._workers.clock.boot() + self._job.limit_s
        # The table first: from here on the guard keeps limit and lease, whatever becomes of us.
        self._workers.table.set(worker.row, limit_at=self._limit_at, leased_until=self._leased_until)
        worker.send(self._limit_at, self._job.envelope)
        if worker.hung_up:
            self.on_hung_up()
        return end

    def on_frame(self, frame: bytes) -> None:
        """The worker has sent its result."""
        self._come_to(frame)

    def on_exit(self, exit_: Exit) -> None:
        """The worker has ended."""
        self._come_to(exit_)

    def on_hung_up(self) -> None:
        """Its end is reported in a moment; if not, user code has closed the channel and lives on."""
        if self._worker is not None:
            asyncio.get_running_loop().call_later(EXIT_S, self._workers.retire, self._worker)

    def _come_to(self, end: bytes | Exit) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(end)

    def _line(self, stream: str, text: str) -> None:
        job = self._job
        self._workers.on_line(
            LogLine(function=job.code.function, invocation=job.invocation, stream=stream, text=text)
        )

    def _outcome_of_frame(self, worker: WorkerProcess, frame: bytes) -> Outcome:
        workers, job = self._workers, self._job
        now = workers.clock.boot()
        workers.table.clear(worker.row)
        try:
            header, body = unpack(frame)
        except EnvelopeError as error:
            workers.retire(worker)
            return Failed(error=Error(type="InvalidResult", message=str(error)), retry=False)
        close = now > self._limit_at - CLOSE_TO_LIMIT_S or (
            self._leased_until is not None and now > self._leased_until - CLOSE_TO_LEASE_END_S
        )
        if close or header.get("retire"):
            workers.retire(worker)
        else:
            workers.give_back(worker)
        if self._stopped:
            raise AttemptLost(reason="stopped")
        if now >= self._limit_at:
            return TimedOut(limit_s=job.limit_s)
        return judge(header, body, mode=job.mode, returned_status=job.returned_status)

    def _outcome_of_exit(self, end: Exit) -> Outcome:
        if self._stopped:
            raise AttemptLost(reason="stopped")
        if end.killed == "limit":
            return TimedOut(limit_s=self._job.limit_s)
        if end.killed in {"lease", "guard"}:
            reason: LossReason = "lease" if end.killed == "lease" else "guard"
            raise AttemptLost(reason=reason)
        if end.killed == "memory":
            return Crashed(detail="ran out of memory")
        if os.WIFEXITED(end.status):
            return Crashed(exit_status=os.WEXITSTATUS(end.status))
        if end.killed == "asked":
            return Crashed(detail="closed its connection and was ended")
        return Crashed(signal=signal.Signals(os.WTERMSIG(end.status)).name)
