"""Synchronous calls from a gateway to the runner of its choice."""

import asyncio
from collections.abc import Callable

import pytest

import quarterhour.invocation
from quarterhour.broker import Broker
from quarterhour.broker.port import Answer
from quarterhour.errors import RunnerGone, TooLarge
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, encode_invocation
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Response, Succeeded, TimedOut
from quarterhour.reply import Refusal, Refused, Reply
from tests.broker.worlds import World, invocation

Take = Callable[[Invocation, bytes, Answer], None]


class Runner:
    """Takes calls and leaves the answering to the test."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[tuple[Invocation, bytes, Answer]] = asyncio.Queue()

    def take(self, call: Invocation, envelope: bytes, answer: Answer) -> None:
        self.taken.put_nowait((call, envelope, answer))

    async def answer(self, reply: Reply) -> tuple[Invocation, bytes]:
        call, envelope, answer = await asyncio.wait_for(self.taken.get(), 20)
        await answer(reply)
        return call, envelope


@pytest.fixture
async def gateway(world: World) -> Broker:
    return await world.connect("gateway")


@pytest.fixture
async def serving(world: World) -> tuple[Broker, Runner]:
    broker, runner = await world.connect("runner"), Runner()
    await broker.serve("runner-1", runner.take)
    return broker, runner


def call(body: bytes | None = b"hello") -> Invocation:
    return invocation("hello", mode=Mode.SYNCHRONOUS, body=body)


@pytest.mark.parametrize(
    ("reply", "arrives"),
    [
        (Succeeded(response=Response(status=201, headers=(("a", "b"), ("a", "c")), body=b"\x00")), None),
        (Failed(error=Error(type="Boom", message="it broke", trace=("line",))), None),
        (TimedOut(limit_s=3.0), None),
        (Cancelled(), None),
        (Refused(reason=Refusal.BUSY), None),
        (Refused(reason=Refusal.DRAINING), None),
        (
            Crashed(signal="SIGKILL"),
            Failed(
                error=Error(
                    type="Crashed",
                    message="The worker was killed by SIGKILL before the handler returned.",
                )
            ),
        ),
    ],
)
async def test_a_call_and_its_reply(
    gateway: Broker, serving: tuple[Broker, Runner], reply: Reply, arrives: Reply | None
) -> None:
    sent = call()
    calling = asyncio.create_task(gateway.call("runner-1", sent))
    taken, envelope = await serving[1].answer(reply)
    assert taken == sent
    assert envelope == encode_invocation(sent)
    assert await asyncio.wait_for(calling, 20) == (reply if arrives is None else arrives)


async def test_nobody_serves_under_that_name(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    with pytest.raises(RunnerGone, match="runner-2"):
        await asyncio.wait_for(gateway.call("runner-2", call()), 20)


async def test_a_runner_that_has_begun_to_serve_is_there(world: World, gateway: Broker) -> None:
    broker = await world.connect("runner")

    def take(call: Invocation, envelope: bytes, answer: Answer) -> None:
        answering.append(asyncio.ensure_future(answer(Succeeded())))

    answering: list[asyncio.Future[None]] = []
    for number in range(200):  # a server that learns of it a moment too late would say that nobody is there
        await broker.serve(f"runner-{number}", take)
        assert await gateway.call(f"runner-{number}", call()) == Succeeded()
    await asyncio.gather(*answering)


async def test_each_of_many_calls_gets_its_own_reply(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    calls = [call(str(number).encode()) for number in range(50)]
    calling = [asyncio.create_task(gateway.call("runner-1", each)) for each in calls]
    taken = [await asyncio.wait_for(serving[1].taken.get(), 20) for _ in calls]
    for each, _, answer in reversed(taken):
        assert each.body is not None
        await answer(Succeeded(response=Response(body=each.body)))
    for each, task in zip(calls, calling, strict=True):
        reply = await asyncio.wait_for(task, 20)
        assert isinstance(reply, Succeeded)
        assert reply.response.body == each.body


async def test_a_reply_that_nobody_waits_for_is_dropped(
    gateway: Broker, serving: tuple[Broker, Runner]
) -> None:
    calling = asyncio.create_task(gateway.call("runner-1", call()))
    _, _, answer = await asyncio.wait_for(serving[1].taken.get(), 20)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await answer(Succeeded())
    calling = asyncio.create_task(gateway.call("runner-1", call()))
    await serving[1].answer(TimedOut(limit_s=1.0))
    assert await asyncio.wait_for(calling, 20) == TimedOut(limit_s=1.0)


async def test_after_stop_serving_the_runner_is_gone(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    broker, runner = serving
    calling = asyncio.create_task(gateway.call("runner-1", call()))
    _, _, answer = await asyncio.wait_for(runner.taken.get(), 20)
    await broker.stop_serving()
    with pytest.raises(RunnerGone):
        await asyncio.wait_for(gateway.call("runner-1", call()), 20)
    await answer(Succeeded())  # what was taken is still answered
    assert isinstance(await asyncio.wait_for(calling, 20), Succeeded)


async def test_no_call_is_lost_while_serving_stops(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    broker, runner = serving

    async def keep_answering() -> None:
        while True:
            await runner.answer(Succeeded())

    answering = asyncio.create_task(keep_answering())
    calling = [asyncio.create_task(gateway.call("runner-1", call())) for _ in range(100)]
    await asyncio.sleep(0)
    await broker.stop_serving()
    results = await asyncio.wait_for(asyncio.gather(*calling, return_exceptions=True), 20)
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    assert all(isinstance(result, Succeeded | RunnerGone) for result in results), results


async def test_a_call_of_a_later_version_is_not_served(
    gateway: Broker, serving: tuple[Broker, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = call()
    with monkeypatch.context() as future:
        future.setattr(quarterhour.invocation, "ENVELOPE_VERSION", 3)
        calling = asyncio.create_task(gateway.call("runner-1", later))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(calling, 20) == Refused(reason=Refusal.NOT_SERVED)
    assert serving[1].taken.empty()


async def test_the_largest_bodies_go_both_ways(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    body = bytes(gateway.body_bytes_max)
    calling = asyncio.create_task(gateway.call("runner-1", call(body)))
    taken, _ = await serving[1].answer(Succeeded(response=Response(body=body)))
    assert taken.body == body
    assert await asyncio.wait_for(calling, 20) == Succeeded(response=Response(body=body))


async def test_a_call_that_is_too_large_is_not_sent(gateway: Broker, serving: tuple[Broker, Runner]) -> None:
    with pytest.raises(TooLarge):
        await gateway.call("runner-1", call(bytes(gateway.body_bytes_max + 1024 * 1024)))
    assert gateway.connected
    assert serving[1].taken.empty()


async def test_a_response_that_is_too_large_is_a_failure(
    gateway: Broker, serving: tuple[Broker, Runner]
) -> None:
    calling = asyncio.create_task(gateway.call("runner-1", call()))
    body = bytes(gateway.body_bytes_max + 1024 * 1024)
    await serving[1].answer(Succeeded(response=Response(body=body)))
    reply = await asyncio.wait_for(calling, 20)
    assert isinstance(reply, Failed)
    assert reply.error.type == "ResponseTooLarge"
    assert serving[0].connected
