"""Responses that come bit by bit: from a runner to a gateway, at the pace of whoever reads them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quarterhour.broker import Broker
from quarterhour.broker.flow import WINDOW_BYTES
from quarterhour.broker.port import Answer, Stream
from quarterhour.errors import StreamBroken, StreamClosed
from quarterhour.function import Mode
from quarterhour.invocation import Invocation
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Response, Succeeded, TimedOut
from quarterhour.reply import Reply
from tests.broker.worlds import World, invocation
from tests.waiting import eventually

HEAD = Response(status=201, headers=(("a", "b"), ("a", "c")))
CHUNK = bytes(range(256)) * 256  # 64 KiB


class Runner:
    """Takes calls for the test."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Answer] = asyncio.Queue()

    def take(self, call: Invocation, envelope: bytes, answer: Answer) -> None:
        self.taken.put_nowait(answer)


Open = Callable[[], Awaitable[tuple[Stream, Answer]]]


@pytest.fixture
async def opened(world: World) -> Open:
    """Begins a stream; gives both its ends."""
    gateway: Broker = await world.connect("gateway")
    broker, runner = await world.connect("runner"), Runner()
    await broker.serve("runner-1", runner.take)

    async def begin() -> tuple[Stream, Answer]:
        call = invocation("hello", mode=Mode.SYNCHRONOUS, body=None)
        calling = asyncio.create_task(gateway.call("runner-1", call))
        answer = await asyncio.wait_for(runner.taken.get(), 20)
        await answer.begin(HEAD)
        stream = await asyncio.wait_for(calling, 20)
        assert isinstance(stream, Stream)
        return stream, answer

    return begin


async def read(stream: Stream) -> list[bytes]:
    async with asyncio.timeout(30):
        return [chunk async for chunk in stream.chunks]


async def send_until_closed(answer: Answer) -> None:
    """Which happens at the latest when the window is full."""
    async with asyncio.timeout(20):
        while True:
            await answer.send(CHUNK)


async def test_it_begins_before_it_ends(opened: Open) -> None:
    stream, answer = await opened()
    assert stream.head == HEAD
    for text in (b"one", b"two"):
        await answer.send(text)
        assert await asyncio.wait_for(anext(stream.chunks), 20) == text
    await answer(Succeeded())
    assert await read(stream) == []


async def test_all_of_a_long_one_arrives_in_order(opened: Open) -> None:
    stream, answer = await opened()
    pieces = [bytes([number % 256]) * (1 + number * 997 % 65536) for number in range(200)]

    async def send() -> None:
        for piece in pieces:
            await answer.send(piece)
        await answer(Succeeded())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        assert await read(stream) == pieces


async def test_many_at_once_do_not_mix(opened: Open) -> None:
    ends = [await opened() for _ in range(20)]

    async def send(number: int, answer: Answer) -> None:
        for _ in range(20):
            await answer.send(bytes([number]) * 1000)
        await answer(Succeeded())

    async with asyncio.TaskGroup() as tasks:
        for number, (_, answer) in enumerate(ends):
            tasks.create_task(send(number, answer))
        bodies = await asyncio.gather(*(read(stream) for stream, _ in ends))
    assert [b"".join(body) for body in bodies] == [bytes([number]) * 20_000 for number in range(20)]


async def test_it_goes_no_faster_than_it_is_read(opened: Open) -> None:
    stream, answer = await opened()
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(40):
            await answer.send(CHUNK)
            sent += 1

    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        await eventually(lambda: sent * len(CHUNK) >= WINDOW_BYTES, what="the window is full")
        await asyncio.sleep(0.2)  # to see that it stays so
        assert sent * len(CHUNK) <= WINDOW_BYTES + len(CHUNK)
        for _ in range(40):
            assert await asyncio.wait_for(anext(stream.chunks), 20) == CHUNK
        await sending


@pytest.mark.parametrize(
    "end",
    [
        Failed(error=Error(type="Boom", message="it broke")),
        TimedOut(limit_s=1.0),
        Crashed(signal="SIGKILL"),
        Cancelled(),
    ],
)
async def test_a_failure_on_the_way_is_no_end(opened: Open, end: Reply) -> None:
    stream, answer = await opened()
    await answer.send(b"some")
    await answer(end)
    assert await asyncio.wait_for(anext(stream.chunks), 20) == b"some"
    with pytest.raises(StreamBroken):
        await asyncio.wait_for(anext(stream.chunks), 20)


async def test_the_runner_learns_that_nobody_reads_further(opened: Open) -> None:
    stream, answer = await opened()
    await answer.send(b"some")
    await stream.close()
    with pytest.raises(StreamClosed):
        await send_until_closed(answer)
    await answer(Cancelled())


async def test_a_stream_that_is_begun_for_nobody_is_closed(world: World) -> None:
    gateway: Broker = await world.connect("gateway")
    broker, runner = await world.connect("runner"), Runner()
    await broker.serve("runner-1", runner.take)
    calling = asyncio.create_task(
        gateway.call("runner-1", invocation("hello", mode=Mode.SYNCHRONOUS, body=None))
    )
    answer = await asyncio.wait_for(runner.taken.get(), 20)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await answer.begin(HEAD)
    with pytest.raises(StreamClosed):
        await send_until_closed(answer)
