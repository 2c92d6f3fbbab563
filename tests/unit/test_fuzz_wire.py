# ruff: noqa: E501
"""Bytes from the broker that nobody of ours has written: refused in words, or read as what they are."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.response import outcome_answer, wire_headers
from quarterhour.broker.nats.bundle import unpack_bundle
from quarterhour.errors import EnvelopeError
from quarterhour.function import Mode
from quarterhour.invocation import decode_invocation, encode_invocation, pack
from quarterhour.outcome import Failed, Succeeded
from quarterhour.record import decode_record, encode_record
from quarterhour.reply import Chunk, Refused, Streaming, decode_piece, decode_reply, encode_piece
from runner.judge import judge, judge_end, judge_head
from tests.fuzzing import BUDGET

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
CLAIM = {"kind": "request", "id": "i", "size_bytes": 5, "pieces": 1}
INVOCATION = {
    "v": 1, "id": "i", "function": "f", "mode": "background", "attempt": 1, "accepted_at": 1.0, "due_at": 1.0,
    "method": "GET", "path": "/", "query": "", "headers": [["a", "b"]], "client": "", "scheme": "http",
    "has_body": False, "trace": None, "errors": [{"type": "E", "message": "m"}], "params": {"a": "b"},
}  # fmt: skip
RECORD = {
    "v": 1, "id": "i", "function": "f", "mode": "background", "state": "dead", "attempt": 1,
    "accepted_at": 1.0, "due_at": 1.0, "started_at": 1.0, "finished_at": 1.0, "next_attempt_at": None, "reason": "failed",
    "result": "1", "notes": ["r"],
    "attempts": [{"attempt": 1, "started_at": 1.0, "finished_at": 1.0, "outcome": "failed",
                  "error": {"type": "E", "message": "m", "trace": ["t"]}, "logs": "", "runner": "r"}],
}  # fmt: skip
REPLIES: list[dict[str, Any]] = [
    {"result": "succeeded", "status": 200, "headers": [["a", "b"]]},
    {"result": "succeeded", "status": 200, "headers": [], "claim": CLAIM},
    {"result": "streaming", "status": 200, "headers": [["a", "b"]]},
    {"result": "timed_out", "limit_s": 1.5},
    {"result": "failed", "error": {"type": "E", "message": "m", "trace": ["t"]}},
    {"result": "refused", "reason": "busy"},
    {"result": "chunk"},
    {"result": "cancelled"},
]


@st.composite
def garbled(draw: st.DrawFn, *values: Any) -> Any:
    """One of these JSON objects, with something in it replaced or left out."""
    value = orjson.loads(orjson.dumps(draw(st.sampled_from(values))))
    at = value
    while True:
        key = draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        if draw(st.booleans()):
            at[key] = draw(JSON)
        else:
            del at[key]
        return value


@BUDGET
@given(garbled(INVOCATION, {**INVOCATION, "v": 2, "claim": CLAIM}))
@example({**INVOCATION, "v": []})
def test_a_garbled_invocation_is_refused_or_can_be_sent_on(header: Any) -> None:
    try:
        invocation = decode_invocation(pack(header, b""))
    except EnvelopeError:
        return
    assert decode_invocation(encode_invocation(invocation)) == invocation
    assert isinstance(invocation.attempt, int)
    assert isinstance(invocation.due_at + invocation.accepted_at, int | float)
    assert isinstance(
        invocation.id + invocation.function + invocation.request.method + invocation.request.path, str
    )


@BUDGET
@given(
    st.binary(max_size=64)
    | st.tuples(JSON, st.binary(max_size=9)).map(lambda both: orjson.dumps(both[0]) + both[1])
)
def test_bytes_are_a_record_or_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError, match=r"\.$"):
        decode_record(data, revision=1)


@BUDGET
@given(garbled(RECORD))
def test_a_garbled_record_is_refused_or_can_be_stored_again(fields: Any) -> None:
    try:
        record = decode_record(orjson.dumps(fields), revision=1)
    except EnvelopeError:
        return
    assert decode_record(encode_record(record), revision=1) == record


@BUDGET
@given(st.binary(max_size=64))
def test_bytes_are_a_piece_of_a_reply_or_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError, match=r"\.$"):
        decode_piece(data)


@BUDGET
@given(garbled(*REPLIES), st.binary(max_size=9))
@example({"result": "succeeded", "status": "200", "headers": []}, b"")
@example({"result": "succeeded", "status": 200, "headers": [["a", 1]]}, b"")
@example({"result": "succeeded", "status": 99, "headers": []}, b"")
@example({"result": "timed_out", "limit_s": "1"}, b"")
@example({"result": "failed", "error": {"type": 1, "message": "m"}}, b"")
@example({"result": "streaming", "status": None, "headers": []}, b"")
def test_a_garbled_reply_is_refused_or_can_be_answered(header: Any, body: bytes) -> None:
    try:
        piece = decode_piece(pack(header, body))
    except EnvelopeError:
        return
    assert decode_piece(encode_piece(piece)) == piece
    if isinstance(piece, Streaming):
        piece = Succeeded(response=piece.head)
    if not isinstance(piece, Chunk | Refused):
        answer = outcome_answer(piece, expose_errors=True, body_bytes_max=100)
        assert 200 <= answer.status <= 599
        for name, value in wire_headers(answer, request_id="i"):
            assert isinstance(name + value, bytes)


@BUDGET
@given(st.binary(max_size=64))
def test_bytes_are_a_bundle_up_to_where_they_are_none(data: bytes) -> None:
    size = 0
    try:
        for _, part in unpack_bundle(data):
            size += 12 + len(part)
    except EnvelopeError:
        assert size < len(data)
    else:
        assert size == len(data)


FRAMES: list[dict[str, Any]] = [
    {
        "kind": "returned",
        "shape": "object",
        "statusCode": 200,
        "headers": {"a": "b"},
        "multiValueHeaders": {"c": ["d"]},
        "body": "text",
    },
    {"kind": "streaming", "statusCode": 200, "headers": {"a": "b"}, "multiValueHeaders": None},
    {
        "kind": "raised",
        "error": {"type": "E", "message": "m", "trace": ["t"]},
        "retry": True,
        "retry_after_s": 1.0,
        "out_of_memory": False,
    },
]


@BUDGET
@given(garbled(*FRAMES), st.binary(max_size=20), st.sampled_from(Mode), st.sampled_from(["fail", "ignore"]))
def test_whatever_a_worker_says_is_an_outcome_that_can_be_sent(
    header: Any, body: bytes, mode: Mode, status: Any
) -> None:
    outcomes = [judge(header, body, mode=mode, returned_status=status), judge_end(header, body)]
    head = judge_head(header)
    outcomes.append(head if isinstance(head, Failed) else Succeeded(response=head))
    for outcome in outcomes:
        assert decode_reply(encode_piece(outcome)).result  # type: ignore[union-attr]
        answer = outcome_answer(outcome, expose_errors=True, body_bytes_max=100)
        for name, value in wire_headers(answer, request_id="i"):
            assert not set(b"\r\n\0") & set(name + value)
