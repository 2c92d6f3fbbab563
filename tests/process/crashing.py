"""A gateway or a runner that dies, or is hindered, at a chosen point of the crash matrix.

    python -m tests.process.crashing POINT gateway|runner …

The program is the real one; only its broker is wrapped, so that the point is hit exactly.
"""

import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import quarterhour.broker as brokers
from quarterhour.broker import Broker, BrokerOptions
from quarterhour.broker.nats.cancelling import Cancelling
from quarterhour.broker.port import Delivery, Key, Settlement
from quarterhour.errors import BrokerUnavailable
from quarterhour.invocation import Invocation
from tests.waiting import eventually

GO = Path("go")  # in the working directory, which is the test's own
MARK = Path("mark")


def die() -> NoReturn:
    """As a machine that is switched off would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def mark() -> None:
    """Tell the test that the point is reached."""
    MARK.touch()


class Wrapped:
    """The broker itself; subclasses change one thing."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class BeforePublish(Wrapped):
    async def enqueue(self, _: Invocation, key: Key | None = None) -> str:
        die()


class BeforeAnswer(Wrapped):
    async def enqueue(self, invocation: Invocation, key: Key | None = None) -> str:
        await self.inner.enqueue(invocation, key)
        die()


class WhileCancelling(Wrapped):
    """It is stored, and nothing else is done."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        Cancelling._remove = lambda *_: die()  # type: ignore[method-assign]


class BeforeHandler(Wrapped):
    async def pull(self, function: str, count: int) -> AsyncIterator[Delivery]:
        async for delivery in self.inner.pull(function, count):
            die()
            yield delivery


class WhileHandingBack(Wrapped):
    async def hand_back(self, _: Delivery) -> None:
        die()


class BeforeRecord(Wrapped):
    async def settle(self, _: Settlement) -> None:
        die()


class LostAck(Wrapped):
    async def settle(self, settlement: Settlement) -> None:
        token: Any = settlement.delivery.token
        token.ack = "nobody.hears"
        await self.inner.settle(settlement)


class BeforeAck(LostAck):
    async def settle(self, settlement: Settlement) -> None:
        await super().settle(settlement)
        die()


class MarkedSettle(Wrapped):
    """Says when it is about to store."""

    async def settle(self, settlement: Settlement) -> None:
        mark()
        await self.inner.settle(settlement)


class LateSettle(Wrapped):
    """Loses its lease while it holds an outcome, and comes too late with it."""

    async def renew(self, _: Delivery) -> float:
        message = "The link is down, says the test."
        raise BrokerUnavailable(message)

    async def settle(self, settlement: Settlement) -> None:
        mark()
        await eventually(GO.exists, deadline_s=50, what="the test had let it go on")
        await self.inner.settle(settlement)


POINTS = {
    "before_publish": BeforePublish,
    "before_answer": BeforeAnswer,
    "while_cancelling": WhileCancelling,
    "before_handler": BeforeHandler,
    "while_handing_back": WhileHandingBack,
    "before_record": BeforeRecord,
    "before_ack": BeforeAck,
    "lost_ack": LostAck,
    "marked_settle": MarkedSettle,
    "late_settle": LateSettle,
}


def main() -> None:
    """Wrap the broker, then be the real program."""
    point, program = sys.argv[1:3]
    connect = brokers.connect_patiently

    @asynccontextmanager
    async def connect_wrapped(options: BrokerOptions) -> AsyncIterator[Any]:
        async with connect(options) as broker:
            yield POINTS[point](broker)

    brokers.connect_patiently = connect_wrapped
    sys.argv = [f"quarterhour {program}", *sys.argv[3:]]
    runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main()
