"""Synchronous calls: each goes to one live runner of the gateway's choice, and starts once at most.

A runner that refuses a call has not started it, so the next one is asked. One that goes silent may
have: the answer is then `runner_lost`, and nobody else is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from gateway.directory import Runners
from gateway.problems import Code, Problem
from quarterhour.broker.port import Calls, Stream
from quarterhour.errors import RunnerGone, RunnerLost
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation
from quarterhour.outcome import Outcome
from quarterhour.reply import Refusal, Refused

__all__ = ["Caller", "Relay", "Relayed", "choose", "watch_calls"]

# On top of the function's own limit: the wait for a slot, the end of the worker, the way there and back.
MARGIN_S = 10.0
LOOK_S = 0.25
UNHEARD_S = 0.02

log = structlog.get_logger()

Relay = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """A response with this status has been handed on as it came."""

    status: int


_Under = dict["asyncio.Timeout", float]  # a call's timer, and the moment (monotonic s) at which to give up


def choose(
    serving: Collection[str], under_way: Mapping[str, Collection[object]], tried: Collection[str]
) -> str | None:
    """The runner with the fewest of our calls that was not tried yet.

    `under_way` is in the order in which runners were last called: of equals, the one that was called
    longest ago comes first.
    """
    left = [runner for runner in serving if runner not in tried]
    if len(left) < 2:
        return left[0] if left else None
    for runner in left:
        if runner not in under_way:
            return runner  # it was never called
    return min((runner for runner in under_way if runner in left), key=lambda runner: len(under_way[runner]))


class Caller:
    """Sends calls to runners, and watches over those that are under way.

    Thousands may be under way, so that none has a clock of its own: `look` is called several times
    a second and ends what has to be ended.
    """

    def __init__(self, broker: Calls, runners: Runners, now: Callable[[], float]) -> None:
        self._broker = broker
        self._runners = runners
        self._now = now
        self._under_way: dict[str, _Under] = {}

    async def call(
        self, invocation: Invocation, manifest: Manifest, relay: Relay
    ) -> Outcome | Problem | Relayed:
        """Have a runner run the invocation; a response that comes bit by bit is handed to `relay`.

        Raises `BrokerUnavailable`, `TooLarge`, `EnvelopeError`, and what `relay` raises.
        """
        if not self._runners.serving(invocation.function):
            await self._hear_of(invocation.function)
        tried: list[str] = []
        refusals: set[Refusal] = set()
        until = self._now() + manifest.timeout_s + MARGIN_S
        while runner := choose(self._runners.serving(invocation.function), self._under_way, tried):
            tried.append(runner)
            try:
                reply = await self._ask(runner, invocation, until, relay)
            except RunnerGone:
                self._runners.refuses(runner)
                continue
            except RunnerLost as error:
                return Problem(code=Code.RUNNER_LOST, detail=str(error))
            except TimeoutError as error:
                return Problem(code=Code.NO_ANSWER, detail=str(error))
            if not isinstance(reply, Refused):
                return reply
            refusals.add(reply.reason)
            if reply.reason is Refusal.DRAINING:
                self._runners.refuses(runner)
        return _nobody(invocation.function, refusals)

    async def _hear_of(self, function: str) -> None:
        """Wait for a runner of `function` if this gateway has begun only now to hear of runners."""
        runners = self._runners
        while not runners.serving(function) and runners.may_be_unheard(self._now()):  # noqa: ASYNC110
            await asyncio.sleep(UNHEARD_S)

    async def _ask(
        self, runner: str, invocation: Invocation, until: float, relay: Relay
    ) -> Outcome | Refused | Relayed:
        timer = asyncio.timeout(None)
        # Taken out and put back, so that the order is that of the latest calls.
        calls = self._under_way.pop(runner, {})
        self._under_way[runner] = calls
        calls[timer] = until
        try:
            async with timer:
                reply = await self._broker.call(runner, invocation)
                return await _relayed(reply, relay) if isinstance(reply, Stream) else reply
        except TimeoutError:
            # One that was silent may be heard again by now.
            if self._now() > until and self._runners.lives(runner):
                message = f"Runner {runner} lives, but did not answer within the limit and {MARGIN_S:g} s."
                raise TimeoutError(message) from None
            message = f"Runner {runner} went silent while it had the call; it may or may not have run."
            raise RunnerLost(message) from None
        finally:
            del calls[timer]

    def look(self) -> None:
        """End the calls that are overdue, and those of runners that are lost."""
        now = self._now()
        for runner in self._runners.look(now):
            log.warning("runner_silent", runner=runner, calls=len(self._under_way.get(runner, ())))
        at_once = asyncio.get_running_loop().time()
        for runner, calls in list(self._under_way.items()):
            lost = not self._runners.lives(runner)
            if lost and not calls:
                del self._under_way[runner]
            for timer, until in calls.items():
                if (lost or now > until) and not timer.expired():
                    timer.reschedule(at_once)


async def _relayed(stream: Stream, relay: Relay) -> Relayed:
    try:
        await relay(stream)
    finally:
        await stream.close()
    return Relayed(status=stream.head.status)


def _nobody(function: str, refusals: Collection[Refusal]) -> Problem:
    if Refusal.BUSY in refusals:
        return Problem(code=Code.BUSY, detail=f"Every runner that serves {function} is busy.")
    return Problem(code=Code.NO_RUNNER, detail=f"No runner that serves {function} is up.")


async def watch_calls(caller: Caller) -> None:
    """Call `look` for as long as the gateway lives."""
    while True:
        await asyncio.sleep(LOOK_S)
        caller.look()
