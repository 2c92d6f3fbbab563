"""Calls in bundles over NATS: what shares a message shares nothing else."""

import asyncio

import pytest

from quarterhour.broker import Broker
from quarterhour.broker.nats.bundle import pack_bundle
from quarterhour.broker.port import Answer
from quarterhour.errors import RunnerGone
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, encode_invocation
from quarterhour.outcome import Response, Succeeded
from quarterhour.reply import Reply
from tests.broker.nats_inside import Inside, look_inside
from tests.broker.worlds import World, invocation
from tests.nats_server import NatsServer
from tests.waiting import eventually


def call(body: bytes) -> Invocation:
    return invocation("hello", mode=Mode.SYNCHRONOUS, body=body)


def echo(broker: Broker, name: str, answering: set[asyncio.Future[None]]) -> asyncio.Task[None]:
    """Serve as runner `name`: each call is answered with its own body."""

    def take(call: Invocation, envelope: bytes, answer: Answer) -> None:
        assert call.body is not None
        reply: Reply = Succeeded(response=Response(body=name.encode() + b" " + call.body))
        answering.add(asyncio.ensure_future(answer(reply)))

    return asyncio.create_task(broker.serve(name, take))


async def messages_at(inside: Inside, *subjects: str) -> list[bytes]:
    """A list that grows by each message that is sent to one of the subjects."""
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(getattr(message, "data"))  # noqa: B009 - nats-py's messages are untyped

    for subject in subjects:
        await inside.client.subscribe(subject, cb=hear)
    await asyncio.sleep(0)  # without it the flush can overtake what it is to wait for
    await inside.client.flush()
    return heard


async def test_calls_of_one_turn_share_a_message_and_get_their_own_replies(
    nats: NatsServer, nats_world: World
) -> None:
    gateway = await nats_world.connect("gateway")
    answering: set[asyncio.Future[None]] = set()
    for name in ("one", "two"):
        await echo(await nats_world.connect("runner"), name, answering)
    async with look_inside(nats.url, nats_world.namespace) as inside:
        prefix = f"{nats_world.namespace}.call"
        heard = await messages_at(inside, f"{prefix}.one", f"{prefix}.two")
        # In turns, so that the calls of one runner have no consecutive places.
        runners = ("one", "two", "gone") * 10
        calls = [gateway.call(name, call(b"%d" % number)) for number, name in enumerate(runners)]
        replies = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
        await inside.client.flush()
        await eventually(lambda: len(heard) >= 2, deadline_s=20, what="the messages were seen")
        assert len(heard) == 2, "one for each runner"
    for number, (name, reply) in enumerate(zip(runners, replies, strict=True)):
        if name == "gone":
            assert isinstance(reply, RunnerGone)
        else:
            assert reply == Succeeded(response=Response(body=b"%s %d" % (name.encode(), number)))


async def test_a_call_that_was_given_up_before_it_left_is_not_sent(nats_world: World) -> None:
    gateway, runner = await nats_world.connect("gateway"), await nats_world.connect("runner")
    taken: list[bytes | None] = []

    def take(call: Invocation, envelope: bytes, answer: Answer) -> None:
        taken.append(call.body)
        answering.append(asyncio.ensure_future(answer(Succeeded())))

    answering: list[asyncio.Future[None]] = []
    await runner.serve("one", take)
    given_up = asyncio.create_task(gateway.call("one", call(b"given up")))
    kept = asyncio.create_task(gateway.call("one", call(b"kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await asyncio.wait_for(kept, 20) == Succeeded()
    assert taken == [b"kept"]


async def test_garbage_in_a_bundle_costs_what_follows_it_alone(nats: NatsServer, nats_world: World) -> None:
    gateway, runner = await nats_world.connect("gateway"), await nats_world.connect("runner")
    answering: set[asyncio.Future[None]] = set()
    await echo(runner, "one", answering)
    good = encode_invocation(call(b"good"))
    async with look_inside(nats.url, nats_world.namespace) as inside:
        heard = await messages_at(inside, "_INBOX.somebody.replies")
        subject = f"{nats_world.namespace}.call.one"
        for message in (
            b"\x00",
            pack_bundle([(1, b"no envelope"), (2, good)]) + b"garbage",
            pack_bundle([(3, good)])[:-1],
        ):
            await inside.client.publish(subject, message, reply="_INBOX.somebody.1-3")
        await eventually(
            lambda: b"".join(heard).count(b"succeeded") == 1, deadline_s=20, what="2 is answered"
        )
        await eventually(
            lambda: b"".join(heard).count(b"not_served") == 1, deadline_s=20, what="1 is refused"
        )
    reply = await asyncio.wait_for(gateway.call("one", call(b"still there")), 20)
    assert reply == Succeeded(response=Response(body=b"one still there"))


async def test_strange_replies_are_dropped(nats: NatsServer, nats_world: World) -> None:
    gateway, runner = await nats_world.connect("gateway"), await nats_world.connect("runner")
    addresses: list[str] = []
    async with look_inside(nats.url, nats_world.namespace) as inside:

        async def hear(message: object) -> None:
            addresses.append(getattr(message, "reply"))  # noqa: B009

        await inside.client.subscribe(f"{nats_world.namespace}.call.one", cb=hear)
        await inside.client.flush()
        calling = asyncio.create_task(gateway.call("one", call(b"")))
        await eventually(lambda: bool(addresses), deadline_s=20, what="the call has come")
        prefix = addresses[0].rpartition(".")[0]
        for ending in ("replies", "x", "1-", "-", "7-999999999999"):
            await inside.client.publish(f"{prefix}.{ending}", b"\x00")
        await inside.client.publish(f"{prefix}.replies", pack_bundle([(99, b"nobody's")]))
        await inside.client.flush()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    answering: set[asyncio.Future[None]] = set()
    await echo(runner, "two", answering)
    reply = await asyncio.wait_for(gateway.call("two", call(b"fine")), 20)
    assert reply == Succeeded(response=Response(body=b"two fine"))
