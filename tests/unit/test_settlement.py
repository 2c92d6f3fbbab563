"""A settlement that is broken off is finished nevertheless, or given up within bounds."""

import asyncio
from typing import cast

import pytest
import structlog

from quarterhour.broker.port import Delivery, Records, Settlement, Work
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.function import Mode
from quarterhour.lifecycle import State
from quarterhour.record import Record
from runner import settlement as module
from runner.metrics import Metrics
from runner.settlement import Settlements

RECORD = Record(
    id="i", function="f", mode=Mode.BACKGROUND, state=State.SUCCEEDED, attempt=1, accepted_at=0, due_at=0
)
SETTLEMENT = Settlement(delivery=cast("Delivery", None), record=RECORD)


class Slow:
    """A broker that takes its time; `done` counts what was stored and acknowledged."""

    def __init__(self, seconds: float) -> None:
        self.asked = asyncio.Event()
        self.done = 0
        self._seconds = seconds

    async def settle(self, _: Settlement) -> None:
        self.asked.set()
        await asyncio.sleep(self._seconds)
        self.done += 1


class Away(Slow):
    """It is away."""

    async def settle(self, _: Settlement) -> None:
        self.asked.set()
        message = "It is away."
        raise BrokerUnavailable(message)


async def broken_off(broker: Slow) -> None:
    """Begin to settle, and cancel it then."""
    settlements = Settlements(
        work=cast("Work", broker),
        kept=cast("Records", broker),
        metrics=Metrics(slots=1),
        clock=SystemClock(),
        at_once=1,
    )
    settling = asyncio.ensure_future(settlements.settle(SETTLEMENT))
    await broker.asked.wait()
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling


async def test_one_that_is_cancelled_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FINISH_S", 60.0)
    broker = Slow(0.01)
    await broken_off(broker)
    assert broker.done == 1


@pytest.mark.parametrize("kind", [Slow, Away])
async def test_one_that_cannot_be_finished_is_given_up(
    kind: type[Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.05)
    broker = kind(1000.0)
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(20):
            await broken_off(broker)
    assert [entry["event"] for entry in logs] == ["settlement_broken_off"]
    assert broker.done == 0
