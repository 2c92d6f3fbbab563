"""The bundle: several calls, or several replies, in one message. Pure.

What a message costs, on its way through two clients and a server, hardly depends on its size. So
what goes to the same place in the same turn of the event loop goes together: a lone call is a bundle
of one, and under load each message carries many.

On the wire each part has 8 bytes of number (which call it is), 4 bytes of length, and its data.
"""

from collections.abc import Iterable, Iterator
from struct import Struct

from quarterhour.errors import EnvelopeError

__all__ = ["BUNDLE_BYTES_MAX", "PART_BYTES", "Part", "bundles_of", "pack_bundle", "unpack_bundle"]

# Above this a message costs by its size, and its last part would wait for the first ones' bytes.
BUNDLE_BYTES_MAX = 64 * 1024

Part = tuple[int, bytes]

_HEAD = Struct("!QI")
PART_BYTES = _HEAD.size  # what a part takes besides its data


def pack_bundle(parts: Iterable[Part]) -> bytes:
    """The message for these parts."""
    pieces: list[bytes] = []
    for number, data in parts:
        pieces.append(_HEAD.pack(number, len(data)))
        pieces.append(data)
    return b"".join(pieces)


def unpack_bundle(message: bytes) -> Iterator[Part]:
    """The parts of a message. Raises `EnvelopeError` where it is no bundle any more."""
    at, end = 0, len(message)
    while at < end:
        if end - at < PART_BYTES:
            text = f"A bundle of {end} bytes has {end - at} too many."
            raise EnvelopeError(text)
        number, length = _HEAD.unpack_from(message, at)
        at += PART_BYTES
        if length > end - at:
            text = f"A part of a bundle says it has {length} bytes; {end - at} are left."
            raise EnvelopeError(text)
        yield number, message[at : at + length]
        at += length


def bundles_of(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts in the order given, as many together as make a message of a sensible size."""
    bundle: list[Part] = []
    size = 0
    for part in parts:
        size += PART_BYTES + len(part[1])
        if bundle and size > BUNDLE_BYTES_MAX:
            yield bundle
            bundle, size = [], PART_BYTES + len(part[1])
        bundle.append(part)
    if bundle:
        yield bundle
