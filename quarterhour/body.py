"""Large bodies: what travels beside its envelope, in pieces, and the claim that the envelope carries instead.

A body of up to `INLINE_BYTES_MAX` is part of its envelope. A larger one is stored in the broker piece by
piece, and read piece by piece, so that no process ever holds the whole of it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["INLINE_BYTES_MAX", "PIECE_BYTES_MAX", "BodyKind", "Claim", "pieces_of"]

INLINE_BYTES_MAX = 512 * 1024
PIECE_BYTES_MAX = 128 * 1024


class BodyKind(StrEnum):
    """Whose body it is, and so how long it is kept."""

    WORK = "work"  # of a background invocation: until that has ended well, or with its dead letter
    REQUEST = "request"  # of a call: until its answer
    RESPONSE = "response"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A body that lies in the broker. `id` is its invocation's, which has one of each kind at most."""

    kind: BodyKind
    id: str
    size_bytes: int
    pieces: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"kind": self.kind, "id": self.id, "size_bytes": self.size_bytes, "pieces": self.pieces}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Claim":
        """What `to_json` wrote. Raises `KeyError`, `TypeError`, `ValueError`."""
        return cls(
            kind=BodyKind(data["kind"]),
            id=str(data["id"]),
            size_bytes=int(data["size_bytes"]),
            pieces=int(data["pieces"]),
        )


async def pieces_of(chunks: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of just this size, the last one apart."""
    waiting = bytearray()  # and no list of chunks: those of a byte or two take thirty times their size
    async for chunk in chunks:
        view = memoryview(chunk)
        while len(waiting) + len(view) >= size_bytes:
            rest = size_bytes - len(waiting)
            waiting += view[:rest]
            yield bytes(waiting)
            waiting.clear()
            view = view[rest:]
        waiting += view
    if waiting:
        yield bytes(waiting)
