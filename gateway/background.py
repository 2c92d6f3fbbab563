"""Background requests: a 202 only after the broker has the invocation, and a bound on how many wait."""

from collections.abc import Collection, Mapping

from quarterhour.broker.port import Depth, Key, Queue
from quarterhour.invocation import Invocation

__all__ = ["Accepter", "Backlog"]


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


class Accepter:
    """Puts invocations on the queue."""

    def __init__(self, queue: Queue, backlog: Backlog) -> None:
        self._queue = queue
        self._backlog = backlog

    async def knows(self, function: str, key_text: str) -> bool:
        """Whether an invocation came with this key before. Raises `BrokerUnavailable`."""
        return await self._queue.knows(function, key_text)

    async def accept(self, invocation: Invocation, key: Key | None) -> str:
        """Return once the invocation is safe: its id, or that of the first one with this key.

        Raises `BrokerUnavailable`, `TooLarge`, `KeyReused`.

        Nothing here listens for the client, and a server does not cancel a request whose client has
        gone: so the client's going away changes nothing.
        """
        self._backlog.add(invocation.function)
        stored = None
        try:
            stored = await self._queue.enqueue(invocation, key)
        finally:
            if stored != invocation.id:
                self._backlog.add(invocation.function, -1)
        return stored
