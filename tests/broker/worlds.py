"""The brokers that the conformance suite runs against, and samples of what travels through them.

An adapter of your own joins with `QUARTERHOUR_TEST_BROKER=scheme://… pytest tests/broker`.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from quarterhour.broker import Broker, BrokerOptions, connect_for
from quarterhour.broker.port import Delivery, Settlement
from quarterhour.function import Manifest, Mode
from quarterhour.ids import new_id
from quarterhour.invocation import Invocation, Request, next_attempt
from quarterhour.outcome import Error, Failed, Succeeded
from quarterhour.record import Record, due, settled, waiting
from quarterhour.retry import Bury, BuryReason, Complete, Retry, RetryPolicy
from tests.waiting import eventually

__all__ = [
    "LEASE_S",
    "SHORT_LEASE_S",
    "StoodStill",
    "World",
    "bury",
    "complete",
    "invocation",
    "manifest",
    "pulled",
    "retry",
    "taken",
    "undisturbed",
]

LEASE_S = 30.0  # no machine stands still for so long: what is leased stays with who has it
SHORT_LEASE_S = 0.6  # for tests that wait for the end of one
TRIES_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One broker with a namespace of its own. Connections last until the end of the test."""

    url: str
    stack: AsyncExitStack
    namespace: str = field(default_factory=lambda: f"test-{uuid4().hex[:12]}")

    async def connect(self, name: str = "process", **options: Any) -> Broker:
        """A connection; `options` are those of `BrokerOptions`."""
        usual = {"url": self.url, "name": name, "namespace": self.namespace, "lease_s": LEASE_S}
        told = BrokerOptions(**cast("Any", usual | options))
        return await self.stack.enter_async_context(connect_for(self.url)(told))


def manifest(name: str = "report", **fields: Any) -> Manifest:
    """A background function's manifest."""
    usual = {
        "name": name,
        "runtime": "python",
        "background": True,
        "timeout_s": 900.0,
        "retry": RetryPolicy(),
    }
    return Manifest(**cast("Any", usual | fields))


def invocation(function: str = "report", **fields: Any) -> Invocation:
    """A first attempt, accepted now."""
    now = time.time()
    request = Request(
        method="POST",
        path=f"/.netlify/functions/{function}",
        query="a=1&b=%20",
        headers=(("content-type", "text/plain"), ("x-odd", "gr\xfc\xdfe: Status: 503")),
        client="127.0.0.1",
    )
    usual = {
        "id": new_id(),
        "function": function,
        "mode": Mode.BACKGROUND,
        "attempt": 1,
        "accepted_at": now,
        "due_at": now,
        "request": request,
        "body": b"\x00raw",
    }
    return Invocation(**cast("Any", usual | fields))


async def pulled(broker: Broker, count: int = 10, function: str = "report") -> list[Delivery]:
    """What one pull brings. It may bring nothing although there is work: it only glances at the queue."""
    return [delivery async for delivery in broker.pull(function, count)]


async def taken(
    broker: Broker, count: int = 1, *, at_most: int | None = None, function: str = "report"
) -> list[Delivery]:
    """Exactly `count` deliveries, in as many pulls as it takes; one more would be seen.

    `at_most`: how many are asked for, where more wait than are to be taken.
    """
    found: list[Delivery] = []

    async def enough() -> bool:
        found.extend(await pulled(broker, (at_most or max(count, 10)) - len(found), function))
        return len(found) >= count

    await eventually(enough, what=f"{count} were delivered")
    assert len(found) == count, [delivery.invocation for delivery in found]
    return found


class StoodStill(Exception):  # noqa: N818 - it says that the test has to be repeated
    """This machine stood still for so long that what was to be seen had its moment meanwhile."""


async def undisturbed(world: World, scene: Callable[[World], Awaitable[None]]) -> None:
    """Play a scene whose moments are short, in a world of its own each time until it is in time for them.

    The scene raises `StoodStill` where by the clock it is not: what it sees then says nothing.
    """
    for _ in range(TRIES_MAX):
        try:
            return await scene(World(url=world.url, stack=world.stack))
        except StoodStill:
            continue
    message = f"In {TRIES_MAX} tries this machine was never in time."
    raise AssertionError(message)


def complete(delivery: Delivery, *, known: Record | None = None, runner: str = "runner") -> Settlement:
    """The settlement of an attempt that has succeeded."""
    return Settlement(
        delivery=delivery, record=_settled(delivery, known, Succeeded(value=b"[1]"), Complete(), runner)
    )


def bury(delivery: Delivery, *, known: Record | None = None) -> Settlement:
    """The settlement of an attempt that has failed for good."""
    outcome = Failed(error=Error(type="Boom", message="it broke"))
    return Settlement(
        delivery=delivery, record=_settled(delivery, known, outcome, Bury(reason=BuryReason.FAILED))
    )


def retry(delivery: Delivery, *, after_s: float, known: Record | None = None) -> Settlement:
    """The settlement of an attempt that has failed and is tried again."""
    error = Error(type="Boom", message="it broke")
    record = _settled(delivery, known, Failed(error=error), Retry(delay_s=after_s))
    assert record.next_attempt_at is not None
    following = next_attempt(delivery.invocation, due_at=record.next_attempt_at, error=error)
    return Settlement(delivery=delivery, record=record, retry=following)


def _settled(
    delivery: Delivery,
    known: Record | None,
    outcome: Succeeded | Failed,
    disposition: Complete | Retry | Bury,
    runner: str = "runner",
) -> Record:
    record = due(known, delivery.invocation) if known is not None else waiting(delivery.invocation)
    now = time.time()
    return settled(
        record, outcome, disposition, started_at=now, finished_at=now, logs="line\n", runner=runner
    )
