"""Three servers: what is stored has replicas, and the loss of a leader is got over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from quarterhour.body import PIECE_BYTES_MAX, BodyKind
from quarterhour.broker.nats.broker import connect
from quarterhour.broker.nats.link import Link
from quarterhour.broker.port import ANSWER_S, BrokerOptions, Delivery
from quarterhour.errors import BodyLost, BrokerUnavailable
from quarterhour.ids import new_id
from tests.broker.worlds import SHORT_LEASE_S, World, invocation, manifest, pulled, taken
from tests.nats_cluster import NatsCluster
from tests.waiting import eventually


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    async with NatsCluster(tmp_path) as started:
        yield started


async def test_while_too_few_servers_are_up_the_broker_is_away_and_not_unsuitable(tmp_path: Path) -> None:
    first, second, third = NatsCluster(tmp_path).servers

    def options() -> BrokerOptions:
        return BrokerOptions(url=f"{first.url},{second.url}?replicas=3", name="process")

    async def refused_for_lack_of_servers() -> bool:
        """Before the two have elected a leader they are away as well, which proves nothing."""
        with pytest.raises(BrokerUnavailable) as caught:
            async with connect(options()):
                pass
        return "no suitable peers" in str(caught.value)

    async def connects() -> bool:
        try:
            async with connect(options()) as broker:
                return broker.connected
        except BrokerUnavailable:
            return False

    with ExitStack() as running:
        await asyncio.gather(*(asyncio.to_thread(running.enter_context, one) for one in (first, second)))
        await eventually(refused_for_lack_of_servers, what="two of three were asked for three replicas")
        await asyncio.to_thread(running.enter_context, third)
        await eventually(connects, what="the third was there")


async def test_the_loss_of_a_leader_is_got_over(cluster: NatsCluster) -> None:
    async with AsyncExitStack() as stack:
        world = World(url=cluster.url, stack=stack)
        broker = await world.connect(lease_s=SHORT_LEASE_S)
        await broker.prepare([manifest()])
        found: list[Delivery] = []

        async def deliver(id: str, *, doubtful: bool) -> bool:
            found[:] = [one for one in await pulled(broker) if one.invocation.id == id]
            return any(one.doubtful is doubtful for one in found)

        async def is_sure_of_what_is_new() -> bool:
            new = invocation()
            await broker.enqueue(new)
            sure = await deliver(new.id, doubtful=False)
            if not sure:
                await broker.cancel(new.id)
            return sure

        await eventually(is_sure_of_what_is_new, what="the queue's first leader was settled in")
        before = found[0].invocation
        # A new leader of a queue may not know what was delivered a moment ago. It may tell late: when whoever
        # pulls has long been sure again of what is new.
        await eventually(
            lambda: cluster.step_down(world.namespace, "fn-report"), what="it is told to give way"
        )
        await eventually(lambda: deliver(before.id, doubtful=True), what="what was there is doubtful")
        await eventually(is_sure_of_what_is_new, what="one lease has passed since")

        async def delivered_again() -> bool:
            await deliver(before.id, doubtful=True)
            return bool(found)

        await eventually(delivered_again, what="its lease has ended again")
        assert found[0].doubtful

        leader = await eventually(lambda: cluster.leader(world.namespace), what="one of them leads")
        leader.kill()

        async def accepts() -> bool:
            try:
                await broker.enqueue(invocation())
                return await broker.status(before.id) is not None
            except BrokerUnavailable:
                return False

        await eventually(accepts, deadline_s=10 * ANSWER_S, what="the other two accepted work")


async def test_a_large_body_is_read_from_the_leader_where_a_replica_lags(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(3 * PIECE_BYTES_MAX)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def of_one_that_has_nothing_yet(*_: Any) -> list[Any]:
        return []

    async with AsyncExitStack() as stack:
        broker = await World(url=cluster.url, stack=stack).connect()
        claim = await broker.keep_body(BodyKind.WORK, new_id(), chunks(), keep_s=60)
        monkeypatch.setattr(Link, "collect", of_one_that_has_nothing_yet)
        assert b"".join([piece async for piece in broker.read_body(claim)]) == body
        await broker.remove_body(claim)
        with pytest.raises(BodyLost):
            assert not [piece async for piece in broker.read_body(claim)]


async def test_with_one_replica_in_a_cluster_everything_is_doubtful(cluster: NatsCluster) -> None:
    async with AsyncExitStack() as stack:
        world = World(url=cluster.servers[0].url, stack=stack)
        await world.connect()
        host = await eventually(lambda: cluster.leader(world.namespace), what="one of them has the stream")
        elsewhere = next(server for server in cluster.servers if server is not host)
        broker = await World(url=elsewhere.url, stack=stack, namespace=world.namespace).connect()
        assert [warning for warning in broker.warnings if "?replicas=3" in warning]
        await broker.prepare([manifest()])
        await broker.enqueue(invocation())
        [delivery] = await taken(broker)
        # The server that has the stream may have crashed since: we would be connected as before.
        assert delivery.doubtful
