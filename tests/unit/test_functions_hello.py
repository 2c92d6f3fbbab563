"""The example function `hello`."""

import json

import pytest

from tests.unit.functions import INVOCATION, call, load


@pytest.mark.parametrize(
    ("query", "body", "greeting"),
    [
        ({}, None, "Hello, world!"),
        ({"name": "Ada"}, None, "Hello, Ada!"),
        ({"name": "Ada"}, '{"name": "Bob"}', "Hello, Ada!"),
        ({"name": ""}, '{"name": "Bob"}', "Hello, Bob!"),
        ({}, '{"name": "Bób"}', "Hello, Bób!"),
        ({}, "", "Hello, world!"),
        ({}, "{}", "Hello, world!"),
        ({}, "no json", "Hello, world!"),
        ({}, '["Bob"]', "Hello, world!"),
        ({}, "5", "Hello, world!"),
        ({}, b"\xff", "Hello, world!"),
    ],
)
def test_it_greets(query: dict[str, str], body: str | bytes | None, greeting: str) -> None:
    answer = call(load("hello"), body, queryStringParameters=query)
    assert answer["statusCode"] == 200
    assert answer["headers"] == {"content-type": "application/json"}
    assert json.loads(answer["body"]) == {
        "message": greeting,
        "invocation": INVOCATION,
        "milliseconds_left": 59_000,
    }
