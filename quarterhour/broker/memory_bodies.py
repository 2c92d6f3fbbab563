"""Large bodies in the broker in memory: nothing ends by itself, everything else is as the port says."""

from collections.abc import AsyncIterator, Callable

from quarterhour.body import PIECE_BYTES_MAX, BodyKind, Claim, pieces_of
from quarterhour.broker.memory_store import Store
from quarterhour.broker.names import invocation_token
from quarterhour.clock import Clock
from quarterhour.errors import BodyLost, BrokerUnavailable
from quarterhour.ids import made_at

__all__ = ["MemoryBodies"]


class MemoryBodies:
    """The role `Bodies` of a connection to `store`."""

    store: Store
    _clock: Clock
    _ready: Callable[[], None]  # raises `BrokerUnavailable` while there is no connection

    async def keep_body(
        self,
        kind: BodyKind,
        invocation_id: str,
        chunks: AsyncIterator[bytes],
        *,
        keep_s: float,
    ) -> Claim:
        """Store a body as it comes."""
        del keep_s
        self._ready()
        place = kind, invocation_token(invocation_id)
        pieces = self.store.bodies[place] = []
        try:
            async for piece in pieces_of(chunks, PIECE_BYTES_MAX):
                self._ready()
                pieces.append(piece)
        except BrokerUnavailable:
            raise
        except Exception:
            del self.store.bodies[place]
            raise
        size_bytes = sum(map(len, pieces))
        return Claim(kind=kind, id=invocation_id, size_bytes=size_bytes, pieces=len(pieces))

    async def read_body(self, claim: Claim) -> AsyncIterator[bytes]:
        """The pieces in their order."""
        self._ready()
        size_bytes = 0
        for piece in self.store.bodies.get((claim.kind, claim.id), ()):
            self._ready()
            size_bytes += len(piece)
            yield piece
        if size_bytes != claim.size_bytes:
            message = f"{size_bytes} of the {claim.size_bytes} bytes of a body are there; it was removed."
            raise BodyLost(message)

    async def remove_body(self, claim: Claim) -> None:
        """Remove it, if it is there."""
        self._ready()
        self.store.bodies.pop((claim.kind, claim.id), None)

    async def sweep_bodies(self, *, before: float, count_max: int) -> int:
        """Remove bodies of work that nobody refers to."""
        self._ready()
        now = self._clock.now()
        orphans = [
            place
            for place in self.store.bodies
            if place[0] is BodyKind.WORK
            and made_at(place[1]) < before
            and not self.store.needs_body(place[1], now)
        ][:count_max]
        for place in orphans:
            del self.store.bodies[place]
        return len(orphans)
