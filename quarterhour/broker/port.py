"""The broker port: what the gateway and the runner need of a message broker, one Protocol for each role.

It speaks in invocations, deliveries, leases, records and functions, never in subjects or streams.
Every adapter passes the conformance suite in `tests/broker/`; `docs/brokers.md` says how to write one.

Every coroutine here may raise `BrokerUnavailable`, within `ANSWER_S` of the call: then it is not
known whether it took effect, and repeating it is safe. None of them buffers for a later connection.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from quarterhour.body import BodyKind, Claim
from quarterhour.clock import Clock, SystemClock
from quarterhour.function import Manifest, Mode
from quarterhour.invocation import Invocation
from quarterhour.outcome import Response
from quarterhour.record import Record
from quarterhour.reply import Reply

__all__ = [
    "ANSWER_S",
    "KEY_KEPT_S",
    "Answer",
    "Beat",
    "Bodies",
    "Broker",
    "BrokerOptions",
    "Calls",
    "Connect",
    "Connection",
    "Cursor",
    "Delivery",
    "Depth",
    "Directory",
    "Key",
    "Queue",
    "Records",
    "Run",
    "Schedules",
    "Settlement",
    "Status",
    "StoreUse",
    "Stream",
    "Work",
]

ANSWER_S = 4.0  # the broker answers within this, or is away; a client then has its 503 within 5 s
KEY_KEPT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """What an adapter is told. `name` says whose connection it is; times are seconds."""

    url: str
    name: str
    namespace: str = "quarterhour"
    lease_s: float = 30.0
    record_succeeded_s: float = 24 * 3600.0
    record_failed_s: float = 7 * 24 * 3600.0
    dead_letter_s: float = 30 * 24 * 3600.0
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One hand-over of an invocation to a runner.

    `number` counts the deliveries of this attempt (1 is the first). `leased_until` (seconds of
    `Clock.boot`) is the moment up to which nobody else is handed the invocation; a renewal extends
    it. `doubtful`: the broker may have forgotten earlier deliveries and what became of them (it may have
    been away since the invocation was stored), so ask who runs it before starting, and read the record.
    `recovering`: that was a moment ago, so that whoever runs it may not be able to say so yet.
    `envelope` is the invocation as it came, for the worker; `token` is the adapter's own.
    """

    invocation: Invocation
    envelope: bytes
    number: int
    leased_until: float
    doubtful: bool
    recovering: bool = False
    token: object

    @property
    def is_new(self) -> bool:
        """Whether nobody can have written a record yet, so that there is none to look at.

        What the broker keeps for later, a delayed invocation or the firing of a schedule, may come again
        as a first delivery: it was placed twice, or fired twice.
        """
        invocation = self.invocation
        first = self.number == 1 and invocation.attempt == 1 and not self.doubtful
        return first and invocation.mode is not Mode.SCHEDULED and invocation.due_at <= invocation.accepted_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The final answer to a delivery: what is stored in one step, before the acknowledgement.

    `record` replaces the revision it carries; `retry` is the next attempt, put on the queue at its
    `due_at`. A record that is dead takes its invocation along as a dead letter.
    """

    delivery: Delivery
    record: Record
    retry: Invocation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """A function's queue: how many wait, how many are leased, and since when (Unix s) the oldest waits.

    `delayed`: how many were accepted for later and are not due yet; neither retries nor firings.
    """

    waiting: int = 0
    leased: int = 0
    delayed: int = 0
    oldest_due_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUse:
    """How full the broker's store is, in bytes. `limit_bytes`: None where nobody has said what it takes."""

    used_bytes: int = 0
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What makes a request known when it comes again, for `KEY_KEPT_S`.

    `text` is the client's, for this function alone; `fingerprint` stands for all that was asked for.
    """

    text: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An attempt that a runner has in its hands; `started_at` is None until its handler is started."""

    runner: str
    attempt: int
    started_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All that the broker knows of an invocation: its record, and the run that is under way."""

    record: Record
    run: Run | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far the firings of a function's schedule are placed: all up to `placed_until` (Unix s).

    `revision` is the broker's, for the compare-and-set: 0 while nothing is stored. A cursor whose
    firings are being removed, or that cannot be read, has the schedule "", which is nobody's.
    """

    function: str
    schedule: str
    placed_until: float
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A runner's sign of life, sent once a second. `metrics` is `host:port`, None without metrics."""

    runner: str
    functions: tuple[str, ...]
    slots: int
    draining: bool = False
    metrics: str | None = None


class Connection(Protocol):
    """The state of the connection to the broker."""

    @property
    def connected(self) -> bool:
        """Whether the broker answers now."""
        ...

    @property
    def body_bytes_max(self) -> int:
        """The largest body that fits into one message; a larger one needs `Bodies`."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about settings of the broker that weaken a promise, for the log at start."""
        ...

    async def lost(self) -> None:
        """Return once the connection is closed for good: the process should end then."""
        ...


