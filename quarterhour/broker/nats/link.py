"""One connection to NATS, in the few verbs that the other rooms need: publish, request, collect, subscribe.

It exists because nats-py waits where it should fail: while the servers are away it buffers what is
published, while one hangs it waits until that is sent, and requests under way are not told. Here
whatever is asked while they are away raises `BrokerUnavailable` at once, and so does everything that
waits at the moment they go.

Replies come to subscriptions of our own, and the last of their address, the token, finds the waiter:
those of the server to `<inbox>.<token>`, where no client may publish, so that none can say "stored"
in its place, and those of other clients to `<inbox>.peer.<token>`.
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
    "Denied",
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
UNSENT_BYTES_MAX = 2 * 1024 * 1024
UNSENT_LOOK_S = 0.005
STUCK_S = 10.0  # nats-py can hang for minutes in closing a dead socket
PEER = "peer."
DENIALS_LOGGED_MAX = 100
GRANT = "What it has to be allowed is in deploy/nats/permissions.conf."
ENDS = frozenset({"204", "404"})  # of what is read from a stream: no more, and nothing at all
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


class Denied(Refused):
    """The server does not let this user do something, and what to change."""

    def __init__(self, verb: str, subject: str) -> None:
        """`verb`: publish or subscribe, to `subject`."""
        super().__init__({"code": 403, "description": f"this user may not {verb} to {subject}"})


class Link:
    """A connection that is open, away for a while, or closed for good."""

    def __init__(self, client: Client, address: Address, *, inbox: str, lease_s: float, clock: Clock) -> None:
        """`open_link` makes these. `inbox`: what the addresses for replies begin with."""
        self.place = address.place
        self.doubtful_until = 0.0
        self.recovering_until = 0.0
        self.calm_at = clock.boot() + CALM_S
        self.doubts = 1  # how often the servers may have forgotten something: at each connection, at least
        self._client = client
        self._clock = clock
        self._lease_s = lease_s
        self.token = client.new_inbox().rpartition(".")[2]  # ours alone, in the whole cluster
        self.inbox = f"{inbox}.{self.token}."
        self._tokens = itertools.count()
        # By token: what was asked, in case that it is denied, and who waits for the reply.
        self._replies: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._queues: dict[str, tuple[str, asyncio.Queue[Msg | Exception]]] = {}
        self.when_away: list[Callable[[], None]] = []  # called when no reply will come to what was asked
        self._denied: set[str] = set()
        self._away_because = ""
        self._closed = asyncio.Event()
        self._told_away = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a server is there now, and what that means for deliveries is noted."""
        return self._client.is_connected and not self._told_away.is_set()

    @property
    def server_id(self) -> str:
        """The id of the server that we are connected to; it has a new one after each start."""
        return str(self._client._server_info["server_id"])  # noqa: SLF001 - nats-py shows all but this

    @property
    def clustered(self) -> bool:
        """Whether the server that we are connected to has others beside it."""
        return "cluster" in self._client._server_info  # noqa: SLF001

    @property
    def in_doubt(self) -> bool:
        """Whether the servers may have forgotten who has what."""
        return self._clock.boot() < self.doubtful_until

    @property
    def recovering(self) -> bool:
        """Whether that was a moment ago, be it before we came: who has something may not say so yet."""
        return self._clock.boot() < max(self.doubtful_until, self.recovering_until)

    @property
    def payload_bytes_max(self) -> int:
        """The largest message, less the room for our headers."""
        return self.max_payload - HEADERS_BYTES_MAX

    @property
    def max_payload(self) -> int:
        """What the server calls so: the largest message in bytes, with headers."""
        return self._client.max_payload

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
        if self._client.pending_data_size > UNSENT_BYTES_MAX:
            await self._sent()
        try:
            await self._client.publish(subject, payload, reply=reply, headers=headers)
        except nats.errors.Error as error:
            raise self.away() from error

    async def _sent(self) -> None:
        """Return when the server has taken most of what was published; one that hangs counts as away."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._client.pending_data_size > UNSENT_BYTES_MAX:  # noqa: ASYNC110 - no event for it
                    await asyncio.sleep(UNSENT_LOOK_S)
        except TimeoutError:
            raise self.away() from None
        if not self._client.is_connected:
            raise self.away()

    def expect(self, subject: str, *, of_peer: bool = False) -> tuple[str, asyncio.Future[Msg]]:
        """An address for one reply to what is sent to `subject`, and the reply. `forget` it in the end.

        `of_peer`: the reply is another client's, not the server's own.
        """
        token = self._token(of_peer=of_peer)
        reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._replies[token] = subject, reply
        return self.inbox + token, reply

    def forget(self, address: str) -> None:
        """Expect no reply at `address` any more."""
        asked = self._replies.pop(address.removeprefix(self.inbox), None)
        if asked is not None and asked[1].done() and not asked[1].cancelled():
            asked[1].exception()  # nobody looks at it any more, and asyncio would complain of that

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Headers | None = None,
        timeout_s: float | None = ANSWER_S,
        *,
        of_peer: bool = False,
    ) -> Msg:
        """The first answer to a message. Raises `NoAnswer`, `NoResponders`, `Denied`."""
        address, reply = self.expect(subject, of_peer=of_peer)
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
    def many_replies(
        self, subject: str, *, of_peers: bool = False
    ) -> Iterator[tuple[str, asyncio.Queue[Msg | Exception]]]:
        """An address for any number of replies to what is sent to `subject`, and their queue.

        An exception in it says why no more will come. `of_peers`: they are other clients'.
        """
        token = self._token(of_peer=of_peers)
        queue: asyncio.Queue[Msg | Exception] = asyncio.Queue()
        self._queues[token] = subject, queue
        try:
            yield self.inbox + token, queue
        finally:
            del self._queues[token]

    async def collect(self, subject: str, body: dict[str, Any]) -> list[Msg]:
        """All the messages that answer a request, up to the one whose status says that there are no more.

        Raises `NoResponders`, `Refused`, `NoAnswer`.
        """
        found: list[Msg] = []
        with self.many_replies(subject) as (address, queue):
            await self.publish(subject, orjson.dumps(body), address)
            try:
                async with asyncio.timeout(ANSWER_S):
                    while True:
                        message = await queue.get()
                        if isinstance(message, Exception):
                            raise message
                        if self.is_end(message):
                            return found
                        found.append(message)
            except TimeoutError:
                raise self._no_answer(ANSWER_S) from None

    def is_end(self, message: Msg) -> bool:
        """Whether a status says that there is no message, or no further one.

        Another one says nothing of the kind: a server that is still starting, or cannot store, must
        not be taken for an empty one. Raises `NoResponders` or `Refused` for it.
        """
        if not has_status(message) or message.headers is None:
            return False
        status = message.headers["Status"]
        if status == "503":
            text = f"The broker at {self.place} does not serve its streams now."
            raise NoResponders(text)
        if status not in ENDS:
            description = message.headers.get("Description", f"status {status}")
            raise Refused({"description": description, "code": int(status)})
        return True

    async def subscribe(self, subject: str, hear: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Have `hear` called for each message from now on; it must not wait long.

        The servers know of it when this returns: what is sent later, over any connection to the
        same server, arrives. What comes under another subject is dropped: NATS lets whoever may create a
        consumer have it deliver to any address, also to those to which he may not publish. Raises `Denied`.
        """
        beginning = subject.partition("*")[0].removesuffix(">")

        async def heard(message: Msg) -> None:
            if message.subject.startswith(beginning):
                await hear(message)

        subscription = await self.subscribe_soon(subject, heard)
        await self.barrier(subject)
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

    async def barrier(self, subject: str = "") -> None:
        """Return when the server has done all that this connection told it so far.

        Raises `Denied` if that was to subscribe to `subject`, which it may not. (A flush is no barrier:
        its ping overtakes what nats-py still holds.)
        """
        address, reply = self.expect(subject, of_peer=True)
        try:
            await self.publish(address)
            await self.answer(reply)
        finally:
            self.forget(address)

    # Within

    def _token(self, *, of_peer: bool) -> str:
        return f"{PEER if of_peer else ''}{next(self._tokens)}"

    def _no_answer(self, timeout_s: float | None) -> NoAnswer:
        return NoAnswer(f"The broker at {self.place} did not answer within {timeout_s:g} s.")

    async def hear_replies(self) -> None:
        """Begin to receive replies."""
        await self.subscribe_soon(f"{self.inbox}*", self._hear)
        await self.subscribe(f"{self.inbox}{PEER}*", self._hear)

    async def _hear(self, message: Msg) -> None:
        token = message.subject.removeprefix(self.inbox)
        if (asked := self._replies.pop(token, None)) is not None:
            if not asked[1].done():
                asked[1].set_result(message)
        elif (many := self._queues.get(token)) is not None:
            many[1].put_nowait(message)

    def drop_waiters(self) -> None:
        """Tell everybody who waits for a reply that none will come."""
        self._fail(lambda _: self.away())
        for drop in self.when_away:
            drop()

    def _fail(self, why: Callable[[str], Exception | None]) -> None:
        """Tell those who wait for a reply to what they sent to a subject `why` none comes, if it says so."""
        for subject, reply in self._replies.values():
            if not reply.done() and (error := why(subject)) is not None:
                reply.set_exception(error)
        for subject, queue in self._queues.values():
            if (error := why(subject)) is not None:
                queue.put_nowait(error)

    def on_denied(self, verb: str, lowered: str) -> None:
        """The server has denied something, and says so once: whoever waits for it learns it now.

        `lowered`: the subject as nats-py hands it on, in lower case.
        """
        waiting = [subject for subject, _ in (*self._replies.values(), *self._queues.values())]
        named = next((subject for subject in waiting if subject.lower() == lowered), lowered)
        if lowered not in self._denied and len(self._denied) < DENIALS_LOGGED_MAX:
            self._denied.add(lowered)  # a beat would say so every second
            log.error("broker_denied", broker=self.place, why=f"{Denied(verb, named)} {GRANT}")
        no_replies = lowered.startswith(self.inbox.lower())
        self._fail(lambda subject: Denied(verb, named) if no_replies or subject == named else None)

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

    def on_still_away(self, why: str) -> None:
        """Another try has failed: several times a second, so only what is new is said."""
        if why != self._away_because:
            self._away_because = why
            log.warning("broker_still_away", broker=self.place, why=why)

    async def on_back(self) -> None:
        """nats-py is connected again: for one lease, the server may have forgotten deliveries."""
        self._told_away.clear()
        self.doubts += 1
        self._away_because = ""
        now = self._clock.boot()
        self.doubtful_until, self.calm_at = now + self._lease_s, now + CALM_S
        log.warning("broker_back", broker=self.place)

    async def on_new_leader(self, _: Msg) -> None:
        """In a cluster another server sees to a queue from now on: it may not know the latest deliveries."""
        self.doubts += 1
        self.doubtful_until = max(self.doubtful_until, self._clock.boot() + self._lease_s)

    async def on_closed(self) -> None:
        """nats-py has given up."""
        self.drop_waiters()
        self._closed.set()


def has_status(message: Msg) -> bool:
    """Whether a message says how a request ended, instead of answering it."""
    return message.headers is not None and "Status" in message.headers
