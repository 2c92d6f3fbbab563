"""What gateways place, with a broker in memory and a clock of the test."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest

from gateway.directory import Functions
from gateway.schedules import REREAD_S, Schedules, firing, placements
from quarterhour.broker import BrokerOptions
from quarterhour.broker.memory import MemoryBroker, connect
from quarterhour.broker.port import Cursor, Delivery
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.function import Manifest, Mode
from quarterhour.ids import firing_id
from quarterhour.invocation import Invocation
from quarterhour.retry import RetryPolicy
from quarterhour.schedule import HORIZON_S
from tests.unit.test_gateway_upkeep import Clock

START = 1_000_000.0  # a Monday, 13:46:40
_numbers = itertools.count()


def function(name: str = "f", schedule: str | None = "*/2 * * * * *") -> Manifest:
    return Manifest(
        name=name, runtime="python", background=False, timeout_s=1, retry=RetryPolicy(), schedule=schedule
    )


class Watched(MemoryBroker):
    """Counts what is asked of it; `behind_its_back` is done just before the next placing."""

    def __init__(self, broker: MemoryBroker, options: BrokerOptions) -> None:
        super().__init__(broker.store, options)
        self.reads = 0
        self.behind_its_back: list[tuple[Cursor, Sequence[Invocation]]] = []

    async def cursors(self) -> dict[str, Cursor]:
        self.reads += 1
        return dict(await super().cursors())

    async def place(self, cursor: Cursor, firings: Sequence[Invocation]) -> Cursor:
        for other in self.behind_its_back:
            await super().place(*other)
        self.behind_its_back.clear()
        return await super().place(cursor, firings)


@dataclass
class Gateway:
    broker: Watched
    functions: Functions
    schedules: Schedules


@dataclass
class Bench:
    """One broker, and any number of gateways' schedules over it."""

    clock: Clock
    broker: MemoryBroker
    options: BrokerOptions

    def gateway(self) -> Gateway:
        functions = Functions()
        watched = Watched(self.broker, self.options)
        return Gateway(watched, functions, Schedules(watched, functions, self.clock))

    async def know(self, gateway: Gateway, *manifests: Manifest) -> None:
        """The functions are announced, and the gateway has heard of it."""
        known = await self.broker.functions()
        await self.broker.withdraw(list(known))
        await self.broker.announce(manifests)
        gateway.functions.replace({one.name: one for one in manifests})

    async def delivered(self, name: str = "f") -> list[Delivery]:
        return [delivery async for delivery in self.broker.pull(name, 1000)]

    async def fired(self, name: str = "f") -> list[float]:
        """How long after the start (s) those were due that are delivered now."""
        return [delivery.invocation.due_at - START for delivery in await self.delivered(name)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = Clock(moment=START)
    options = BrokerOptions(url=f"memory://schedules-{next(_numbers)}", name="test", clock=clock, lease_s=1e6)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(connect(options))
        assert isinstance(broker, MemoryBroker)
        yield Bench(clock, broker, options)


def test_a_firing_is_netlifys_request() -> None:
    made = firing("nightly", "@hourly", START)
    assert made.id == firing_id("nightly", START)
    assert (made.mode, made.attempt, made.due_at) == (Mode.SCHEDULED, 1, START)
    assert (made.request.method, made.request.path) == ("POST", "/.netlify/functions/nightly")
    assert json.loads(made.body or b"") == {"next_run": "1970-01-12T14:00:00.000Z"}
    assert dict(made.request.headers) == {
        "host": "localhost",
        "content-type": "application/json",
        "user-agent": "Netlify Clockwork",
        "x-nf-event": "schedule",
        "x-nf-request-id": made.id,
    }


async def test_firings_come_one_after_the_other_however_many_gateways_look(bench: Bench) -> None:
    gateways = [bench.gateway() for _ in range(3)]
    for gateway in gateways:
        await bench.know(gateway, function())
    seen: list[float] = []
    for second in range(60):
        bench.clock.moment = START + second
        for gateway in gateways:
            await gateway.schedules.look()
        seen += await bench.fired()
    assert seen == [float(due) for due in range(2, 60, 2)]


async def test_nothing_is_asked_of_the_broker_while_there_is_nothing_to_do(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function(schedule="@daily"))
    for second in range(int(REREAD_S)):
        bench.clock.moment = START + second
        await gateway.schedules.look()
    assert gateway.broker.reads == 1
    bench.clock.moment = START + REREAD_S
    await gateway.schedules.look()
    assert gateway.broker.reads == 2


async def test_nothing_is_done_before_the_functions_are_known(bench: Bench) -> None:
    first = bench.gateway()
    await bench.know(first, function())
    await first.schedules.look()
    await bench.gateway().schedules.look()
    assert await bench.broker.cursors()


async def test_while_nobody_looks_what_is_placed_is_fired(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function(), function("daily", "@daily"))
    await gateway.schedules.look()
    bench.clock.moment = START + 3600 * 24
    assert await bench.fired() == [float(due) for due in range(2, int(HORIZON_S) + 1, 2)]
    assert len(await bench.fired("daily")) == 1


async def test_of_what_was_missed_the_last_one_is_made_up_for(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function())
    await gateway.schedules.look()
    bench.clock.moment = START + 101.5
    await bench.fired()
    again = bench.gateway()  # all of them were down
    await bench.know(again, function())
    await again.schedules.look()
    assert await bench.fired() == [100.0]
    bench.clock.moment = START + 104
    assert await bench.fired() == [102.0, 104.0]


async def test_a_new_function_has_missed_nothing(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function(schedule="@hourly"))
    await gateway.schedules.look()
    assert await bench.fired() == []


@pytest.mark.parametrize("by", [(), (function(schedule=None),)])
async def test_a_schedule_that_is_gone_fires_no_more(bench: Bench, by: tuple[Manifest, ...]) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function())
    await gateway.schedules.look()
    await bench.know(gateway, *by)
    await gateway.schedules.look()
    assert await bench.broker.cursors() == {}
    bench.clock.moment += 100
    assert await bench.fired() == []