class Calls(Protocol):
    """Synchronous invocations, from a gateway to a runner of its choice."""

    async def call(self, runner: str, invocation: Invocation) -> "Reply | Stream":
        """Have `runner` run `invocation` and return its reply, however long that takes.

        A response that comes bit by bit is returned when it begins. Raises `RunnerGone` if nobody
        serves under that name, `TooLarge`. The caller watches the runner's beats and cancels; a reply
        that comes after that is dropped.
        """
        ...

    async def serve(self, runner: str, take: "Callable[[Invocation, bytes, Answer], None]") -> None:
        """Start to receive calls for `runner`: `take(invocation, envelope, answer)` is called for each.

        `take` must not block. An envelope of an unknown version is answered `not_served`.
        """
        ...

    async def stop_serving(self) -> None:
        """Receive no further calls: from its return on, a call gets `RunnerGone` at once."""
        ...


class Answer(Protocol):
    """How a runner answers a call: with a reply; or bit by bit, with a reply as its end."""

    async def __call__(self, reply: Reply) -> None:
        """The reply, or the end of a response that was begun: a success, or what broke it."""
        ...

    async def begin(self, head: Response) -> None:
        """Begin a response whose body follows bit by bit."""
        ...

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body of at most 64 KiB; waits while the gateway's client reads no further.

        Raises `StreamClosed`: nobody reads any more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A response that comes bit by bit, in the gateway.

    `chunks` is the body; asking for the next chunk says that the last one was read. It raises
    `StreamBroken` if the function failed on the way, and `BrokerUnavailable`. `close` says that
    nobody reads any further; it has to be awaited in the end, whatever came of it.
    """

    head: Response
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


class Bodies(Protocol):
    """Large bodies: stored piece by piece, read piece by piece, and never held whole."""

    async def keep_body(
        self, kind: BodyKind, invocation_id: str, chunks: AsyncIterator[bytes], *, keep_s: float
    ) -> Claim:
        """Return once all of `chunks` are safely stored, as safely as an accepted invocation.

        After `keep_s` the body ends by itself (one of `BodyKind.WORK` also outlives any dead letter): that is
        for what nobody removes. What `chunks` raises is raised here, and nothing of the body is left then;
        what is left where the broker fails ends by itself as well.
        """
        ...

    def read_body(self, claim: Claim) -> AsyncIterator[bytes]:
        """The body, in pieces of at most 128 KiB. Raises `BodyLost`, at the latest at its end."""
        ...

    async def remove_body(self, claim: Claim) -> None:
        """Remove the body, if it is still there."""
        ...

    async def sweep_bodies(self, *, before: float, count_max: int) -> int:
        """Remove bodies of work that nobody refers to: no attempt that waits or runs, and no dead letter.

        Looks at no more than `count_max` of those whose ids were made `before` (Unix s), each time at the
        next ones. Returns how many were removed.
        """
        ...


class Queue(Protocol):
    """The background queue as gateways use it."""

    async def enqueue(self, invocation: Invocation, key: Key | None = None) -> str:
        """Return once the invocation is safely stored (fsynced, as far as the broker does that).

        One whose `due_at` is still to come is put on its queue then, by the broker itself. Repeats with
        the same id store it once. With a `key` that is known already nothing is stored; the key and the
        invocation are stored in one step. Returns the id of the invocation that is stored: this one's,
        or that of the first with this key. Raises `TooLarge`; `KeyReused` if that was another request.
        """
        ...

    async def knows(self, function: str, key_text: str) -> bool:
        """Whether an invocation of the function is stored with this key, whatever else was asked for."""
        ...

    async def cancel(self, invocation_id: str) -> Record | None:
        """See to it that an invocation does not run, or not on; gives its record as it is stored then.

        It is stored that it is cancelled, over whatever is known of it, so that no attempt of it is begun or
        settled any more; then what is to come of it is removed, and runners are told. Whoever is handed
        it after that finds its record (`Delivery.is_new` is false, if it is delivered at all). Nothing is
        changed of one that has ended otherwise; one that is cancelled already is removed and told of once
        more, since an earlier try may have ended half-way. None: there is no such background invocation.
        """
        ...

    async def tend(self, functions: Collection[str]) -> Mapping[str, Depth]:
        """Look after the queues of `functions` and return how deep they are.

        Called about once a second by every gateway: tells runners of work that they may have
        missed, and removes what is settled. Both for every queue there is, since a function that has
        no queue any more may have left work on it.
        """
        ...

    async def store_use(self) -> StoreUse:
        """How full the store is; once it is full, nothing that runs can be settled any more."""
        ...


class Schedules(Protocol):
    """Firings of schedules, placed ahead of their moments: the broker itself puts them on their queues.

    Any number of gateways may try to place the same: the cursor's revision lets exactly one.
    """

    async def cursors(self) -> Mapping[str, Cursor]:
        """The cursors of all functions that have one, by function."""
        ...

    async def place(self, cursor: Cursor, firings: Sequence[Invocation]) -> Cursor:
        """Store, in one step, `cursor` over the revision that it carries, and `firings`.

        Each firing goes on its queue at its `due_at`, at once if that has passed. Returns the cursor
        with its new revision. Raises `Conflict`: somebody else was first, and nothing is stored.
        """
        ...

    async def unplace(self, cursor: Cursor) -> None:
        """Remove the firings that are still to come, and the cursor. Raises `Conflict`.

        If it ends half-way the cursor has no schedule any more, and this is to be done again.
        """
        ...


class Work(Protocol):
    """Background work as runners take it."""

    async def prepare(self, functions: Collection[Manifest]) -> None:
        """Make queues for these functions ready to be pulled, with their concurrency limits."""
        ...

    def bells(self) -> AsyncIterator[frozenset[str]]:
        """The names of functions that may have work, whenever there is news.

        If no gateway was heard for 5 s, the adapter looks at the queues itself.
        """
        ...

    def pull(self, function: str, count: int) -> AsyncIterator[Delivery]:
        """At most `count` deliveries that wait now; ends at once, or within a second, without more.

        Must be iterated to its end: a pull that is dropped may leave deliveries to their leases.
        """
        ...

    async def renew(self, delivery: Delivery) -> float:
        """Extend the lease. Returns the new `leased_until`, counted from the sending of the request.

        A lease that has ended before the answer came stays ended: it may be somebody else's by now.
        """
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Store the record with its retry or dead letter in one step, then acknowledge the delivery.

        Raises `Conflict` if the record has another revision: nothing is stored or acknowledged.
        """
        ...

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take a delivery off the queue whose attempt has its outcome already."""
        ...

    async def hand_back(self, delivery: Delivery) -> None:
        """Give the delivery back: it is delivered again at once, to any runner."""
        ...

    async def who_runs(self, invocation_id: str) -> Run | None:
        """Ask every other process whether it has the invocation in its hands now, under a lease."""
        ...

    async def answer_who_runs(self, find: Callable[[str], Run | None]) -> None:
        """Answer other processes' `who_runs` with `find(invocation_id)` from now on."""
        ...

    async def on_cancelled(self, stop: Callable[[str], None]) -> None:
        """Call `stop(invocation_id)` whenever one is cancelled; who is cut off meanwhile is not told."""
        ...


