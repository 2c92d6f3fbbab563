"""Serving: synchronous calls, each answered once, on the spot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog

from quarterhour.body import BodyKind, Claim
from quarterhour.broker.port import Answer, Bodies
from quarterhour.clock import Clock
from quarterhour.errors import BrokerError
from quarterhour.invocation import Invocation
from quarterhour.outcome import Crashed, Error, Failed, Outcome, error_of
from quarterhour.reply import Refusal, Refused, Reply
from runner.bodies import rest_of
from runner.catalog import Entry
from runner.metrics import Metrics
from runner.sandbox.job import AttemptLost, Job
from runner.sandbox.pool import Attempt, Sandbox
from runner.slots import Slots

__all__ = ["Server"]

SLOT_WAIT_S = 1.0
RESPONSE_KEPT_S = 3600.0  # the gateway removes it once it is sent; this is for the one that does not

log = structlog.get_logger()


class Server:
    """Answers calls. `find` gives the entry of a function that this runner serves."""

    def __init__(
        self,
        *,
        sandbox: Sandbox,
        bodies: Bodies,
        slots: Slots,
        find: Callable[[str], Entry | None],
        metrics: Metrics,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._sandbox = sandbox
        self._bodies = bodies
        self._slots = slots
        self._find = find
        self._metrics = metrics
        self._clock = clock
        self._tasks = tasks
        self._calls: set[asyncio.Task[None]] = set()
        self._running: set[Attempt] = set()
        self.draining = False

    def take(self, invocation: Invocation, envelope: bytes, answer: Answer) -> None:
        """Take a call off the broker's hands; `answer` gets its reply."""
        call = self._tasks.create_task(self._take(invocation, envelope, answer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def stop(self) -> None:
        """End what still runs; its callers are told so."""
        for attempt in self._running:
            attempt.stop()

    def give_up(self) -> None:
        """Break off what is still under way; the gateway sees to the answers when the runner is gone."""
        if self._calls:
            log.warning("calls_given_up", count=len(self._calls))
        for call in self._calls:
            call.cancel()

    async def ended(self) -> None:
        """Return when no call is under way any more."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def _take(self, invocation: Invocation, envelope: bytes, answer: Answer) -> None:
        try:
            reply = await self._reply(invocation, envelope, answer)
        except AttemptLost as lost:
            # Nobody knows how far it got. The runner ends in a moment, and the gateway sees to the answer.
            log.warning(
                "call_lost", function=invocation.function, invocation=invocation.id, reason=lost.reason
            )
            return
        except Exception:
            log.exception("call_failed", function=invocation.function, invocation=invocation.id)
            reply = Failed(error=Error(type="RunnerError", message="The runner failed; see its log."))
        try:
            await answer(reply)
        except BrokerError as error:
            log.warning("reply_lost", function=invocation.function, invocation=invocation.id, why=str(error))

    async def _reply(self, invocation: Invocation, envelope: bytes, answer: Answer) -> Reply:
        entry = self._find(invocation.function)
        if entry is None:
            return Refused(reason=Refusal.NOT_SERVED)
        if self.draining:
            return Refused(reason=Refusal.DRAINING)
        if not await self._slots.acquire(SLOT_WAIT_S):
            return Refused(reason=Refusal.BUSY)
        try:
            if self.draining:  # since it began to wait: nothing more is begun
                return Refused(reason=Refusal.DRAINING)
            with self._metrics.running(invocation.function):
                outcome, duration_s = await self._run(entry, invocation, envelope, answer)
        except AttemptLost as lost:
            if lost.reason != "worker":
                raise
            return Refused(reason=Refusal.BUSY)  # nothing was started: another runner may have room for it
        finally:
            self._slots.release()
        self._metrics.ended(invocation.function, invocation.mode, outcome, duration_s)
        _report(invocation, outcome)
        return outcome

    async def _run(
        self, entry: Entry, invocation: Invocation, envelope: bytes, answer: Answer
    ) -> tuple[Outcome, float]:
        if entry.code is None:
            message = entry.manifest.error or "The function cannot run."
            return Failed(error=Error(type="FunctionError", message=message)), 0.0
        job = Job(
            code=entry.code,
            invocation=invocation.id,
            mode=invocation.mode,
            returned_status=entry.manifest.returned_status,
            envelope=envelope,
            limit_s=entry.manifest.timeout_s,
            leased_until=None,
            rest=rest_of(invocation, self._bodies),
            sink=answer,
            keep=partial(self._keep, invocation.id),
        )
        attempt = self._sandbox.attempt(job)
        self._running.add(attempt)
        try:
            finished = await attempt.run()
        except AttemptLost as lost:
            if lost.reason in {"stopped", "worker"}:
                raise
            if lost.reason == "body":
                message = "The body of the request could not be read from the broker; nothing was started."
                return Failed(error=Error(type="BodyLost", message=message)), 0.0
            return Crashed(detail="was lost with its guard"), 0.0
        finally:
            self._running.discard(attempt)
        return finished.outcome, finished.finished_at - finished.started_at

    async def _keep(self, invocation_id: str, chunks: AsyncIterator[bytes]) -> Claim:
        return await self._bodies.keep_body(BodyKind.RESPONSE, invocation_id, chunks, keep_s=RESPONSE_KEPT_S)


def _report(invocation: Invocation, outcome: Outcome) -> None:
    error = error_of(outcome)
    if error is not None:
        log.error(
            "function_failed",
            function=invocation.function,
            error=f"{error.type}: {error.message}",
            invocation=invocation.id,
        )
