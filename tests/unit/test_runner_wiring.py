"""A runner's first words: the host under which Prometheus finds it, and what it says before it beats."""

import asyncio
import math
import socket
from collections.abc import Collection
from typing import cast

import pytest
import structlog

from quarterhour.broker.memory import MemoryBroker, Store
from quarterhour.broker.port import Answer, Beat, BrokerOptions, Settlement
from quarterhour.clock import SystemClock
from quarterhour.errors import BrokerUnavailable
from quarterhour.function import Manifest
from quarterhour.reply import Reply
from quarterhour.settings import RunnerSettings
from runner import settlement, wiring
from runner.catalog import Catalog, Entry
from runner.dependencies import Dependencies
from runner.metrics import Metrics
from runner.sandbox.pool import Sandbox
from runner.wiring import Runner, _advertised
from tests.broker.worlds import invocation, manifest
from tests.waiting import eventually

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("metrics_host", "advertise", "host"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "runner-1.example.org", "runner-1.example.org"),
        ("0.0.0.0", None, HERE),
        ("::", None, HERE),
        ("0.0.0.0", "10.0.0.7", "10.0.0.7"),
        ("fd00::7", None, "[fd00::7]"),
    ],
)
def test_the_advertised_host_can_be_reached(metrics_host: str, advertise: str | None, host: str) -> None:
    settings = RunnerSettings(broker="nats://there", metrics_host=metrics_host, advertise=advertise)
    assert _advertised(settings) == host


class SlowBroker(MemoryBroker):
    """It takes many beats' time to make queues ready, as for many functions on a busy machine."""

    def __init__(self) -> None:
        options = BrokerOptions(url="memory://slow", name="a runner", clock=SystemClock())
        super().__init__(Store(), options)
        self.said: list[str] = []
        self.heard = asyncio.Event()

    async def prepare(self, functions: Collection[Manifest]) -> None:
        await asyncio.sleep(0.1)

    async def announce(self, functions: Collection[Manifest]) -> None:
        self.said.append("functions")

    async def beat(self, beat: Beat) -> None:
        self.said.append("beat")
        if self.said.count("beat") > 1:
            self.heard.set()


class NoSandbox:
    async def keep(self, codes: object) -> None:
        pass


def runner_at(broker: MemoryBroker) -> Runner:
    return Runner(
        RunnerSettings(broker="memory://slow", drain_s=0),
        broker,
        cast("Sandbox", NoSandbox()),
        Metrics(slots=1),
        SystemClock(),
        dependencies=cast("Dependencies", None),
    )


NOTHING = Catalog(entries={}, warnings=())


async def test_its_functions_are_announced_before_it_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "BEAT_S", 0.01)
    broker, stop = SlowBroker(), asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(runner_at(broker).run(NOTHING, stop))
        await broker.heard.wait()
        stop.set()
    assert broker.said[:2] == ["functions", "beat"]


class AwayAtFirst(SlowBroker):
    """It gives no answer in time, `times` times."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    async def prepare(self, functions: Collection[Manifest]) -> None:
        self.times -= 1
        if self.times >= 0:
            self.said.append("nothing")
            self.heard.set()
            message = "The broker did not answer."
            raise BrokerUnavailable(message)


async def test_a_broker_that_is_slow_at_first_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "BEAT_S", 0.01)
    broker, stop = AwayAtFirst(2), asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(runner_at(broker).run(NOTHING, stop))
        await eventually(lambda: "beat" in broker.said, what="it beat")
        stop.set()
    assert broker.said[:4] == ["nothing", "nothing", "functions", "beat"]


async def test_a_broker_that_stays_slow_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "BEAT_S", 0.01)
    monkeypatch.setattr(wiring, "PATIENCE_S", 0.05)
    async with asyncio.timeout(60):
        with pytest.raises(BaseExceptionGroup) as raised:
            await runner_at(AwayAtFirst(math.inf)).run(NOTHING, asyncio.Event())
    assert raised.group_contains(BrokerUnavailable)


async def test_a_runner_that_is_told_to_end_does_not_wait_for_its_broker() -> None:
    broker, stop = AwayAtFirst(math.inf), asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(runner_at(broker).run(NOTHING, stop))
        await broker.heard.wait()
        stop.set()
    assert "functions" not in broker.said


class Deaf(SlowBroker):
    """It gives work out, and is away for whoever has done it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        self.asked.set()
        message = "The broker is away."
        raise BrokerUnavailable(message)


BROKEN = Entry(manifest=manifest("report", error="It cannot be parsed."), code=None)  # and ends at once


async def test_a_drain_does_not_wait_for_a_broker_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "LAST_S", 0.1)
    monkeypatch.setattr(settlement, "FINISH_S", 0.1)
    broker, stop, work = Deaf(), asyncio.Event(), invocation("report")
    await broker.enqueue(work)
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(runner_at(broker).run(Catalog(entries={"report": BROKEN}, warnings=()), stop))
            await broker.asked.wait()
            stop.set()
    lost = [(entry["event"], entry["invocation"]) for entry in logs if "invocation" in entry]
    assert lost == [("delivery_let_go", work.id), ("settlement_broken_off", work.id)]


async def test_a_drain_does_not_wait_for_a_call_that_cannot_be_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wiring, "LAST_S", 0.1)
    answering, stop = asyncio.Event(), asyncio.Event()

    async def answer(_: Reply) -> None:
        answering.set()
        await asyncio.Event().wait()

    runner = runner_at(SlowBroker())
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(runner.run(NOTHING, stop))
            await eventually(lambda: [entry for entry in logs if entry["event"] == "runner_started"])
            runner._server.take(invocation("hello"), b"", cast("Answer", answer))
            await answering.wait()
            stop.set()
    assert [entry["count"] for entry in logs if entry["event"] == "calls_given_up"] == [1]
