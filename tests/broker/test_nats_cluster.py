"""Three servers: what is stored has replicas, and the loss of a leader is got over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from quarterhour.broker.port import ANSWER_S
from quarterhour.errors import BrokerUnavailable
from tests.broker.worlds import World, invocation, manifest, pulled
from tests.nats_cluster import NatsCluster
from tests.waiting import eventually


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    async with NatsCluster(tmp_path) as started:
        yield started


async def test_the_loss_of_a_leader_is_got_over(cluster: NatsCluster) -> None:
    async with AsyncExitStack() as stack:
        world = World(url=cluster.url, stack=stack)
        broker = await world.connect()
        await broker.prepare([manifest()])
        before, after = invocation(), invocation()
        await broker.enqueue(before)

        async def is_doubtful(wanted: bool) -> bool:
            return any(delivery.doubtful is wanted for delivery in await pulled(broker))

        # A new leader of a queue may not know what was delivered a moment ago.
        await eventually(lambda: is_doubtful(False), what="the queue's first leader was settled in")
        assert await cluster.step_down(world.namespace, "fn-report")
        await eventually(lambda: is_doubtful(True), what="what the next one delivers is doubtful")

        leader = await cluster.leader(world.namespace)
        assert leader is not None
        leader.kill()

        async def accepts() -> bool:
            try:
                await broker.enqueue(after)
                return await broker.status(before.id) is not None
            except BrokerUnavailable:
                return False

        await eventually(accepts, deadline_s=5 * ANSWER_S, what="the other two accepted work")
