"""What a synchronous function returns, and what its caller gets: the "Results" of Netlify's behaviour."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.wire import PREFIX, Answer, exchange, request
from tests.system import Process, System

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = {
    # Returns what its body says, as JSON.
    "returns": """
        import json

        async def handler(event, context):
            return json.loads(event["body"])
    """,
    "raises": """
        def handler(event, context):
            raise KeyError("no such thing")
    """,
    "broken-import": "import nowhere_to_be_found\n\ndef handler(event, context): pass\n",
    "no-handler": "handler = None\n",
    "exits": """
        import os

        def handler(event, context):
            os._exit(3)
    """,
    "unjsonable": """
        def handler(event, context):
            return {"statusCode": 200, "headers": {"x-object": object()}}
    """,
    "slow": """
        import time

        config = {"timeout": 0.5}

        def handler(event, context):
            time.sleep(120)
    """,
    "large": """
        def handler(event, context):
            return {"statusCode": 200, "body": "x" * int(event["body"])}
    """,
}


@dataclass
class Gateways:
    """Two gateways before one runner, one of which tells where in its code a function failed."""

    system: System
    plain: Process
    exposing: Process

    async def post(
        self, name: str, body: str = "", *, method: str = "POST", exposing: bool = False
    ) -> Answer:
        gateway = self.exposing if exposing else self.plain
        data = request(f"{PREFIX}/{name}", method, "Content-Type: text/plain\r\n", body.encode())
        return await exchange(gateway.port, data)

    async def returns(self, result: Any, method: str = "POST") -> Answer:
        """The answer of a function that returns `result`."""
        return await self.post("returns", json.dumps(result), method=method)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["hypercorn", "granian"])
async def gateways(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateways]:
    async with System(tmp_path_factory.mktemp("results"), FUNCTIONS) as system:
        plain = await system.start_gateway("--server", request.param)
        exposing = await system.start_gateway("--server", request.param, "--expose-errors")
        await system.start_runner()
        yield Gateways(system, plain, exposing)


@dataclass(frozen=True, kw_only=True)
class Good:
    """A result and the answer that it makes. `headers`: values by name; None says that there is none."""

    result: dict[str, Any]
    status: int = 200
    body: bytes = b""
    headers: dict[str, list[str]] = field(default_factory=dict)


GOOD = {
    "text": Good(result={"statusCode": 201, "body": "é"}, status=201, body="é".encode()),
    "a status as text": Good(result={"statusCode": "404", "body": "no"}, status=404, body=b"no"),
    "a status as a float": Good(result={"statusCode": 200.0}),
    "no content type is invented": Good(
        result={"statusCode": 200, "body": "{}"}, body=b"{}", headers={"content-type": []}
    ),
    "base64": Good(result={"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}, body=b"\x00\xff"),
    "not base64": Good(result={"statusCode": 200, "body": "AP8=", "isBase64Encoded": False}, body=b"AP8="),
    "body null": Good(result={"statusCode": 200, "body": None}, headers={"content-length": ["0"]}),
    "body missing": Good(result={"statusCode": 200}, headers={"content-length": ["0"]}),
    "body empty": Good(result={"statusCode": 200, "body": ""}, headers={"content-length": ["0"]}),
    "204 has no body": Good(
        result={"statusCode": 204, "body": "x"}, status=204, headers={"content-length": []}
    ),
    "304 has no body": Good(result={"statusCode": 304, "body": "x"}, status=304),
    "headers": Good(
        result={"statusCode": 200, "headers": {"X-One": "1", "x-number": 2, "x-true": True, "x-null": None}},
        headers={"x-one": ["1"], "x-number": ["2"], "x-true": ["true"], "x-null": []},
    ),
    "several values": Good(
        result={"statusCode": 200, "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"]}},
        headers={"set-cookie": ["a=1", "b=2"]},
    ),
    "multiValueHeaders win for each name": Good(
        result={
            "statusCode": 200,
            "headers": {"X-A": "1", "x-b": "2"},
            "multiValueHeaders": {"x-a": ["3", "4"]},
        },
        headers={"x-a": ["3", "4"], "x-b": ["2"]},
    ),
    "what is the server's": Good(
        result={
            "statusCode": 200,
            "headers": {"Content-Length": "99", "Connection": "x", "X-Nf-Request-Id": "x"},
            "multiValueHeaders": {"Transfer-Encoding": ["chunked"]},
            "body": "abc",
        },
        body=b"abc",
        headers={"content-length": ["3"], "transfer-encoding": []},
    ),
    "599": Good(result={"statusCode": 599}, status=599),
}


@pytest.mark.parametrize("case", GOOD)
async def test_good_results(gateways: Gateways, case: str) -> None:
    good = GOOD[case]
    answer = await gateways.returns(good.result)
    assert (answer.status, answer.body, answer.rest) == (good.status, good.body, b"")
    assert {name: answer.values(name) for name in good.headers} == good.headers
    assert answer.values("x-nf-request-id") not in ([], ["x"])


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
async def test_head_has_the_headers_and_no_body(gateways: Gateways, status: int) -> None:
    result = {"statusCode": status, "headers": {"x-one": "1"}, "body": "body"}
    answer = await gateways.returns(result, "HEAD")
    assert (answer.status, answer.body, answer.rest, answer.values("x-one")) == (status, b"", b"", ["1"])


NO_RESULTS: tuple[Any, ...] = (None, "text", "", [], [200], 200, True, {})
NO_STATUSES: tuple[Any, ...] = (
    *(None, 0, "word", "", "0200", True, [200]),
    *(100, 101, 199, 200.5, 600, 1000, -200),
)
NO_BODIES: tuple[Any, ...] = (1, True, {"a": 1}, ["a"], 0, False, [], {})
NO_HEADERS: tuple[tuple[str, Any], ...] = (
    *(("x-a", "1\r\nx-injected: 1"), ("x-a", "1\nx-injected: 1"), ("x-a", "1\rx-injected: 1")),
    *(("x-a", "\0"), ("x-a\r\nx-injected", "1"), ("x a", "1"), ("", "1"), ("x:a", "1"), ("x-ä", "1")),
    ("x-a", {"b": 1}),
)
BAD: dict[str, Any] = {
    **{f"returned {value!r}": value for value in NO_RESULTS},
    **{f"the status {status!r}": {"statusCode": status} for status in NO_STATUSES},
    **{f"the body {body!r}": {"statusCode": 200, "body": body} for body in NO_BODIES},
    "bad base64": {"statusCode": 200, "body": "!", "isBase64Encoded": True},
    **{
        f"the header {name!r}: {value!r}": {"statusCode": 200, "headers": {name: value}}
        for name, value in NO_HEADERS
    },
    "headers that are no object": {"statusCode": 200, "headers": [["x-a", "1"]]},
    "an injected value among several": {
        "statusCode": 200,
        "multiValueHeaders": {"x-a": ["1", "2\r\nx-injected: 1"]},
    },
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_results_are_500_and_nothing_is_injected(gateways: Gateways, case: str) -> None:
    answer = await gateways.returns(BAD[case])
    assert (answer.status, answer.rest) == (500, b"")
    assert answer.values("content-type") == ["application/json"]
    assert answer.json.keys() == {"errorType", "errorMessage"}
    assert answer.json["errorType"] == "InvalidResult"
    assert answer.values("x-injected") == answer.values("x-a") == []


ERRORS = {
    "raises": ("KeyError", "'no such thing'"),
    "broken-import": ("ModuleNotFoundError", "No module named 'nowhere_to_be_found'"),
    "no-handler": ("HandlerNotFound", "no-handler.py has no function `handler(event, context)`"),
    "exits": ("Crashed", "The worker exited with status 3 before the handler returned."),
    "unjsonable": ("InvalidResult", ""),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_is_500_with_its_type_and_message(gateways: Gateways, name: str) -> None:
    answer = await gateways.post(name)
    kind, message = ERRORS[name]
    assert (answer.status, answer.values("content-type")) == (500, ["application/json"])
    assert answer.json.keys() == {"errorType", "errorMessage"}
    assert answer.json["errorType"] == kind
    assert message in answer.json["errorMessage"]


async def test_where_in_its_code_it_failed_is_told_only_if_the_operator_wants_it(gateways: Gateways) -> None:
    answer = await gateways.post("raises", exposing=True)
    assert answer.json.keys() == {"errorType", "errorMessage", "trace"}
    trace = "\n".join(answer.json["trace"])
    assert "raises.py" in trace
    assert 'raise KeyError("no such thing")' in trace
    assert "trace" not in (await gateways.post("raises")).json
    assert "raises.py" not in (await gateways.post("raises")).body.decode()


async def test_an_error_has_no_body_for_head(gateways: Gateways) -> None:
    answer = await gateways.post("raises", method="HEAD")
    assert (answer.status, answer.body, answer.rest) == (500, b"", b"")


async def test_past_its_limit_it_is_504(gateways: Gateways) -> None:
    answer = await gateways.post("slow")
    assert (answer.status, answer.values("content-type")) == (504, ["application/problem+json"])
    assert (answer.json["code"], answer.json["detail"]) == ("timed_out", "Task timed out after 0.50 seconds")


async def test_a_response_may_have_six_mebibytes_and_no_byte_more(gateways: Gateways) -> None:
    answer = await gateways.post("large", "6291456")
    assert (answer.status, len(answer.body)) == (200, 6_291_456)
    answer = await gateways.post("large", "6291457")
    assert (answer.status, answer.json["errorType"]) == (500, "ResponseTooLarge")
