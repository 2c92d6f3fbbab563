"""What is an idempotency key, and what tells two requests with the same key apart."""

from dataclasses import replace

import pytest

from gateway.idempotency import LENGTH_MAX, key_of, key_text
from gateway.problems import Code, Problem
from tests.broker.worlds import invocation


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        (b'"8e03978e"', "8e03978e"),
        (b"8e03978e", "8e03978e"),
        (b" x ", "x"),
        (b'"order 17, paid"', "order 17, paid"),
        (rb'"a\"b\\c"', r"a\"b\c".replace(r"\"", '"')),
        (b"!#$%&'*+-./:;<=>?@[]^_`{|}~\\", "!#$%&'*+-./:;<=>?@[]^_`{|}~\\"),
        (b"x" * LENGTH_MAX, "x" * LENGTH_MAX),
        (b'"' + b"x" * LENGTH_MAX + b'"', "x" * LENGTH_MAX),
    ],
)
def test_a_key(value: bytes, key: str) -> None:
    assert key_text([value]) == key


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b'""'],
        [b'"'],
        [b'"x'],
        [b'x"'],
        [b'"x";a=1'],
        [rb'"x\y"'],
        [b"a b"],
        [b"a, b"],
        [b"gr\xfc\xdfe"],
        [b"x" * (LENGTH_MAX + 1)],
        [b"a", b"a"],
        [b"a", b"b"],
    ],
)
def test_no_key(values: list[bytes]) -> None:
    problem = key_text(values)
    assert isinstance(problem, Problem)
    assert problem.code is Code.BAD_IDEMPOTENCY_KEY


def test_no_header_is_no_key() -> None:
    assert key_text([]) is None


def test_what_tells_requests_apart() -> None:
    first = invocation()
    request = first.request
    same = replace(invocation(), request=replace(request, headers=(), client="10.0.0.1"))
    assert key_of("k", same, b"x") == key_of("k", first, b"x")
    others = [
        replace(first, function="other"),
        replace(first, request=replace(request, method="PUT")),
        replace(first, request=replace(request, path=request.path + "/")),
        replace(first, request=replace(request, query="")),
    ]
    keys = [key_of("k", each, b"x") for each in (first, *others)]
    keys.append(key_of("k", first, b"y"))
    assert len({key.fingerprint for key in keys}) == 2 + len(others)
