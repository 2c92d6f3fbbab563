"""Bundles: the parts come out as they went in, and what is no bundle is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.broker.nats.bundle import (
    BUNDLE_BYTES_MAX,
    PART_BYTES,
    bundles_of,
    pack_bundle,
    unpack_bundle,
)
from quarterhour.errors import EnvelopeError

PARTS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=50)))


@given(PARTS)
def test_parts_survive_their_bundle(parts: list[tuple[int, bytes]]) -> None:
    assert list(unpack_bundle(pack_bundle(parts))) == parts


@given(PARTS.filter(bool), st.data())
def test_a_cut_bundle_gives_its_whole_parts_and_is_refused_then(
    parts: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    message = pack_bundle(parts)
    last = PART_BYTES + len(parts[-1][1])
    cut = message[: len(message) - data.draw(st.integers(1, last - 1))]
    whole = unpack_bundle(cut)
    assert [next(whole) for _ in parts[:-1]] == parts[:-1]
    with pytest.raises(EnvelopeError, match=r"\.$"):
        next(whole)


@given(st.lists(st.integers(0, BUNDLE_BYTES_MAX * 2), max_size=20))
def test_bundles_keep_the_order_and_a_sensible_size(sizes: list[int]) -> None:
    parts = [(number, bytes(size)) for number, size in enumerate(sizes)]
    bundles = list(bundles_of(parts))
    assert [part for bundle in bundles for part in bundle] == parts
    for bundle in bundles:
        assert bundle
        assert len(bundle) == 1 or len(pack_bundle(bundle)) <= BUNDLE_BYTES_MAX
    for one, following in itertools.pairwise(bundles):
        assert len(pack_bundle([*one, following[0]])) > BUNDLE_BYTES_MAX
