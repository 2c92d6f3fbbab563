"""Background requests: a 202 only after the broker has the invocation, and a bound on how many wait."""

from collections import defaultdict
from collections.abc import Mapping

from quarterhour.broker.port import Depth, Key, Queue, StoreUse
from quarterhour.invocation import Invocation

__all__ = ["Accepter", "Backlog", "StoreRoom"]

# The rest is kept for what comes of all that was accepted: records, results, retries, dead letters. Were it
# given away too, nothing that runs could be settled, nothing would be removed, and it would stay full.
FILLED_MAX = 0.9
BESIDES_BODY_BYTES = 1024  # of an envelope: about what a request's headers take


class _Unseen:
    """What was accepted, and may not be in what the broker has said last. Counts invocations, or bytes.

    What is under way while the broker is asked may be in its answer or not: it stays counted until the
    next answer, twice for so long if it was, so that no limit is exceeded.
    """

    __slots__ = ("_stored", "_under_way")

    def __init__(self) -> None:
        self._under_way = 0
        self._stored = 0

    @property
    def count(self) -> int:
        return self._under_way + self._stored

    def begin(self, count: int) -> None:
        """So much is on its way to the broker."""
        self._under_way += count

    def end(self, count: int, *, stored: bool) -> None:
        """It has arrived there, or will not."""
        self._under_way -= count
        self._stored += count if stored else 0

    def mark(self) -> int:
        """What the broker will have seen when it is asked now; to be told to `forget` with its answer."""
        return self._stored

    def forget(self, seen: int) -> None:
        self._stored -= seen


class Backlog:
    """How many invocations of each function wait or are delayed: the broker's last word, and our own since.

    With several gateways it is exceeded by what the others accept within a second, no more.
    """

    def __init__(self) -> None:
        self._depths: Mapping[str, Depth] = {}
        self._unseen: defaultdict[str, _Unseen] = defaultdict(_Unseen)

    def waiting(self, function: str) -> int:
        """How many wait, for their moment or for a runner, as far as this gateway can tell."""
        depth, unseen = self._depths.get(function), self._unseen.get(function)
        return (depth.waiting + depth.delayed if depth else 0) + (unseen.count if unseen else 0)

    def begin(self, function: str) -> None:
        """One more is on its way to the queue."""
        self._unseen[function].begin(1)

    def end(self, function: str, *, stored: bool) -> None:
        """It is there, or will not be."""
        self._unseen[function].end(1, stored=stored)

    def mark(self) -> Mapping[str, int]:
        """What is stored up to now; handed to `replace` with the depths that were asked for then."""
        return {name: unseen.mark() for name, unseen in self._unseen.items()}

    def replace(self, depths: Mapping[str, Depth], seen: Mapping[str, int]) -> None:
        """Take over new depths, which hold what was stored before they were asked for."""
        self._depths = depths
        for name, count in seen.items():
            self._unseen[name].forget(count)
            if not self._unseen[name].count:
                del self._unseen[name]


class StoreRoom:
    """Whether the broker's store takes more work: its last word, and what we have accepted since.

    With several gateways the room that is kept shrinks by what the others accept within a second.
    """

    def __init__(self) -> None:
        self._use = StoreUse()
        self._unseen = _Unseen()
        self.begin, self.end, self.mark = self._unseen.begin, self._unseen.end, self._unseen.mark

    @property
    def left_bytes(self) -> int | None:
        """How much more may be accepted, negative where it was too much; None: as much as anybody likes."""
        if self._use.limit_bytes is None:
            return None
        return round(FILLED_MAX * self._use.limit_bytes) - self._use.used_bytes - self._unseen.count

    def replace(self, use: StoreUse, seen: int) -> None:
        """Take over what is used now, which holds what was stored before that was asked for."""
        self._use = use
        self._unseen.forget(seen)


class Accepter:
    """Puts invocations on the queue."""

    def __init__(self, queue: Queue, backlog: Backlog, room: StoreRoom) -> None:
        self._queue = queue
        self._backlog = backlog
        self._room = room

    async def knows(self, function: str, key_text: str) -> bool:
        """Whether an invocation came with this key before. Raises `BrokerUnavailable`."""
        return await self._queue.knows(function, key_text)

    async def accept(self, invocation: Invocation, key: Key | None) -> str:
        """Return once the invocation is safe: its id, or that of the first one with this key.

        Raises `BrokerUnavailable`, `TooLarge`, `KeyReused`.

        Nothing here listens for the client, and a server does not cancel a request whose client has
        gone: so the client's going away changes nothing.
        """
        size_bytes = _size(invocation)
        self._backlog.begin(invocation.function)
        self._room.begin(size_bytes)
        stored = None
        try:
            stored = await self._queue.enqueue(invocation, key)
        finally:
            is_new = stored == invocation.id
            self._backlog.end(invocation.function, stored=is_new)
            self._room.end(size_bytes, stored=is_new)
        return stored


def _size(invocation: Invocation) -> int:
    """About what it takes in the store."""
    if invocation.claim is not None:
        return BESIDES_BODY_BYTES + invocation.claim.size_bytes
    return BESIDES_BODY_BYTES + len(invocation.body or b"")
