"""One attempt in one worker, from the frame that starts it to its outcome."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from quarterhour.clock import Clock
from quarterhour.errors import BrokerError, EnvelopeError
from quarterhour.invocation import unpack
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Outcome, TimedOut
from runner.judge import judge, judge_end, judge_head
from runner.sandbox.guard import Exit
from runner.sandbox.job import AttemptLost, Code, Finished, Job, LogLine, LossReason, Sink
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
    stream_bytes_max: int
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
        self._ended = False
        self._leased_until = job.leased_until
        self._limit_at = 0.0
        # What comes from the worker: frames, and in the end its exit unless the last frame was final.
        self._next: asyncio.Future[bytes | Exit] | None = None
        self._arrived: deque[bytes | Exit] = deque()

    def extend(self, leased_until: float) -> None:
        """Its lease was renewed until `leased_until` (boot clock, seconds)."""
        self._leased_until = leased_until
        if self._worker is not None and not self._ended:
            self._workers.table.extend(self._worker.row, leased_until)

    def stop(self) -> None:
        """End it without an outcome: `run` raises `AttemptLost`."""
        self._stopped = True
        if self._worker is not None and not self._ended:
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
            outcome = await self._outcome(worker)
        except asyncio.CancelledError:
            workers.retire(worker)
            raise
        finally:
            self._ended = True
            worker.user = None
            logs = worker.output.end()
        return Finished(outcome=outcome, started_at=started_at, finished_at=workers.clock.now(), logs=logs)

    async def _outcome(self, worker: WorkerProcess) -> Outcome:
        end = await self._start(worker)
        if isinstance(end, Exit):
            return self._outcome_of_exit(end)
        try:
            header, body = unpack(end)
            if header.get("kind") == "streaming" and self._job.sink is not None:
                return await self._relay(worker, header, self._job.sink)
        except EnvelopeError as error:
            self._workers.retire(worker)
            return Failed(error=Error(type="InvalidResult", message=str(error)), retry=False)
        late = self._let_go(worker, header)
        return late or judge(header, body, mode=self._job.mode, returned_status=self._job.returned_status)

    async def _relay(self, worker: WorkerProcess, header: dict[str, Any], sink: Sink) -> Outcome:
        """Hand a response on as it comes; whoever takes it sets the pace."""
        head = judge_head(header)
        if isinstance(head, Failed):
            self._workers.retire(worker)
            return head
        worker.pause()
        left_bytes = self._workers.stream_bytes_max
        try:
            await sink.begin(head)
            while isinstance(end := await self._receive(worker), bytes):
                header, body = unpack(end)
                if header.get("kind") != "chunk":
                    worker.resume()
                    return self._let_go(worker, header) or judge_end(header, body)
                left_bytes -= len(body)
                if left_bytes < 0:
                    self._workers.retire(worker)
                    return _too_large(self._workers.stream_bytes_max)
                await sink.send(body)
            return self._outcome_of_exit(end)
        except BrokerError:  # nobody reads any further, or can be told
            self._workers.retire(worker)
            return Cancelled()

    def _start(self, worker: WorkerProcess) -> asyncio.Future[bytes | Exit]:
        """Give the worker its frame; what comes of it first is a frame or the worker's exit."""
        first = self._next = asyncio.get_running_loop().create_future()
        self._worker = worker
        worker.user = self
        worker.output.begin(self._line)
        self._limit_at = self._workers.clock.boot() + self._job.limit_s
        # The table first: from here on the guard keeps limit and lease, whatever becomes of us.
        self._workers.table.set(worker.row, limit_at=self._limit_at, leased_until=self._leased_until)
        worker.send(self._limit_at, self._job.envelope)
        if worker.hung_up:
            self.on_hung_up()
        return first

    async def _receive(self, worker: WorkerProcess) -> bytes | Exit:
        """What comes next. While something waits here, nothing more is read."""
        if self._arrived:
            return self._arrived.popleft()
        worker.resume()
        self._next = asyncio.get_running_loop().create_future()
        try:
            return await self._next
        finally:
            worker.pause()

    def on_frame(self, frame: bytes) -> None:
        """The worker has sent its result, or a piece of it."""
        self._come(frame)

    def on_exit(self, exit_: Exit) -> None:
        """The worker has ended."""
        self._come(exit_)

    def on_hung_up(self) -> None:
        """Its end is reported in a moment; if not, user code has closed the channel and lives on."""
        if self._worker is not None:
            asyncio.get_running_loop().call_later(EXIT_S, self._workers.retire, self._worker)

    def _come(self, what: bytes | Exit) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(what)
        else:
            self._arrived.append(what)

    def _line(self, stream: str, text: str) -> None:
        job = self._job
        self._workers.on_line(
            LogLine(function=job.code.function, invocation=job.invocation, stream=stream, text=text)
        )

    def _let_go(self, worker: WorkerProcess, header: dict[str, Any]) -> Outcome | None:
        """Have the worker back after its final frame; gives the outcome if that came too late."""
        workers = self._workers
        now = workers.clock.boot()
        workers.table.clear(worker.row)
        close = now > self._limit_at - CLOSE_TO_LIMIT_S or (
            self._leased_until is not None and now > self._leased_until - CLOSE_TO_LEASE_END_S
        )
        # There must be nothing after a final frame.
        if close or self._stopped or self._arrived or header.get("retire"):
            workers.retire(worker)
        else:
            workers.give_back(worker)
        if self._stopped:
            raise AttemptLost(reason="stopped")
        return TimedOut(limit_s=self._job.limit_s) if now >= self._limit_at else None

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


def _too_large(bytes_max: int) -> Failed:
    message = f"The response has more than the {bytes_max} bytes that are allowed of one that is streamed."
    return Failed(error=Error(type="ResponseTooLarge", message=message), retry=False)
