"""Large bodies in NATS: a stream of their own, in which all pieces of a body lie under one subject.

A few pieces are on their way at a time, in both directions, which bounds what every process holds. It
is no object store of NATS's own: that one keeps a second message about each object, and reads by a consumer
that has to be made for it; here a body is read by plain requests, and one purge removes it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from quarterhour.body import PIECE_BYTES_MAX, BodyKind, Claim, pieces_of
from quarterhour.broker.nats.layout import Layout, ttl
from quarterhour.broker.nats.link import Link, Msg
from quarterhour.broker.nats.stream import Stream
from quarterhour.errors import BodyLost, BrokerError, BrokerUnavailable
from quarterhour.ids import made_at

__all__ = ["Bodies"]

ON_THE_WAY_MAX = 4  # pieces of one body


class Bodies:
    """Stores, reads and removes large bodies."""

    def __init__(self, link: Link, layout: Layout, stream: Stream, *, dead_letter_s: float) -> None:
        self._link = link
        self._dead_letter_s = dead_letter_s
        self._layout = layout
        self._stream = stream
        self._looked_at = ""  # the id up to which the last sweep went

    async def keep_body(
        self, kind: BodyKind, invocation_id: str, chunks: AsyncIterator[bytes], *, keep_s: float
    ) -> Claim:
        """Store a body as it comes."""
        keep_s += self._dead_letter_s if kind is BodyKind.WORK else 0
        upload = _Upload(self._link, self._layout.body(kind, invocation_id), ttl(keep_s))
        piece_bytes = min(PIECE_BYTES_MAX, self._link.payload_bytes_max)
        try:
            async for piece in pieces_of(chunks, piece_bytes):
                await upload.put(piece)
            await upload.stored(below=1)
        except BrokerError:
            raise  # what is there of it is swept, or ends by itself
        except Exception:  # whoever sends it has failed
            with suppress(BrokerError):
                await upload.stored(below=1)  # what is stored after the removal would stay
                await self._remove(kind, invocation_id)
            raise
        finally:
            upload.forget()
        return Claim(kind=kind, id=invocation_id, size_bytes=upload.size_bytes, pieces=upload.pieces)

    async def read_body(self, claim: Claim) -> AsyncIterator[bytes]:
        """The pieces in their order."""
        subject = self._layout.body(claim.kind, claim.id)
        sequence, pieces, size_bytes = 0, 0, 0
        while pieces < claim.pieces:
            count = min(ON_THE_WAY_MAX, claim.pieces - pieces)
            found = await self._stream.pieces(subject, sequence + 1, count)
            if not found:
                break
            for stored in found:
                sequence, pieces, size_bytes = stored.sequence, pieces + 1, size_bytes + len(stored.data)
                yield stored.data
        if size_bytes != claim.size_bytes:
            message = f"{size_bytes} of the {claim.size_bytes} bytes of a body are there; it was removed."
            raise BodyLost(message)

    async def remove_body(self, claim: Claim) -> None:
        """Remove it, if it is there."""
        await self._remove(claim.kind, claim.id)

    async def _remove(self, kind: BodyKind, invocation_id: str) -> None:
        await self._stream.purge(self._layout.body(kind, invocation_id), name=self._layout.bodies)

    async def sweep_bodies(self, *, before: float, count_max: int) -> int:
        """Look at some bodies of work and remove those that nothing refers to."""
        subjects = await self._stream.subjects(self._layout.all_bodies_of_work(), name=self._layout.bodies)
        ids = sorted(each for subject in subjects if made_at(each := subject.rpartition(".")[2]) < before)
        chosen = [each for each in ids if each > self._looked_at][:count_max]
        self._looked_at = chosen[-1] if len(chosen) == count_max else ""
        removed = 0
        for each in chosen:
            if not await self._stream.last_of_each(self._layout.everything_with_body(each)):
                await self._remove(BodyKind.WORK, each)
                removed += 1
        return removed


class _Upload:
    """Pieces on their way into the stream."""

    def __init__(self, link: Link, subject: str, ttl: str) -> None:
        self.size_bytes = 0
        self.pieces = 0
        self._link = link
        self._subject = subject
        self._headers = {"Nats-TTL": ttl}
        self._on_the_way: deque[tuple[str, asyncio.Future[Msg]]] = deque()
        self._last_sequence = 0

    async def put(self, piece: bytes) -> None:
        """Send a piece once there is room for it on the way."""
        await self.stored(below=ON_THE_WAY_MAX)
        address, reply = self._link.expect(self._subject)
        self._on_the_way.append((address, reply))
        await self._link.publish(self._subject, piece, address, self._headers)
        self.size_bytes += len(piece)
        self.pieces += 1

    async def stored(self, *, below: int) -> None:
        """Return when fewer than `below` are on the way."""
        while len(self._on_the_way) >= below:
            address, reply = self._on_the_way[0]
            sequence: int = self._link.read_answer(await self._link.answer(reply))["seq"]
            if sequence < self._last_sequence:
                message = "The broker stored the pieces of a body in another order."
                raise BrokerUnavailable(message)
            self._last_sequence = sequence
            self._link.forget(address)
            self._on_the_way.popleft()

    def forget(self) -> None:
        """Wait for nothing any more."""
        for address, _ in self._on_the_way:
            self._link.forget(address)
