"""Bodies on their way: cut into pieces, and held in no more memory than is counted."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.body import BodyLimits, Incoming, Memory
from gateway.request import read_head
from quarterhour.body import PIECE_BYTES_MAX, Claim, pieces_of

TINY = 2
CHUNKED = {"raw_path": b"/", "query_string": b"", "headers": [(b"transfer-encoding", b"chunked")]}


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes were taken since then, and are still held."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


async def in_chunks(size_bytes: int, chunk_bytes: int, then: Callable[[], None]) -> AsyncIterator[bytes]:
    for _ in range(size_bytes // chunk_bytes):
        yield bytes(bytearray(chunk_bytes))  # each an object of its own, as from a server
    then()


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 4096, 100_000])
async def test_pieces_are_of_one_size_but_for_the_last(chunk_bytes: int) -> None:
    body = bytes(range(256)) * 391

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), chunk_bytes):
            yield body[at : at + chunk_bytes]
            yield b""

    pieces = [piece async for piece in pieces_of(chunks(), 4096)]
    assert b"".join(pieces) == body
    assert [len(piece) for piece in pieces] == [4096] * (len(body) // 4096) + [len(body) % 4096]


async def test_tiny_chunks_take_no_more_than_their_bytes_on_their_way_into_pieces() -> None:
    held = []
    size = PIECE_BYTES_MAX - TINY
    with traced() as so_far:
        async for _ in pieces_of(in_chunks(size, TINY, lambda: held.append(so_far())), PIECE_BYTES_MAX):
            pass
    assert held[0] < 1.5 * size


async def test_tiny_chunks_take_no_more_than_their_bytes_before_there_are_all() -> None:
    size = 64 * 1024
    held = []

    async def receive() -> Any:
        await asyncio.sleep(0)
        if sent := await anext(chunks, None):
            return {"type": "http.request", "body": sent, "more_body": True}
        return {"type": "http.disconnect"}

    with traced() as so_far:
        chunks = in_chunks(size, TINY, lambda: held.append(so_far()))
        incoming = Incoming(
            read_head(CHUNKED), receive, BodyLimits(), memory=Memory(2 * size), inline_bytes_max=size + TINY
        )
        await incoming.read(2 * size, keep=nowhere)
    assert held[0] < 1.5 * size


async def nowhere(_: AsyncIterator[bytes]) -> Claim:
    raise AssertionError
