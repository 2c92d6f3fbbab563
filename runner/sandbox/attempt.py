"""One attempt in one worker, from the frame that starts it to its outcome."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from quarterhour.clock import Clock
from quarterhour.errors import BodyLost, BrokerError, EnvelopeError
from quarterhour.function import Mode
from quarterhour.invocation import unpack
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Outcome, Response, Succeeded, TimedOut
from quarterhour.record import RESULT_BYTES_MAX
from runner.judge import judge, judge_end, judge_head
from runner.sandbox.frames import Large
from runner.sandbox.guard import Exit
from runner.sandbox.job import AttemptLost, Code, Finished, Job, LogLine, LossReason, Rest, Sink
from runner.sandbox.worker import WorkerProcess

__all__ = ["Attempt"]

# The guard may have begun to end a worker whose result came this close to a deadline.
CLOSE_TO_LIMIT_S = 0.2
CLOSE_TO_LEASE_END_S = 0.8
FINAL_KINDS = ("returned", "raised")
BODILESS = {204, 304}
EXIT_S = 0.05  # a worker that closes its channel is about to exit; one that does not is ended


_Arrival = bytes | Large | Exit


class _WorkerEndedError(Exception):
    """The worker has ended in the middle of its result."""

    def __init__(self, exit_: Exit) -> None:
        super().__init__()
        self.exit = exit_


class Workers(Protocol):
    """What an attempt needs of the pool that its worker comes from."""

    clock: Clock
    stream_bytes_max: int
    on_line: Callable[[LogLine], None]

    async def take(self, code: Code) -> WorkerProcess:
        """A worker for `code` that does nothing else. Raises `AttemptLost`."""
        ...

    def keep_moments(
        self, worker: WorkerProcess, *, limit_at: float | None, leased_until: float | None
    ) -> None:
        """Have the worker ended at its limit and before the end of its lease. Nothing, if it has ended."""

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
        self._cancelled = False
        self._ended = False
        self._leased_until = job.leased_until
        self._limit_at = 0.0
        self._given_at: float | None = None  # by then the worker had given its whole result (boot clock)
        self._exit: Exit | None = None
        self._delivery: asyncio.Timeout | None = None
        # What comes from the worker: frames, and in the end its exit unless the last frame was final.
        self._next: asyncio.Future[_Arrival] | None = None
        self._arrived: deque[_Arrival] = deque()

    def extend(self, leased_until: float) -> None:
        """Its lease was renewed until `leased_until` (boot clock, seconds)."""
        if self._given_at is not None:
            return
        self._leased_until = leased_until
        if self._worker is not None and not self._ended:
            self._workers.keep_moments(self._worker, limit_at=self._limit_at, leased_until=leased_until)

    def stop(self) -> None:
        """End it without an outcome: `run` raises `AttemptLost`."""
        self._stopped = True
        self._end()

    def cancel(self) -> None:
        """End it since nobody wants it any more: that is its outcome, if a worker has it already."""
        self._cancelled = True
        self._end()

    def _end(self) -> None:
        if self._worker is not None and not self._ended:
            self._workers.retire(self._worker)
            self._look_ahead()

    async def run(self) -> Finished:
        """Make the attempt. Raises `AttemptLost` if it ended without an outcome of its own."""
        workers, job = self._workers, self._job
        worker = await workers.take(job.code)
        if self._cancelled or self._stopped:
            workers.give_back(worker)
            raise AttemptLost(reason="cancelled" if self._cancelled else "stopped")
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
        first = self._start(worker)
        if self._job.rest is not None and (lost := await self._send_rest(worker, self._job.rest, first)):
            return lost
        end = await first
        if isinstance(end, Exit):
            return self._outcome_of_exit(end)
        try:
            if isinstance(end, Large):
                return await self._outcome_of_large(worker, end)
            header, body = unpack(end)
            if header.get("kind") == "streaming" and self._job.sink is not None:
                return await self._relay(worker, header, self._job.sink)
        except EnvelopeError as error:
            self._workers.retire(worker)
            return Failed(error=Error(type="InvalidResult", message=str(error)), retry=False)
        late = self._let_go(worker, header)
        return late or judge(header, body, mode=self._job.mode, returned_status=self._job.returned_status)

    async def _send_rest(
        self, worker: WorkerProcess, rest: Rest, first: "asyncio.Future[_Arrival]"
    ) -> Failed | None:
        """Give the worker the body of its envelope as it comes. Until the end of it no handler runs."""
        try:
            async for piece in rest.read():
                await worker.send_rest(piece)
                if first.done() or worker.hung_up:
                    self._workers.retire(worker)  # it has ended; or it answers what it has not read
                    break
        except BodyLost as error:
            self._workers.retire(worker)
            return Failed(error=Error(type="BodyLost", message=str(error)), retry=False)
        except BrokerError:
            self._workers.retire(worker)
            raise AttemptLost(reason="stopped" if self._stopped else "body") from None
        return None

    async def _outcome_of_large(self, worker: WorkerProcess, large: Large) -> Outcome:
        """Judge a result by its header. Its body goes where it is kept; of one for the record, a part is."""
        job, (header, _) = self._job, unpack(large.envelope)
        body = self._body_of(worker, large)
        try:
            if job.mode is Mode.SYNCHRONOUS and job.keep is not None:
                outcome = judge(header, b"", mode=job.mode, returned_status=job.returned_status)
                if isinstance(outcome, Succeeded) and outcome.response.status not in BODILESS:
                    claim = await job.keep(body)
                    outcome = replace(outcome, response=replace(outcome.response, claim=claim))
                await _beginning(body)
            else:
                beginning = await _beginning(body)
                outcome = judge(header, beginning, mode=job.mode, returned_status=job.returned_status)
        except _WorkerEndedError as ended:
            return self._outcome_of_exit(ended.exit)
        except BrokerError as error:
            self._workers.retire(worker)
            return Failed(error=Error(type="ResponseLost", message=str(error)), retry=False)
        worker.resume()
        return self._let_go(worker, header) or outcome

    async def _body_of(self, worker: WorkerProcess, large: Large) -> AsyncIterator[bytes]:
        left_bytes = large.body_bytes
        while left_bytes:
            part = await self._receive(worker)
            if isinstance(part, Exit):
                raise _WorkerEndedError(part)
            if isinstance(part, bytes):
                left_bytes -= len(part)
                if not left_bytes:
                    self._give(worker)
                yield part

    async def _relay(self, worker: WorkerProcess, header: dict[str, Any], sink: Sink) -> Outcome:
        """Hand a response on as it comes; whoever takes it sets the pace.

        That ends with the worker, so at the latest at its limit, unless the worker has given everything
        before. What is left then is no more than was read of its channel at once: the sink gives up a client
        that takes nothing of it for long (`quarterhour/broker/flow.py`), and `stop` ends it.
        """
        head = judge_head(header)
        if isinstance(head, Failed):
            self._workers.retire(worker)
            return head
        worker.pause()
        try:
            async with asyncio.timeout(None) as self._delivery:
                self._look_ahead(*self._arrived)
                return await self._deliver(worker, head, sink)
        except TimeoutError:
            if self._exit is None:
                raise
            return self._outcome_of_exit(self._exit)
        except BrokerError:  # nobody reads any further, or can be told
            self._workers.retire(worker)
            return Cancelled()

    async def _deliver(self, worker: WorkerProcess, head: Response, sink: Sink) -> Outcome:
        left_bytes = self._workers.stream_bytes_max
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
        if isinstance(end, Large):
            self._workers.retire(worker)
            return _no_chunk()
        return self._outcome_of_exit(end)

    def _look_ahead(self, *waiting: "_Arrival") -> None:
        """While a response is delivered, its end counts when it comes, however much waits before it."""
        if self._delivery is None or self._worker is None:
            return
        if any(isinstance(what, bytes) and _is_final(what) for what in waiting):
            self._give(self._worker)
        if self._exit is not None and (self._given_at is None or self._stopped or self._cancelled):
            with suppress(RuntimeError):  # it has ended in this very moment
                self._delivery.reschedule(asyncio.get_running_loop().time())

    def _start(self, worker: WorkerProcess) -> "asyncio.Future[_Arrival]":
        """Give the worker its frame; what comes of it first is a frame or the worker's exit."""
        first = self._next = asyncio.get_running_loop().create_future()
        self._worker = worker
        worker.user = self
        worker.output.begin(self._line)
        self._limit_at = self._workers.clock.boot() + self._job.limit_s
        # The moments first: from here on the guard keeps limit and lease, whatever becomes of us.
        self._workers.keep_moments(worker, limit_at=self._limit_at, leased_until=self._leased_until)
        rest = self._job.rest
        worker.send(self._limit_at, self._job.envelope, rest_bytes=rest.size_bytes if rest else 0)
        if worker.hung_up:
            self.on_hung_up()
        return first

    async def _receive(self, worker: WorkerProcess) -> "_Arrival":
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

    def on_large(self, large: Large) -> None:
        """The worker begins to send a large result."""
        self._come(large)

    def on_exit(self, exit_: Exit) -> None:
        """The worker has ended."""
        self._exit = exit_
        self._come(exit_)

    def on_hung_up(self) -> None:
        """Its end is reported in a moment; if not, user code has closed the channel and lives on."""
        if self._worker is not None:
            asyncio.get_running_loop().call_later(EXIT_S, self._workers.retire, self._worker)

    def _come(self, what: "_Arrival") -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(what)
        else:
            self._arrived.append(what)
            self._look_ahead(what)

    def _line(self, stream: str, text: str) -> None:
        job = self._job
        self._workers.on_line(
            LogLine(function=job.code.function, invocation=job.invocation, stream=stream, text=text)
        )

    def _give(self, worker: WorkerProcess) -> float:
        """The worker has given its whole result: it is held to nothing more. When that was (boot clock)."""
        if self._given_at is None:
            self._given_at = self._workers.clock.boot()
            self._workers.keep_moments(worker, limit_at=None, leased_until=None)
        return self._given_at

    def _let_go(self, worker: WorkerProcess, header: dict[str, Any]) -> Outcome | None:
        """Have the worker back after its final frame; gives the outcome if that came too late."""
        workers, given_at = self._workers, self._give(worker)
        close = given_at > self._limit_at - CLOSE_TO_LIMIT_S or (
            self._leased_until is not None and given_at > self._leased_until - CLOSE_TO_LEASE_END_S
        )
        # There must be nothing after a final frame, and there is something after any other.
        done = header.get("kind") in FINAL_KINDS and not self._arrived
        if close or self._stopped or self._cancelled or not done or header.get("retire"):
            workers.retire(worker)
        else:
            workers.give_back(worker)
        if self._cancelled:
            return Cancelled()
        if self._stopped:
            raise AttemptLost(reason="stopped")
        return TimedOut(limit_s=self._job.limit_s) if given_at >= self._limit_at else None

    def _outcome_of_exit(self, end: Exit) -> Outcome:
        if self._cancelled and end.killed != "lease":
            return Cancelled()
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
        return Crashed(signal=_name_of(os.WTERMSIG(end.status)))


def _name_of(number: int) -> str:
    """A signal's name. Of the real-time signals only the first and the last have one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_final(frame: bytes) -> bool:
    try:
        return unpack(frame)[0].get("kind") in FINAL_KINDS
    except EnvelopeError:  # that is found when it is its turn
        return False


async def _beginning(body: AsyncIterator[bytes]) -> bytes:
    """As much of a body as a record takes, and a byte more; the rest is read and dropped."""
    found = b""
    async for part in body:
        found += part[: RESULT_BYTES_MAX + 1 - len(found)]
    return found


def _no_chunk() -> Failed:
    message = "The worker sent a piece of its response that is larger than any may be."
    return Failed(error=Error(type="InvalidResult", message=message), retry=False)


def _too_large(bytes_max: int) -> Failed:
    message = f"The response has more than the {bytes_max} bytes that are allowed of one that is streamed."
    return Failed(error=Error(type="ResponseTooLarge", message=message), retry=False)
