"""The event of Python functions: the vectors that every runtime shares, and what JSON cannot say."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request, encode_invocation, unpack
from runner.sandbox.python.event import make_event

VECTORS = Path(__file__).parent.parent / "vectors" / "events.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
KEYS = {
    "path",
    "httpMethod",
    "queryStringParameters",
    "multiValueQueryStringParameters",
    "headers",
    "multiValueHeaders",
    "body",
    "isBase64Encoded",
    "rawUrl",
    "rawQuery",
}


def body_of(case: dict[str, Any]) -> bytes | None:
    if "body_base64" in case:
        return base64.b64decode(case["body_base64"])
    return case["body"].encode() if "body" in case else None


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_vectors(case: dict[str, Any]) -> None:
    event = make_event(case["request"], body_of(case))
    assert {key: event[key] for key in case["event"]} == case["event"]


def event_of(body: bytes | None = None, **request: Any) -> dict[str, Any]:
    """The event of a request, by way of the envelope in which it reaches the worker."""
    invocation = Invocation(
        id="1",
        function="hello",
        mode=Mode.SYNCHRONOUS,
        attempt=1,
        accepted_at=0,
        due_at=0,
        request=Request(**{"method": "GET", "path": "/.netlify/functions/hello", **request}),
        body=body,
    )
    header, rest = unpack(encode_invocation(invocation))
    return make_event(header, rest if header["has_body"] else None)


def test_an_event_has_netlifys_keys_and_no_others() -> None:
    assert set(event_of()) == KEYS


def test_an_envelope_keeps_the_difference_between_no_body_and_an_empty_one() -> None:
    assert event_of(None)["body"] is None
    assert event_of(b"")["body"] == ""


def test_a_large_binary_body_comes_back_whole() -> None:
    body = bytes(range(256)) * 1024
    event = event_of(body, method="POST", headers=(("content-type", "image/png"),))
    assert base64.b64decode(event["body"], validate=True) == body


LATIN_1 = st.text(st.characters(max_codepoint=255))


@given(query=LATIN_1, headers=st.lists(st.tuples(LATIN_1, LATIN_1)), body=st.none() | st.binary())
def test_whatever_is_sent_becomes_an_event_that_is_json(
    query: str, headers: list[tuple[str, str]], body: bytes | None
) -> None:
    event = event_of(body, query=query, headers=tuple(headers))
    assert json.loads(json.dumps(event)) == event
    assert event["headers"].keys() == event["multiValueHeaders"].keys() == {name for name, _ in headers}
    assert sum(map(len, event["multiValueHeaders"].values())) == len(headers)


@given(content_type=LATIN_1, body=st.binary(min_size=1))
def test_no_content_type_loses_a_body(content_type: str, body: bytes) -> None:
    event = event_of(body, headers=(("content-type", content_type),))
    if event["isBase64Encoded"]:
        assert base64.b64decode(event["body"], validate=True) == body
    else:
        assert event["body"] is not None


@given(charset=LATIN_1 | st.sampled_from(["utf-8", "utf-7", "utf-16", "idna", "rot13", "hex", "mbcs", "oem"]))
def test_no_charset_makes_trouble(charset: str) -> None:
    event = event_of(b"Zo\xc3\xab", headers=(("content-type", f"text/plain; charset={charset}"),))
    assert isinstance(event["body"], str)
