"""The broker as the benchmarks need it: work is put on the queue directly, what is stored is counted."""

import asyncio
import time

import orjson
from nats.aio.client import Client

from benchmarks.errors import give_up
from quarterhour.broker import BrokerOptions, connect_for
from quarterhour.clock import SystemClock
from quarterhour.function import Mode
from quarterhour.ids import new_id
from quarterhour.invocation import Invocation, Request

__all__ = ["count_subjects", "enqueue", "publish_raw"]

NAMESPACE = "quarterhour"
AT_ONCE = 1000
PAYLOAD = b"x" * 400  # as large as the envelope of a small request


def _invocation(function: str) -> Invocation:
    now = time.time()
    return Invocation(
        id=new_id(),
        function=function,
        mode=Mode.BACKGROUND,
        attempt=1,
        accepted_at=now,
        due_at=now,
        request=Request(method="POST", path=f"/.netlify/functions/{function}"),
        body=b"{}",
    )


async def enqueue(url: str, function: str, count: int) -> list[str]:
    """Put invocations on the queue as a gateway does, without one; their ids."""
    options = BrokerOptions(url=url, name="benchmark", namespace=NAMESPACE, clock=SystemClock())
    ids: list[str] = []
    async with connect_for(url)(options) as broker:
        while len(ids) < count:
            invocations = [_invocation(function) for _ in range(min(AT_ONCE, count - len(ids)))]
            async with asyncio.TaskGroup() as tasks:
                for invocation in invocations:
                    tasks.create_task(broker.enqueue(invocation))
            ids += [invocation.id for invocation in invocations]
    return ids


async def count_subjects(client: Client, kind: str) -> int:
    """How many messages of one kind (q: work, r: records, d: dead letters) are stored now."""
    total, offset = 0, 0
    while True:
        body = {"subjects_filter": f"{NAMESPACE}.{kind}.>", "offset": offset}
        answer = await client.request(f"$JS.API.STREAM.INFO.{NAMESPACE}", orjson.dumps(body), timeout=10)
        state = orjson.loads(answer.data)
        page = state["state"].get("subjects") or {}
        total += len(page)
        offset += len(page)
        if not page or offset >= state["total"]:
            return total


async def count_messages(client: Client) -> int:
    """How many messages are stored now, of all kinds; cheap enough to be asked often."""
    answer = await client.request(f"$JS.API.STREAM.INFO.{NAMESPACE}", b"", timeout=10)
    messages: int = orjson.loads(answer.data)["state"]["messages"]
    return messages


async def publish_raw(url: str, *, in_flight: int, duration_s: float) -> float:
    """Acknowledged publishes per second of nats-py alone, each on its own, on a stream like ours."""
    client = Client()
    await client.connect(url)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="raw", subjects=["raw.>"])
        ends_at = time.perf_counter() + duration_s

        async def publish(worker: int) -> int:
            count = 0
            while time.perf_counter() < ends_at:
                answer = await client.request(f"raw.{worker}.{count}", PAYLOAD, timeout=10)
                if b'"error"' in answer.data:
                    give_up(answer.data.decode())
                count += 1
            return count

        began = time.perf_counter()
        counts = await asyncio.gather(*(publish(worker) for worker in range(in_flight)))
        per_s = sum(counts) / (time.perf_counter() - began)
        await stream.delete_stream("raw")
        return per_s
    finally:
        await client.close()
