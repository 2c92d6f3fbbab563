"""One delivery of background work, from its arrival to its settlement, as a straight line of steps.

What to do with a delivery is decided in `verdict.py`, which is pure; `Attempts.take` does it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from quarterhour import record as records
from quarterhour.broker.port import Bodies, Delivery, Records, Run, Settlement, Work
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.invocation import Invocation, next_attempt
from quarterhour.lifecycle import State
from quarterhour.outcome import Cancelled, Error, Failed, Outcome, error_of
from quarterhour.record import Record
from quarterhour.retry import BuryReason, Disposition, Retry, decide
from runner.bodies import forget_body, rest_of
from runner.catalog import Entry
from runner.leases import Lease, Leases
from runner.metrics import Metrics
from runner.sandbox.job import AttemptLost, Code, Finished, Job
from runner.sandbox.pool import Sandbox
from runner.settlement import Settlements
from runner.slots import Place
from runner.verdict import Verdict, is_missed, verdict

__all__ = ["Attempts"]

CANCELS_REMEMBERED = 1000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What is needed to run a delivery that was found fit to run."""

    delivery: Delivery
    lease: Lease
    record: Record
    entry: Entry


class Attempts:
    """Runs background deliveries. `find` gives the entry of a function that this runner serves."""

    def __init__(
        self,
        *,
        runner: str,
        work: Work,
        kept: Records,
        bodies: Bodies,
        sandbox: Sandbox,
        find: Callable[[str], Entry | None],
        leases: Leases,
        settlements: Settlements,
        metrics: Metrics,
        clock: Clock,
        waiting_age_s: float,
    ) -> None:
        self._runner = runner
        self._work = work
        self._records = kept
        self._bodies = bodies
        self._sandbox = sandbox
        self._find = find
        self._leases = leases
        self._settlements = settlements
        self._metrics = metrics
        self._clock = clock
        self._waiting_age_s = waiting_age_s
        self._held: dict[str, Lease] = {}
        self._cancelled: dict[str, None] = {}  # the latest that were not held: they may be on their way here
        self._one_ended = asyncio.Event()
        self._suspect = asyncio.Lock()
        self._stopping = False
        self._draining = asyncio.Event()

    @property
    def draining(self) -> bool:
        """While it is true, what is delivered is handed back."""
        return self._draining.is_set()

    @draining.setter
    def draining(self, value: bool) -> None:
        (self._draining.set if value else self._draining.clear)()

    def running(self, invocation_id: str) -> Run | None:
        """The run of an invocation, if it is this runner's: what is yet to be started is so as well."""
        lease = self._held.get(invocation_id)
        if lease is None or lease.until <= self._clock.boot():
            return None
        return Run(
            runner=self._runner,
            attempt=lease.delivery.invocation.attempt,
            started_at=None if lease.attempt is None else lease.attempt.started_at,
        )

    def stop(self) -> None:
        """Stop what runs: each attempt is handed back without having cost anything."""
        self._stopping = True
        for lease in self._held.values():
            if lease.attempt is not None:
                lease.attempt.stop()

    def give_up(self) -> None:
        """Break off what is still held, as if the runner were lost: it is delivered again after its lease."""
        for lease in self._held.values():
            invocation = lease.delivery.invocation
            why = "The runner ends, and the broker has not taken what came of it."
            log.warning("delivery_let_go", function=invocation.function, invocation=invocation.id, why=why)
            lease.give_up()

    def cancel(self, invocation_id: str) -> None:
        """An invocation was cancelled: what runs of it is ended, what is not begun yet is not begun."""
        lease = self._held.get(invocation_id)
        if lease is not None:
            lease.cancel()
            return
        self._cancelled[invocation_id] = None
        if len(self._cancelled) > CANCELS_REMEMBERED:
            del self._cancelled[next(iter(self._cancelled))]

    async def ended(self) -> None:
        """Return when no delivery is held any more."""
        while self._held:
            await self._one_end()

    async def _one_end(self) -> None:
        self._one_ended.clear()
        await self._one_ended.wait()

    async def take(self, delivery: Delivery, place: Place) -> None:
        """See one delivery through to its end. `place` is left as soon as its slot is free again."""
        invocation = delivery.invocation
        try:
            await self._earlier_ended(delivery)
            if invocation.id in self._held:
                log.info("delivered_while_running", function=invocation.function, invocation=invocation.id)
                return
            with self._leases.hold(delivery) as lease:
                self._held[invocation.id] = lease
                lease.cancelled = invocation.id in self._cancelled
                try:
                    await self._take(lease, place)
                finally:
                    del self._held[invocation.id]
                    self._one_ended.set()
        except (BrokerUnavailable, Conflict) as error:
            # Nothing was settled: the lease ends by itself and the invocation is delivered again.
            log.warning(
                "delivery_let_go", function=invocation.function, invocation=invocation.id, why=str(error)
            )
        except Exception:
            # A fault of ours must not take the neighbours along. It is bounded: each further delivery
            # leaves a start note, and five of them bury the invocation.
            log.exception("delivery_failed", function=invocation.function, invocation=invocation.id)
        finally:
            place.leave()

    async def _earlier_ended(self, delivery: Delivery) -> None:
        """Return when no earlier attempt of the invocation is held, or the delivery's lease has ended.

        A retry without delay is on the queue with the settlement before it, and may be delivered before
        that one's answer is here. Its record is read after this, so a cancel meanwhile is not missed.
        """
        invocation = delivery.invocation
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, delivery.leased_until - self._clock.boot())):
                while (held := self._held.get(invocation.id)) is not None:
                    if held.delivery.invocation.attempt >= invocation.attempt:
                        return
                    await self._one_end()

    async def _take(self, lease: Lease, place: Place) -> None:
        delivery = lease.delivery
        entry = self._find(delivery.invocation.function)
        if entry is None or self.draining:
            await self._give_back(lease)
            return
        record = await self._record_of(delivery)
        if record is None:
            return
        begun = _Begun(delivery=delivery, lease=lease, record=record, entry=entry)
        now = self._clock.now()
        what = verdict(
            record,
            attempt=delivery.invocation.attempt,
            deliveries=delivery.number,
            now=now,
            waiting_age_s=self._waiting_age_s,
            missed=is_missed(delivery, entry.manifest.schedule, now),
        )
        match what:
            case Verdict.START:
                if await self._placed(begun, place):
                    await self._run(begun, place)
            case Verdict.START_WITH_NOTE:
                await self._run_with_note(begun, place)
            case Verdict.START_ALONE:
                place.stand_back()  # its turn may be long in coming
                async with self._suspect:
                    await place.come_forward()
                    await self._run_with_note(begun, place)
            case Verdict.ACKNOWLEDGE:
                await self._work.acknowledge(delivery)
                await forget_body(delivery.invocation, record.state, self._bodies)
            case Verdict.EXPIRE:
                await self._bury(begun, BuryReason.EXPIRED)
            case Verdict.BURY_AS_LOST:
                await self._bury(begun, BuryReason.RUNNER_LOST)
            case _:
                assert_never(what)

    async def _record_of(self, delivery: Delivery) -> Record | None:
        """The record as this delivery finds it; None if somebody else runs the invocation now."""
        invocation = delivery.invocation
        if delivery.is_new:
            return records.waiting(invocation)
        if (run := await self._holder(delivery)) is not None:
            log.info(
                "runs_elsewhere", function=invocation.function, invocation=invocation.id, runner=run.runner
            )
            return None
        record = await self._records.read(invocation.function, invocation.id)
        return records.waiting(invocation) if record is None else records.due(record, invocation)

    async def _holder(self, delivery: Delivery) -> Run | None:
        """Who runs the invocation already, if the broker may have taken it from him too early.

        It does so if it has forgotten, and where a hand-back was long on its way. Somebody who had it
        before and is silent may be stopped, with workers that go on: while the broker recovers, and may
        have forgotten how long his lease is, it has ended for certain one lease after this delivery.
        """
        if not delivery.doubtful and delivery.number == 1:
            return None
        run = await self._work.who_runs(delivery.invocation.id)
        if run is None and delivery.recovering and delivery.number > 1:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, delivery.leased_until - self._clock.boot())):
                    await self._draining.wait()
            run = await self._work.who_runs(delivery.invocation.id)
        return run

    async def _placed(self, begun: _Begun, place: Place) -> bool:
        """Wait for the slot; whether the delivery may still be started then."""
        await place.take()
        if begun.lease.cancelled:
            await self._dismiss(begun)
            return False
        if self.draining:
            await self._give_back(begun.lease)
            return False
        return begun.lease.until > self._clock.boot()

    async def _run_with_note(self, begun: _Begun, place: Place) -> None:
        if not await self._placed(begun, place):
            return
        noted = records.started(begun.record, runner=self._runner, now=self._clock.now())
        try:
            record = await self._records.write(noted)
        except Conflict:
            # Somebody wrote since it was read, so somebody else has it, or has had it: the next
            # delivery will see what came of it.
            log.info("note_refused", function=noted.function, invocation=noted.id)
            return
        await self._run(replace(begun, record=record), place)

    async def _run(self, begun: _Begun, place: Place) -> None:
        invocation = begun.delivery.invocation
        code = begun.entry.code
        if code is None:
            finished = _unrunnable(begun.entry, self._clock.now())
        else:
            self._metrics.queued(invocation.function, self._clock.now() - invocation.due_at)
            try:
                with self._metrics.running(invocation.function):
                    finished = await self._run_in_sandbox(begun, code)
            except AttemptLost as lost:
                await self._hand_back(begun, lost)
                return
        async with self._settlements.place():
            place.leave()
            await self._settle(begun, finished)

    async def _run_in_sandbox(self, begun: _Begun, code: Code) -> Finished:
        if begun.lease.cancelled:
            raise AttemptLost(reason="cancelled")
        if self._stopping:
            raise AttemptLost(reason="stopped")
        delivery, manifest = begun.delivery, begun.entry.manifest
        attempt = self._sandbox.attempt(
            Job(
                code=code,
                invocation=delivery.invocation.id,
                mode=delivery.invocation.mode,
                returned_status=manifest.returned_status,
                envelope=delivery.envelope,
                limit_s=manifest.timeout_s,
                leased_until=begun.lease.until,
                rest=rest_of(delivery.invocation, self._bodies),
            )
        )
        begun.lease.attempt = attempt
        return await attempt.run()

    async def _hand_back(self, begun: _Begun, lost: AttemptLost) -> None:
        """An attempt that was lost costs a delivery, never an attempt."""
        invocation = begun.delivery.invocation
        if lost.reason == "cancelled":
            await self._dismiss(begun)
            return
        log.warning(
            "attempt_lost", function=invocation.function, invocation=invocation.id, reason=lost.reason
        )
        if lost.reason == "lease":
            return  # it is not ours any more
        if lost.reason in {"stopped", "body", "worker"} and begun.record.notes:
            # Cancelled before the hand-back: the other order could cancel the next runner's note.
            await self._records.write(records.handed_back(begun.record))
        if lost.reason not in {"body", "worker"}:  # what lacks may take a while to come: a lease, at most
            await self._give_back(begun.lease)

    async def _dismiss(self, begun: _Begun) -> None:
        """It was cancelled before its handler was started, if its record says so: that alone counts."""
        invocation = begun.delivery.invocation
        self._cancelled.pop(invocation.id, None)
        stored = await self._settlements.latest(begun.record)
        if stored is None or not records.is_settled(stored, invocation.attempt):
            log.warning("cancel_not_stored", function=invocation.function, invocation=invocation.id)
            await self._give_back(begun.lease)
            return
        log.info("cancelled_before_start", function=invocation.function, invocation=invocation.id)
        await self._work.acknowledge(begun.delivery)
        await forget_body(invocation, stored.state, self._bodies)

    async def _give_back(self, lease: Lease) -> None:
        """Have it delivered again at once. Whoever gets it asks who has it: that is nobody any more."""
        lease.end()
        await self._work.hand_back(lease.delivery)

    async def _settle(self, begun: _Begun, finished: Finished) -> None:
        invocation, manifest = begun.delivery.invocation, begun.entry.manifest
        disposition = decide(finished.outcome, attempt=invocation.attempt, policy=manifest.retry)
        settlement = Settlement(
            delivery=begun.delivery,
            record=records.settled(
                await self._record_to_settle(begun, finished.outcome),
                finished.outcome,
                disposition,
                started_at=finished.started_at,
                finished_at=finished.finished_at,
                logs=finished.logs,
                runner=self._runner,
            ),
            retry=_retry_of(invocation, finished, disposition),
        )
        if await self._settlements.settle(settlement):
            duration_s = finished.finished_at - finished.started_at
            self._metrics.settled(
                invocation.function, invocation.mode, finished.outcome, disposition, duration_s
            )
            _report(invocation, finished.outcome, disposition)
            await forget_body(invocation, settlement.record.state, self._bodies)

    async def _record_to_settle(self, begun: _Begun, outcome: Outcome) -> Record:
        """The record as this delivery found it, or as whoever cancelled the invocation left it."""
        if not isinstance(outcome, Cancelled):
            return begun.record
        attempt, stored = begun.record.attempt, await self._settlements.latest(begun.record)
        if stored is None or stored.state is not State.CANCELLED:
            return begun.record
        if any(one.attempt == attempt for one in stored.attempts):
            return begun.record  # somebody else had it as well, and came first: it will be refused
        return replace(stored, attempt=attempt)

    async def _bury(self, begun: _Begun, reason: BuryReason) -> None:
        record = records.buried(begun.record, reason, now=self._clock.now())
        if await self._settlements.settle(Settlement(delivery=begun.delivery, record=record)):
            self._metrics.buried(record.function, reason)
            log.error(
                "invocation_buried",
                function=record.function,
                invocation=record.id,
                reason=reason,
                see=f"quarterhour status {record.id}",
            )


def _unrunnable(entry: Entry, now: float) -> Finished:
    error = Error(type="FunctionError", message=entry.manifest.error or "The function cannot run.")
    return Finished(outcome=Failed(error=error, retry=False), started_at=now, finished_at=now, logs="")


def _retry_of(invocation: Invocation, finished: Finished, disposition: Disposition) -> Invocation | None:
    error = error_of(finished.outcome)
    if not isinstance(disposition, Retry) or error is None:
        return None
    return next_attempt(invocation, due_at=finished.finished_at + disposition.delay_s, error=error)


def _report(invocation: Invocation, outcome: Outcome, disposition: Disposition) -> None:
    error = error_of(outcome)
    if error is None:
        log.debug("attempt_succeeded", function=invocation.function, invocation=invocation.id)
        return
    if isinstance(outcome, Cancelled):
        log.info("attempt_cancelled", function=invocation.function, invocation=invocation.id)
        return
    follows = f"again in {disposition.delay_s:g} s" if isinstance(disposition, Retry) else "dead letter"
    log.error(
        "function_failed",
        function=invocation.function,
        error=f"{error.type}: {error.message}",
        attempt=invocation.attempt,
        then=follows,
        see=f"quarterhour status {invocation.id}",
    )
