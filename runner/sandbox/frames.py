"""The frames that a worker sends, out of the bytes that come from it. No I/O, and nothing is believed.

A frame of up to `held_bytes_max` is held until it is whole. Of a larger one only the header is held; its
body comes out as it goes in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from quarterhour.errors import EnvelopeError

__all__ = ["HEADER_BYTES_MAX", "FrameReader", "Large"]

LENGTH_BYTES = 4
HEADER_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Large:
    """The beginning of a large frame: an envelope, whose body of so many bytes follows."""

    envelope: bytes
    body_bytes: int


class FrameReader:
    """Takes bytes, gives frames (envelopes); a large one's beginning, and then its body's bytes."""

    __slots__ = (
        "_frame_bytes_max",
        "_held_bytes_max",
        "_in_body",
        "_is_large",
        "_missing",
        "_parts",
        "_rest",
    )

    def __init__(self, *, frame_bytes_max: int, held_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._held_bytes_max = held_bytes_max
        self._rest = b""  # of the length of the next frame
        self._parts: list[bytes] = []
        self._missing = 0
        self._is_large = False
        self._in_body = False

    def feed(self, data: bytes) -> Iterator[bytes | Large]:
        """What these bytes complete, usually one frame. Raises `EnvelopeError`: that is none."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        while data:
            if not self._missing:
                if len(data) < LENGTH_BYTES:
                    self._rest = data
                    return
                self._begin(int.from_bytes(data[:LENGTH_BYTES], "big"))
                data = data[LENGTH_BYTES:]
            part, data = data[: self._missing], data[self._missing :]
            self._missing -= len(part)
            if self._is_large:
                yield from self._large(part)
                continue
            self._parts.append(part)
            if not self._missing:
                yield self._joined()

    def _begin(self, size_bytes: int) -> None:
        if not 0 < size_bytes <= self._frame_bytes_max:
            message = f"A frame says it has {size_bytes} bytes."
            raise EnvelopeError(message)
        self._missing = size_bytes
        self._is_large = size_bytes > self._held_bytes_max
        self._in_body = False

    def _large(self, part: bytes) -> Iterator[bytes | Large]:
        if self._in_body:
            if part:
                yield part
            return
        self._parts.append(part)
        if self._missing and sum(map(len, self._parts)) < LENGTH_BYTES:
            return
        start = self._joined()
        end = LENGTH_BYTES + int.from_bytes(start[:LENGTH_BYTES], "big")
        if end > LENGTH_BYTES + HEADER_BYTES_MAX or end > len(start) + self._missing:
            message = f"A frame's header says it has {end - LENGTH_BYTES} bytes."
            raise EnvelopeError(message)
        if len(start) < end:
            self._parts = [start]
            return
        self._in_body = True
        yield Large(envelope=start[:end], body_bytes=len(start) - end + self._missing)
        if len(start) > end:
            yield start[end:]

    def _joined(self) -> bytes:
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        return whole
