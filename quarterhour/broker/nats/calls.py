"""Synchronous calls: from the gateway to the runner that it chose, and back, in bundles.

What is handed over in one turn of the event loop leaves in the next one, a bundle for each address.
The calls of a bundle have consecutive numbers, and its reply address ends in the first and the last
of them: when nobody listens, the server answers there, and so tells whose calls have failed. Replies
go to the `replies` address beside it, whichever bundles their calls came in, and so do the pieces of
responses that come bit by bit, to `streams`; see `streams.py`.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from quarterhour.broker.flow import Outlet
from quarterhour.broker.nats.bundle import PART_BYTES, Part, bundles_of, pack_bundle, unpack_bundle
from quarterhour.broker.nats.layout import Layout
from quarterhour.broker.nats.link import Link, Msg, Subscription, has_status
from quarterhour.broker.nats.streams import Inlets, Outlets
from quarterhour.broker.port import Answer, Stream
from quarterhour.errors import BrokerError, EnvelopeError, RunnerGone, TooLarge
from quarterhour.invocation import Invocation, decode_invocation, encode_invocation
from quarterhour.outcome import Error, Failed, Response
from quarterhour.reply import (
    Chunk,
    Piece,
    Refusal,
    Refused,
    Reply,
    Streaming,
    decode_piece,
    decode_reply,
    encode_piece,
)

__all__ = ["Calls"]

REPLIES = "replies"
STREAMS = "streams"

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Call:
    """A call under way. It has its number from the moment it leaves."""

    runner: str
    data: bytes
    reply: asyncio.Future[bytes | Stream]
    number: int = 0


class Calls:
    """Calls, and serves them."""

    def __init__(self, link: Link, layout: Layout) -> None:
        """Calls over `link`. `run` has to run meanwhile, and `listen` comes before the first call."""
        self._link = link
        self._layout = layout
        self._inbox = f"{link.inbox}calls."
        self._numbers = itertools.count(1)
        self._under_way: dict[int, _Call] = {}
        # What leaves in the next turn, by address.
        self._leaving = asyncio.Event()
        self._calls: dict[str, list[_Call]] = {}
        self._replies: dict[str, list[Part]] = {}
        self._inlets = Inlets(link, f"{self._inbox}{STREAMS}")
        self.outlets = Outlets(link)
        self._serving: Subscription | None = None
        link.when_away.append(self._drop)

    async def listen(self) -> None:
        """Begin to receive replies."""
        await self._link.subscribe(f"{self._inbox}*", self._hear)

    async def run(self) -> None:
        """Send what is handed over, for ever."""
        try:
            while True:
                await self._leaving.wait()
                self._leaving.clear()
                await self._send()
        finally:
            await self._send()

    async def call(self, runner: str, invocation: Invocation) -> Reply | Stream:
        """Have `runner` run `invocation`, however long that takes."""
        address = self._layout.call(runner)
        data = encode_invocation(invocation)
        self._link.fits(PART_BYTES + len(data))
        if not self._link.connected:
            raise self._link.away()
        call = _Call(runner, data, asyncio.get_running_loop().create_future())
        self._calls.setdefault(address, []).append(call)
        self._leaving.set()
        try:
            reply = await call.reply
            return reply if isinstance(reply, Stream) else decode_reply(reply)
        except asyncio.CancelledError:
            await _forsake(call.reply)
            raise
        finally:
            self._under_way.pop(call.number, None)

    async def serve(self, runner: str, take: Callable[[Invocation, bytes, Answer], None]) -> None:
        """Start to receive calls for `runner`."""

        async def hear(message: Msg) -> None:
            inbox = message.reply.rpartition(".")[0] + "."
            try:
                for number, data in unpack_bundle(message.data):
                    self._take(inbox, number, data, take)
            except EnvelopeError as error:  # of an unknown version, or from somebody else
                log.warning("calls_unread", why=str(error))

        await self.stop_serving()
        await self.outlets.listen(self._layout.credit(runner))
        self._serving = await self._link.subscribe(self._layout.call(runner), hear)

    async def stop_serving(self) -> None:
        """Receive no further calls; those on their way are still taken."""
        if self._serving is not None:
            serving, self._serving = self._serving, None
            await self._link.drain(serving)

    def _take(
        self, inbox: str, number: int, data: bytes, take: Callable[[Invocation, bytes, Answer], None]
    ) -> None:
        answer = _Answer(self, inbox, number)
        try:
            invocation = decode_invocation(data)
        except EnvelopeError as error:
            log.warning("call_unread", why=str(error))
            self._post(inbox + REPLIES, number, Refused(reason=Refusal.NOT_SERVED))
        else:
            take(invocation, data, answer)

    def post(self, address: str, number: int, piece: Piece) -> None:
        """Send a reply, or a piece of one, with the next turn. Raises `BrokerUnavailable`."""
        if not self._link.connected:
            raise self._link.away()
        self._post(address, number, piece)

    def _post(self, address: str, number: int, piece: Piece) -> None:
        data = encode_piece(piece)
        try:
            self._link.fits(PART_BYTES + len(data))
        except TooLarge as error:
            data = encode_piece(Failed(error=Error(type="ResponseTooLarge", message=str(error))))
        self._replies.setdefault(address, []).append((number, data))
        self._leaving.set()

    async def _send(self) -> None:
        calls, self._calls = self._calls, {}
        replies, self._replies = self._replies, {}
        for address, waiting in calls.items():
            for bundle in bundles_of(self._numbered(waiting)):
                await self._send_calls(address, bundle)
        for address, parts in replies.items():
            for bundle in bundles_of(parts):
                credit = self.outlets.address if address.endswith(STREAMS) else ""
                try:
                    await self._link.publish(address, pack_bundle(bundle), credit)
                except BrokerError as error:
                    log.warning("replies_lost", count=len(bundle), why=str(error))

    def _numbered(self, calls: Iterable[_Call]) -> Iterable[Part]:
        for call in calls:
            if not call.reply.done():  # nobody has given it up meanwhile
                call.number = next(self._numbers)
                self._under_way[call.number] = call
                yield call.number, call.data

    async def _send_calls(self, address: str, bundle: list[Part]) -> None:
        first, last = bundle[0][0], bundle[-1][0]
        try:
            await self._link.publish(address, pack_bundle(bundle), reply=f"{self._inbox}{first}-{last}")
        except BrokerError:  # away: the sizes were checked when it was handed over
            self._fail(first, last, lambda _: self._link.away())

    async def _hear(self, message: Msg) -> None:
        if has_status(message):  # nobody listens: the server itself answers
            first, last = map(int, message.subject[len(self._inbox) :].split("-"))
            self._fail(first, last, _gone)
            return
        try:
            for number, data in unpack_bundle(message.data):
                if message.subject.endswith(STREAMS):
                    await self._hear_piece(number, decode_piece(data), message.reply)
                elif (call := self._under_way.pop(number, None)) is not None and not call.reply.done():
                    call.reply.set_result(data)
        except EnvelopeError as error:
            log.warning("replies_unread", why=str(error))

    async def _hear_piece(self, number: int, piece: Piece, credit: str) -> None:
        if not isinstance(piece, Streaming):
            self._inlets.feed(number, piece)
            return
        call = self._under_way.pop(number, None)
        if call is None or call.reply.done():  # it was given up
            await self._inlets.refuse(number, credit)
        else:
            call.reply.set_result(self._inlets.begin(number, piece.head, credit))

    def _fail(self, first: int, last: int, why: Callable[[_Call], Exception]) -> None:
        for number in [number for number in self._under_way if first <= number <= last]:
            call = self._under_way.pop(number)
            if not call.reply.done():
                call.reply.set_exception(why(call))

    def _drop(self) -> None:
        """The connection is away: no reply will come to what was sent over it."""
        for call in self._under_way.values():
            if not call.reply.done():
                call.reply.set_exception(self._link.away())
        self._under_way.clear()
        self._inlets.drop()
        self.outlets.drop()


class _Answer:
    """Answers one call of the gateway whose addresses begin with `inbox`."""

    __slots__ = ("_calls", "_inbox", "_number", "_outlet")

    def __init__(self, calls: Calls, inbox: str, number: int) -> None:
        self._calls = calls
        self._inbox = inbox
        self._number = number
        self._outlet: Outlet | None = None

    async def __call__(self, reply: Reply) -> None:
        """The reply, or the end of a stream."""
        if self._outlet is None:
            self._calls.post(self._inbox + REPLIES, self._number, reply)
        else:
            self._calls.outlets.end(self._inbox + STREAMS, self._number)
            self._calls.post(self._inbox + STREAMS, self._number, reply)

    async def begin(self, head: Response) -> None:
        """Begin a stream."""
        self._calls.post(self._inbox + STREAMS, self._number, Streaming(head=head))
        self._outlet = self._calls.outlets.begin(self._inbox + STREAMS, self._number)

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        if self._outlet is not None:
            await self._outlet.take(len(chunk))
        self._calls.post(self._inbox + STREAMS, self._number, Chunk(data=chunk))


async def _forsake(reply: asyncio.Future[bytes | Stream]) -> None:
    """Close the stream that has begun in the moment in which its caller gave up."""
    if reply.done() and not reply.cancelled() and reply.exception() is None:
        begun = reply.result()
        if isinstance(begun, Stream):
            await begun.close()


def _gone(call: _Call) -> RunnerGone:
    return RunnerGone(f"Nobody serves as runner {call.runner}.")