class Records(Protocol):
    """What is kept about invocations."""

    async def read(self, function: str, invocation_id: str) -> Record | None:
        """The record with its revision; None if there is none yet."""
        ...

    async def write(self, record: Record) -> Record:
        """Store `record` if its revision is the stored one; returns it with the new revision.

        Raises `Conflict`.
        """
        ...

    async def status(self, invocation_id: str) -> Status | None:
        """What is known of a background invocation: waiting, running or ended. None: unknown id."""
        ...

    def changes(self, invocation_id: str) -> AbstractAsyncContextManager[Callable[[float], Awaitable[None]]]:
        """While entered, `await changed(timeout_s)` returns when the record may have changed."""
        ...


class Directory(Protocol):
    """Which functions there are, and which runners live."""

    async def announce(self, functions: Collection[Manifest]) -> None:
        """Make the functions known; an announcement replaces the earlier one of the same name."""
        ...

    async def withdraw(self, names: Collection[str]) -> None:
        """Make functions unknown again; their waiting invocations stay."""
        ...

    async def functions(self) -> Mapping[str, Manifest]:
        """All announced functions by name."""
        ...

    async def function_changes(self, timeout_s: float) -> None:
        """Return when functions may have been announced or withdrawn, or after `timeout_s`."""
        ...

    async def beat(self, beat: Beat) -> None:
        """Send a sign of life."""
        ...

    def beats(self) -> AsyncIterator[Beat]:
        """Every runner's beats as they come; asks runners to beat at once when it begins."""
        ...

    async def on_roll_call(self, answer: Callable[[], Awaitable[None]]) -> None:
        """Call `answer` whenever a gateway asks who is there."""
        ...


class Broker(Connection, Calls, Bodies, Queue, Schedules, Work, Records, Directory, Protocol):
    """Everything together; what `connect` of an adapter gives."""


Connect = Callable[[BrokerOptions], AbstractAsyncContextManager[Broker]]
