"""One connection to NATS, in the few verbs that the other rooms need: publish, request, collect, subscribe.

It exists because nats-py waits where it should fail: while the servers are away it buffers what is
published, and requests under way are not told. Here whatever is asked while they are away raises
`BrokerUnavailable` at once, and so does everything that waits at the moment they go.

All replies come to one subscription of our own, `<inbox>.<token>`, and the token finds the waiter.
"""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nats.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from quarterhour.broker.nats.address import Address
from quarterhour.broker.port import ANSWER_S
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, TooLarge

__all__ = [
    "Link",
    "Msg",
    "NoAnswer",
    "NoResponders",
    "Refused",
    "Subscription",
    "has_status",
]

log = structlog.get_logger()

WATCH_EVERY_S = 0.5
CALM_S = 1.0  # by then everybody who lives is connected again, and can say what he runs
STUCK_S = 10.0  # nats-py can hang for minutes in closing a dead socket
HEADERS_BYTES_MAX = 1024  # ours are names and numbers of bounded length

Headers = dict[str, str]


class NoResponders(BrokerUnavailable):
    """Nobody listens at a subject."""


class NoAnswer(BrokerUnavailable):
    """The time for an answer has passed."""


class Refused(BrokerUnavailable):
    """JetStream answered with an error. `number` is NATS's own for it, `status` like one of HTTP."""

    def __init__(self, error: dict[str, Any]) -> None:
        """`error`: the answer's, as NATS wrote it."""
        super().__init__(f"NATS refused: {error.get('description', 'without a reason')}.")
        self.number: int = error.get("err_code", 0)
        self.status: int = error.get("code", 0)


