"""The bytes that come from a worker, in whatever portions, are the frames that it has sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.errors import EnvelopeError
from quarterhour.invocation import pack, unpack
from runner.sandbox.frames import FrameReader, Large

HELD = 100


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def reader() -> FrameReader:
    return FrameReader(frame_bytes_max=10_000, held_bytes_max=HELD)


@given(
    sizes=st.lists(st.integers(0, 3 * HELD), max_size=5),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_frames_of_all_sizes(sizes: list[int], cuts: list[int]) -> None:
    sent = [pack({"number": number}, bytes([number]) * size) for number, size in enumerate(sizes)]
    data = b"".join(map(framed, sent))
    frames, found, left = reader(), [], 0
    at = turn = 0
    while at < len(data):
        portion = data[at : at + cuts[turn % len(cuts)]]
        at, turn = at + len(portion), turn + 1
        for what in frames.feed(portion):
            if isinstance(what, Large):
                assert left == 0
                found.append(what.envelope)
                left = what.body_bytes
            elif left:
                assert 0 < len(what) <= left
                found[-1] += what
                left -= len(what)
            else:
                assert len(what) <= HELD
                found.append(what)
    assert (found, left) == (sent, 0)
    assert [unpack(each)[0]["number"] for each in found] == list(range(len(sizes)))


@pytest.mark.parametrize(
    "data",
    [
        framed(b""),
        (10_001).to_bytes(4, "big"),
        framed((200).to_bytes(4, "big") + bytes(150)),  # its header would end behind it
        framed((2**32 - 1).to_bytes(4, "big") + bytes(150)),
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        list(reader().feed(data))
