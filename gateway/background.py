"""Background requests: a 202 only after the broker has the invocation, and a bound on how many wait."""

from collections.abc import Collection, Mapping

from quarterhour.broker.port import Depth, Key, Queue, StoreUse
from quarterhour.invocation import Invocation

__all__ = ["Accepter", "Backlog", "StoreRoom"]

# The rest is kept for what comes of all that was accepted: records, results, retries, dead letters. Were it
# given away too, nothing that runs could be settled, nothing settled, and so the store would stay full.
FILLED_MAX = 0.9
BESIDES_BODY_BYTES = 1024  # of an envelope: about what a request's headers take


class Backlog:
    """How many invocations of each function wait or are delayed: the broker's last word, and our own since.

    It may miss what the others accept within a second, where there are several gateways, and for as long
    what was on its way to the broker while that was asked: by so much a limit can be exceeded, no more.
    """

    def __init__(self) -> None:
        self._depths: Mapping[str, Depth] = {}
        self._accepted: dict[str, int] = {}

    def waiting(self, function: str) -> int:
        """How many wait, for their moment or for a runner, as far as this gateway can tell."""
        depth = self._depths.get(function)
        return (depth.waiting + depth.delayed if depth else 0) + self._accepted.get(function, 0)

    def add(self, function: str, count: int = 1) -> None:
        """`count` more are on their way to the queue; a negative one takes them back."""
        self._accepted[function] = self._accepted.get(function, 0) + count

    def mark(self) -> Mapping[str, int]:
        """What was accepted up to now; handed to `replace` with the depths that were asked for then."""
        return dict(self._accepted)

    def replace(self, depths: Mapping[str, Depth], counted: Mapping[str, int]) -> None:
        """Take over new depths, which hold what was accepted before they were asked for."""
        self._depths = depths
        left = {name: count - counted.get(name, 0) for name, count in self._accepted.items()}
        self._accepted = {name: count for name, count in left.items() if count > 0}

    @property
    def functions(self) -> Collection[str]:
        """The functions whose depths are known."""
        return self._depths.keys()


class StoreRoom:
    """Whether the broker's store takes more work: its last word, and what we have accepted since.

    With several gateways the room that is kept shrinks by what the others accept within a second.
    """

    def __init__(self) -> None:
        self._use = StoreUse()
        self._accepted_bytes = 0

    @property
    def left_bytes(self) -> int | None:
        """How much more may be accepted, negative where it was too much; None: as much as anybody likes."""
        if self._use.limit_bytes is None:
            return None
        return round(FILLED_MAX * self._use.limit_bytes) - self._use.used_bytes - self._accepted_bytes

    def add(self, size_bytes: int) -> None:
        """So much more is on its way to the store; a negative size takes it back."""
        self._accepted_bytes += size_bytes

    def mark(self) -> int:
        """What was accepted up to now; handed to `replace` with the use that was asked for then."""
        return self._accepted_bytes

    def replace(self, use: StoreUse, counted: int) -> None:
        """Take over what is used now, which holds what was accepted before that was asked for."""
        self._use = use
        self._accepted_bytes = max(0, self._accepted_bytes - counted)


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
        self._backlog.add(invocation.function)
        self._room.add(size_bytes)
        stored = None
        try:
            stored = await self._queue.enqueue(invocation, key)
        finally:
            if stored != invocation.id:
                self._backlog.add(invocation.function, -1)
                self._room.add(-size_bytes)
        return stored


def _size(invocation: Invocation) -> int:
    """About what it takes in the store."""
    if invocation.claim is not None:
        return BESIDES_BODY_BYTES + invocation.claim.size_bytes
    return BESIDES_BODY_BYTES + len(invocation.body or b"")