class Link:
    """A connection that is open, away for a while, or closed for good."""

    def __init__(self, client: Client, address: Address, *, lease_s: float, clock: Clock) -> None:
        """`open_link` makes these."""
        self.place = address.place
        self.doubtful_until = 0.0
        self.calm_at = 0.0
        self._client = client
        self._clock = clock
        self._lease_s = lease_s
        self.token = client.new_inbox().rpartition(".")[2]  # ours alone, in the whole cluster
        self.inbox = f"_INBOX.{self.token}."
        self._tokens = itertools.count()
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._queues: dict[str, asyncio.Queue[Msg | None]] = {}
        self.on_delivery: Callable[[Msg], Awaitable[None]] = _ignore
        self.when_away: list[Callable[[], None]] = []  # called when no reply will come to what was asked
        self._closed = asyncio.Event()
        self._told_away = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a server is there now."""
        return self._client.is_connected

    @property
    def payload_bytes_max(self) -> int:
        """The largest message, less the room for our headers."""
        return self._client.max_payload - HEADERS_BYTES_MAX

    @property
    def version(self) -> tuple[int, int]:
        """The server's, major and minor."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def lost(self) -> None:
        """Return once the connection is closed for good."""
        await self._closed.wait()

    def close(self) -> None:
        """Say that it is of no use any more."""
        self._closed.set()

    def away(self) -> BrokerUnavailable:
        """What to raise while nobody is there."""
        return BrokerUnavailable(f"The broker at {self.place} is away.")

    def fits(self, size_bytes: int) -> None:
        """Raise `TooLarge` for what the server would close the connection over."""
        if size_bytes > self.payload_bytes_max:
            message = (
                f"A message takes {size_bytes} bytes; the broker takes {self.payload_bytes_max}. "
                "Raise max_payload in the server's configuration, or send less."
            )
            raise TooLarge(message)

    # Sending and asking

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send a message that nobody confirms."""
        if not self._client.is_connected:
            raise self.away()
        self.fits(len(payload))
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except nats.errors.Error as error:
            raise self.away() from error

    def expect(self) -> tuple[str, asyncio.Future[Msg]]:
        """An address for one reply, and the reply to come. `forget` the address in the end."""
        token = str(next(self._tokens))
        reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._replies[token] = reply
        return self.inbox + token, reply

    def forget(self, address: str) -> None:
        """Expect no reply at `address` any more."""
        self._replies.pop(address.removeprefix(self.inbox), None)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Headers | None = None,
        timeout_s: float | None = ANSWER_S,
    ) -> Msg:
        """The first answer to a message. Raises `NoAnswer`, `NoResponders`."""
        address, reply = self.expect()
        try:
            await self.publish(subject, payload, address, headers)
            return await self.answer(reply, timeout_s)
        finally:
            self.forget(address)

    async def answer(self, reply: asyncio.Future[Msg], timeout_s: float | None = ANSWER_S) -> Msg:
        """The reply once it has come. Raises `NoAnswer`, `NoResponders`."""
        if timeout_s is None:
            message = await reply
        else:
            try:
                async with asyncio.timeout(timeout_s):
                    message = await reply
            except TimeoutError:
                raise self._no_answer(timeout_s) from None
        if message.headers is not None and not message.data and message.headers.get("Status") == "503":
            text = f"Nobody listens for that at the broker at {self.place}."
            raise NoResponders(text)
        return message

    async def api(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer of JetStream's own API. Raises `Refused`."""
        message = await self.request(f"$JS.API.{name}", orjson.dumps(body) if body is not None else b"")
        return self.read_answer(message)

    def read_answer(self, message: Msg) -> dict[str, Any]:
        """What JetStream answered. Raises `Refused`."""
        try:
            answer: dict[str, Any] = orjson.loads(message.data)
        except orjson.JSONDecodeError as error:
            text = f"The broker at {self.place} answered with what is no JSON."
            raise BrokerUnavailable(text) from error
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    @contextmanager
    def many_replies(self) -> Iterator[tuple[str, asyncio.Queue[Msg | None]]]:
        """An address for any number of replies, and their queue; None in it: the connection is away."""
        token = str(next(self._tokens))
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._queues[token] = queue
        try:
            yield self.inbox + token, queue
        finally:
            del self._queues[token]

    async def collect(self, subject: str, body: dict[str, Any]) -> list[Msg]:
        """All the messages that answer a request, up to the one with a status that ends them."""
        found: list[Msg] = []
        with self.many_replies() as (address, queue):
            await self.publish(subject, orjson.dumps(body), address)
            try:
                async with asyncio.timeout(ANSWER_S):
                    while (message := await queue.get()) is not None:
                        if has_status(message):
                            return found
                        found.append(message)
            except TimeoutError:
                raise self._no_answer(ANSWER_S) from None
        raise self.away()

    async def subscribe(self, subject: str, hear: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Have `hear` called for each message from now on; it must not wait long.

        The servers know of it when this returns: what is sent later, over any connection to the
        same server, arrives.
        """
        subscription = await self.subscribe_soon(subject, hear)
        await self.barrier()
        return subscription

    async def subscribe_soon(self, subject: str, hear: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """As `subscribe`, without waiting for the server."""
        try:
            return await self._client.subscribe(subject, cb=hear, pending_msgs_limit=0, pending_bytes_limit=0)
        except nats.errors.Error as error:
            raise self.away() from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Hear no more; what is on its way is dropped."""
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()

    async def drain(self, subscription: Subscription) -> None:
        """Hear no more, once everything that the server had sent by now is heard."""
        # nats-py's own drain drops what arrives late: the server has to confirm first.
        with suppress(BrokerUnavailable, nats.errors.Error):
            await self._client._send_unsubscribe(subscription._id)  # noqa: SLF001
            await self.barrier()
            while subscription.pending_msgs:  # noqa: ASYNC110 - nats-py has no event for it
                await asyncio.sleep(0)
        await self.unsubscribe(subscription)

    async def barrier(self) -> None:
        """Return when the server has done all that this connection told it so far.

        A flush is none: its ping overtakes what nats-py still holds.
        """
        address, reply = self.expect()
        try:
            await self.publish(address)
            await self.answer(reply)
        finally:
            self.forget(address)

    # Within

    def _no_answer(self, timeout_s: float | None) -> NoAnswer:
        return NoAnswer(f"The broker at {self.place} did not answer within {timeout_s:g} s.")

    async def hear_replies(self) -> None:
        """Begin to receive replies."""
        await self.subscribe(f"{self.inbox}*", self._hear)

    async def _hear(self, message: Msg) -> None:
        if not message.subject.startswith(self.inbox):
            await self.on_delivery(message)  # JetStream delivers under the message's own subject
            return
        token = message.subject[len(self.inbox) :]
        reply = self._replies.pop(token, None)
        if reply is not None:
            if not reply.done():
                reply.set_result(message)
        elif (queue := self._queues.get(token)) is not None:
            queue.put_nowait(message)

    def drop_waiters(self) -> None:
        """Tell everybody who waits for a reply that none will come."""
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_exception(self.away())
        for queue in self._queues.values():
            queue.put_nowait(None)
        for drop in self.when_away:
            drop()

    async def watch(self) -> None:
        """Notice that the server is away even where nats-py hangs before it says so."""
        away_since: float | None = None
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if self._client.is_connected or self._told_away.is_set():
                away_since = None
                continue
            self.drop_waiters()
            away_since = away_since or self._clock.boot()
            if self._clock.boot() - away_since > STUCK_S:
                log.error("broker_connection_hangs", broker=self.place)
                self.close()

    async def on_away(self) -> None:
        """nats-py has noticed that the server is gone."""
        self._told_away.set()
        self.doubtful_until = math.inf
        self.drop_waiters()
        if not self._closed.is_set():
            log.warning("broker_away", broker=self.place)

    async def on_back(self) -> None:
        """nats-py is connected again: for one lease, the server may have forgotten deliveries."""
        self._told_away.clear()
        now = self._clock.boot()
        self.doubtful_until, self.calm_at = now + self._lease_s, now + CALM_S
        log.warning("broker_back", broker=self.place)

    async def on_closed(self) -> None:
        """nats-py has given up."""
        self.drop_waiters()
        self._closed.set()


async def _ignore(_: Msg) -> None:
    """What comes of pulls before anybody pulls: nothing."""


def has_status(message: Msg) -> bool:
    """Whether a message says how a request ended, instead of answering it."""
    return message.headers is not None and "Status" in message.headers