async def test_a_schedule_that_changed_is_replaced(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function())
    await gateway.schedules.look()
    await bench.know(gateway, function(schedule="*/5 * * * * *"))
    await gateway.schedules.look()
    bench.clock.moment += 12
    assert await bench.fired() == [5.0, 10.0]


async def test_a_gateway_that_has_not_heard_of_a_change_does_not_undo_it(bench: Bench) -> None:
    old, new = bench.gateway(), bench.gateway()
    await bench.know(old, function())
    await bench.know(new, function(schedule="*/5 * * * * *"))
    await new.schedules.look()
    before = await bench.broker.cursors()
    for _ in range(3):
        await old.schedules.look()
    assert await bench.broker.cursors() == before


async def test_who_comes_second_reads_again(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function(), function("other"))
    [placed, _] = placements(gateway.functions.by_name.values(), {}, now=START)
    gateway.broker.behind_its_back = [(placed.cursor, placed.firings)]
    with pytest.raises(Conflict):
        await gateway.schedules.look()
    await gateway.schedules.look()
    assert gateway.broker.reads == 2
    assert set(await bench.broker.cursors()) == {"f", "other"}
    bench.clock.moment += 2
    assert (await bench.fired(), await bench.fired("other")) == ([2.0], [2.0])


async def test_a_broker_that_is_away_is_asked_again(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function())
    bench.broker.store.away = True
    with pytest.raises(BrokerUnavailable):
        await gateway.schedules.look()
    bench.broker.store.away = False
    await gateway.schedules.look()
    bench.clock.moment += 2
    assert await bench.fired() == [2.0]


async def test_a_cursor_that_nobody_can_read_is_replaced(bench: Bench) -> None:
    gateway = bench.gateway()
    await bench.know(gateway, function())
    await bench.broker.place(Cursor(function="f", schedule="", placed_until=0.0), [])
    await gateway.schedules.look()
    [stored] = (await bench.broker.cursors()).values()
    assert stored == replace(stored, schedule="*/2 * * * * *", placed_until=START + 20)
