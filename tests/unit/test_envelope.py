"""Envelopes: what goes in comes out; what is none is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.errors import EnvelopeError, UnknownVersion
from quarterhour.function import Mode
from quarterhour.invocation import (
    EARLIER_ERRORS_MAX,
    Invocation,
    Request,
    decode_invocation,
    encode_invocation,
    next_attempt,
    pack,
    unpack,
)
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Response, Succeeded, TimedOut
from quarterhour.reply import Refusal, Refused, Reply, decode_reply, encode_reply

TEXT = st.text(st.characters(codec="latin-1"), max_size=40)
INVOCATIONS = st.builds(
    Invocation,
    id=st.uuids().map(str),
    function=st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
    mode=st.sampled_from(Mode),
    attempt=st.integers(1, 100),
    accepted_at=st.floats(0, 4e9),
    due_at=st.floats(0, 4e9),
    request=st.builds(
        Request,
        method=TEXT,
        path=TEXT,
        query=TEXT,
        headers=st.lists(st.tuples(TEXT, TEXT), max_size=5).map(tuple),
        client=TEXT,
        params=st.dictionaries(TEXT, TEXT, max_size=3),
    ),
    body=st.none() | st.binary(max_size=200),
    trace=st.none() | TEXT,
    errors=st.lists(st.builds(Error, type=TEXT, message=TEXT), max_size=3).map(tuple),
)


@given(INVOCATIONS)
def test_an_invocation_survives_its_envelope(invocation: Invocation) -> None:
    assert decode_invocation(encode_invocation(invocation)) == invocation


@given(INVOCATIONS)
def test_the_header_has_params_only_if_there_are_any(invocation: Invocation) -> None:
    header, _ = unpack(encode_invocation(invocation))
    assert header.get("params") == (invocation.request.params or None)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_envelope_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(EnvelopeError, match=r"\.$"):
        decode_invocation(data)


@given(INVOCATIONS, st.data())
def test_a_cut_envelope_is_refused_or_shorter(invocation: Invocation, data: st.DataObject) -> None:
    whole = encode_invocation(invocation)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with suppress(EnvelopeError):
        assert decode_invocation(cut) != invocation


def test_an_unknown_version_is_not_guessed_at() -> None:
    with pytest.raises(UnknownVersion, match="has version 3"):
        decode_invocation(pack({"v": 3}, b""))


def test_the_body_is_carried_untouched() -> None:
    body = bytes(range(256)) * 10
    assert unpack(pack({"a": 1}, body)) == ({"a": 1}, body)


def test_the_next_attempt_carries_the_errors_so_far_without_their_traces() -> None:
    invocation = Invocation(
        id="i",
        function="f",
        mode=Mode.BACKGROUND,
        attempt=1,
        accepted_at=1.0,
        due_at=1.0,
        request=Request(method="POST", path="/"),
        body=b"x",
    )
    for number in range(1, EARLIER_ERRORS_MAX + 3):
        error = Error(type="E", message=str(number), trace=("line",))
        invocation = next_attempt(invocation, due_at=float(number), error=error)
    assert invocation.attempt == EARLIER_ERRORS_MAX + 3
    assert invocation.due_at == EARLIER_ERRORS_MAX + 2
    assert [error.message for error in invocation.errors] == [
        str(number) for number in range(3, EARLIER_ERRORS_MAX + 3)
    ]
    assert all(error.trace == () for error in invocation.errors)


@pytest.mark.parametrize(
    "reply",
    [
        Succeeded(response=Response(status=201, headers=(("a", "1"), ("a", "2")), body=b"\x00\xff")),
        Failed(error=Error(type="T", message="m", trace=("t",))),
        TimedOut(limit_s=1.5),
        Cancelled(),
        Refused(reason=Refusal.BUSY),
        Refused(reason=Refusal.DRAINING),
    ],
)
def test_a_reply_survives_its_envelope(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


def test_a_crash_arrives_as_a_failure_that_says_so() -> None:
    reply = decode_reply(encode_reply(Crashed(signal="SIGKILL")))
    assert isinstance(reply, Failed)
    assert reply.error.type == "Crashed"
    assert "SIGKILL" in reply.error.message


@pytest.mark.parametrize("header", [{}, {"result": "?"}, {"result": "succeeded"}, {"result": "failed"}])
def test_a_garbled_reply_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(EnvelopeError):
        decode_reply(pack(header, b""))
