"""What a function sees of its request, socket to handler: the "Requests" of Netlify's behaviour."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.wire import PREFIX, exchange, request
from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_BYTES_MAX = 6_291_456

ECHO = """
    import json

    def handler(event, context):
        said = {name: getattr(context, name) for name in dir(context) if not name.startswith("_")}
        shown = {name: value for name, value in said.items() if not callable(value)}
        shown["remaining"] = [context.getRemainingTimeInMillis(), context.get_remaining_time_in_millis()]
        body = json.dumps({"event": event, "context": shown})
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": body}
"""
FUNCTIONS = {
    "echo": ECHO,
    "folder/folder": ECHO,
    "indexed/index": ECHO,
    "Case_1-x": ECHO,
    "background": ECHO,  # the suffix alone is none, and so are the next two
    "echo-Background": ECHO,
    "echo-background-2": ECHO,
    "quiet-background": "def handler(event, context): pass",
    "size": """
        def handler(event, context):
            return {"statusCode": 200, "body": f"{len(event['body'])} {event['isBase64Encoded']}"}
    """,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["hypercorn", "granian"])
async def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("requests"), FUNCTIONS) as system:
        await system.start_gateway("--server", request.param)
        await system.start_runner()
        yield system


def port_of(system: System) -> int:
    assert system.gateway is not None
    return system.gateway.port


async def echoed(system: System, data: bytes) -> dict[str, Any]:
    """The event that the function got."""
    answer = await exchange(port_of(system), data)
    assert answer.status == 200, answer
    event: dict[str, Any] = answer.json["event"]
    return event


@pytest.mark.parametrize("name", ["echo", "folder", "indexed", "Case_1-x"])
async def test_a_file_or_a_folder_is_a_function(system: System, name: str) -> None:
    assert (await echoed(system, request(f"{PREFIX}/{name}")))["path"] == f"{PREFIX}/{name}"


@pytest.mark.parametrize("name", ["background", "echo-Background", "echo-background-2"])
async def test_only_the_very_suffix_makes_a_background_function(system: System, name: str) -> None:
    assert (await exchange(port_of(system), request(f"{PREFIX}/{name}"))).status == 200


@pytest.mark.parametrize(
    "rest", ["/", "/a/b", "//", "//a//", "%2F", "%2fa", "/%zz", "/a;b=1/%C3%A9", "/echo"]
)
async def test_any_path_below_reaches_the_function_as_it_is(system: System, rest: str) -> None:
    event = await echoed(system, request(f"{PREFIX}/echo{rest}?q=1"))
    assert event["path"] == f"{PREFIX}/echo{rest}"
    assert event["rawUrl"] == f"http://example.org{PREFIX}/echo{rest}?q=1"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        *("/missing", "/missing-background", "/Echo", "/ECHO", "/echo.py", "/ech%6F", "", "/", "//echo"),
        *("/..", "/../echo", "/%2e%2e", "/*", "/%3E", "/echo%00", "/echo%20", "/ech*", "/" + "a" * 300),
        *("/folder.folder", "/quiet-Background", "/_background", "/echo%2Epy", "/$JS.API"),
    ],
)
async def test_what_is_no_function_is_not_found(system: System, path: str, method: str) -> None:
    answer = await exchange(port_of(system), request(PREFIX + path, method))
    assert (answer.status, answer.body, answer.rest) == (404, b"Function not found...", b"")


@pytest.mark.parametrize("path", ["/ech o", "/echo>", "/echo\x00", "/echo\x7f", "/>", "/\xf6"])
async def test_what_is_no_address_never_reaches_a_function(system: System, path: str) -> None:
    answer = await exchange(port_of(system), request(PREFIX + path))
    assert answer.status in {400, 404}  # servers differ on whether it is HTTP at all


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "M-1"]
)
async def test_every_method_runs_the_function(system: System, method: str) -> None:
    answer = await exchange(port_of(system), request(f"{PREFIX}/echo", method, "Origin: http://x\r\n"))
    assert answer.status == 200
    assert answer.json["event"]["httpMethod"] == method
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]


async def test_head_runs_the_function_and_sends_no_body(system: System) -> None:
    before = await system.metric("quarterhour_outcomes_total", function="folder", result="succeeded")
    answer = await exchange(port_of(system), request(f"{PREFIX}/folder", "HEAD"))
    assert (answer.status, answer.body, answer.rest) == (200, b"", b"")
    assert answer.values("content-type") == ["application/json"]
    after = await system.metric("quarterhour_outcomes_total", function="folder", result="succeeded")
    assert after == before + 1


QUERIES: dict[str, tuple[dict[str, str], dict[str, list[str]]]] = {
    "a=1&a=2&b=%20x+y&c": (
        {"a": "1, 2", "b": " x y", "c": ""},
        {"a": ["1", "2"], "b": [" x y"], "c": [""]},
    ),
    "": ({}, {}),
    "x[]=1&x[]=2": ({"x[]": "1, 2"}, {"x[]": ["1", "2"]}),
    "a=1;b=2": ({"a": "1;b=2"}, {"a": ["1;b=2"]}),
    "z=%zz": ({"z": "%zz"}, {"z": ["%zz"]}),
    "n=%C3%A9&%C3%A9=1": ({"n": "é", "é": "1"}, {"n": ["é"], "é": ["1"]}),
    "a=b=c?d": ({"a": "b=c?d"}, {"a": ["b=c?d"]}),
}


@pytest.mark.parametrize("query", QUERIES)
async def test_the_query(system: System, query: str) -> None:
    event = await echoed(system, request(f"{PREFIX}/echo?{query}"))
    single, lists = QUERIES[query]
    assert event["queryStringParameters"] == single
    assert event["multiValueQueryStringParameters"] == lists
    assert event["rawQuery"] == query


HEADERS: dict[str, tuple[str, str, list[str]]] = {
    "lower case": ("X-MiXed: A b", "x-mixed", ["A b"]),
    "repeated": ("X-One: 1\r\nx-one: 2", "x-one", ["1", "2"]),
    "empty": ("X-Empty:", "x-empty", [""]),
    "latin": ("X-Latin: caf\xe9", "x-latin", ["caf\xe9"]),
    "cookies": ("Cookie: a=1\r\nCookie: b=2", "cookie", ["a=1", "b=2"]),
    "not believed": (
        "X-Nf-Function-Name: other\r\nX-Netlify-Original-Pathname: /p",
        "x-nf-function-name",
        ["other"],
    ),
    "client-ip": ("Client-IP: 6.6.6.6", "client-ip", ["127.0.0.1"]),
    "x-nf-client": ("X-NF-Client-Connection-IP: 6.6.6.6", "x-nf-client-connection-ip", ["127.0.0.1"]),
    "forwarded": ("X-Forwarded-For: 6.6.6.6", "client-ip", ["127.0.0.1"]),
}


@pytest.mark.parametrize("case", HEADERS)
async def test_headers(system: System, case: str) -> None:
    lines, name, values = HEADERS[case]
    event = await echoed(system, request(f"{PREFIX}/echo", headers=f"{lines}\r\n"))
    assert event["multiValueHeaders"][name] == values
    assert event["headers"][name] == ("; " if name == "cookie" else ", ").join(values)
    assert event["headers"].keys() == event["multiValueHeaders"].keys()
    assert event["path"] == f"{PREFIX}/echo"


async def test_the_request_id_is_the_invocations(system: System) -> None:
    answers = [
        await exchange(port_of(system), request(f"{PREFIX}/echo", headers="X-Nf-Request-Id: made-up\r\n"))
        for _ in range(2)
    ]
    for answer in answers:
        (id,) = answer.values("x-nf-request-id")
        assert answer.json["event"]["headers"]["x-nf-request-id"] == id
        assert answer.json["context"]["awsRequestId"] == answer.json["context"]["aws_request_id"] == id
    assert answers[0].values("x-nf-request-id") != answers[1].values("x-nf-request-id")


async def test_the_keys_of_the_event(system: System) -> None:
    event = await echoed(system, request(f"{PREFIX}/echo"))
    keys = "path httpMethod queryStringParameters multiValueQueryStringParameters headers multiValueHeaders"
    assert set(event) == {*keys.split(), "body", "isBase64Encoded", "rawUrl", "rawQuery"}


async def test_the_context(system: System) -> None:
    answer = await exchange(port_of(system), request(f"{PREFIX}/echo"))
    context = answer.json["context"]
    assert context["functionName"] == context["function_name"] == "echo"
    assert context["memoryLimitInMB"] == context["memory_limit_in_mb"] == 512
    assert context["attempt"] == 1
    assert all(50_000 < left <= 60_000 for left in context["remaining"])
    names = "functionVersion invokedFunctionArn logGroupName logStreamName identity clientContext"
    assert {*names.split(), "callbackWaitsForEmptyEventLoop"} <= set(context)


TEXT_TYPES = [
    *("text/plain", "text/html; charset=utf-8", "TEXT/CSV", "application/problem+json", "image/svg+xml"),
    *("application/json", "application/javascript", "application/graphql", "application/xml"),
    *("application/x-www-form-urlencoded", "application/x-ndjson", "application/csp-report"),
]


@pytest.mark.parametrize("content_type", TEXT_TYPES)
async def test_text_is_the_body_as_it_came(system: System, content_type: str) -> None:
    body = '{"a": "é"}'
    data = request(f"{PREFIX}/echo", "POST", f"Content-Type: {content_type}\r\n", body.encode())
    event = await echoed(system, data)
    assert (event["body"], event["isBase64Encoded"]) == (body, False)


OTHER_TYPES = [
    "application/octet-stream",
    "multipart/form-data; boundary=x",
    "image/png",
    "application/jsonx",
    "",
]


@pytest.mark.parametrize("content_type", OTHER_TYPES)
async def test_everything_else_is_base64(system: System, content_type: str) -> None:
    headers = f"Content-Type: {content_type}\r\n" if content_type else ""
    event = await echoed(system, request(f"{PREFIX}/echo", "POST", headers, b"\x00\xff plain"))
    assert (event["body"], event["isBase64Encoded"]) == ("AP8gcGxhaW4=", True)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("", None),
        ("Content-Type: text/plain\r\n", None),
        ("Content-Length: 0\r\n", ""),
        ("Content-Type: image/png\r\nContent-Length: 0\r\n", ""),
    ],
)
async def test_no_body_and_an_empty_one(system: System, framing: str, body: str | None) -> None:
    event = await echoed(system, request(f"{PREFIX}/echo", "POST", framing))
    assert (event["body"], event["isBase64Encoded"]) == (body, False)


def chunked(body: bytes, piece: int = 65_536) -> bytes:
    pieces = (body[start : start + piece] for start in range(0, len(body), piece))
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n\r\n"


async def test_a_chunked_body_arrives_whole(system: System) -> None:
    headers = "Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\n"
    data = request(f"{PREFIX}/echo", "POST", headers) + chunked(b"0123456789", piece=3)
    assert (await echoed(system, data))["body"] == "0123456789"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("name", ["size", "quiet-background"])
async def test_a_body_may_have_six_mebibytes_and_no_byte_more(
    system: System, name: str, framing: str
) -> None:
    async def status(size: int) -> tuple[int, Any]:
        body, path = b"x" * size, f"{PREFIX}/{name}"
        if framing == "length":
            data = request(path, "POST", "Content-Type: text/plain\r\n", body)
        else:
            headers = "Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\n"
            data = request(path, "POST", headers) + chunked(body)
        answer = await exchange(port_of(system), data)
        return answer.status, answer.body

    good = (200, b"6291456 False") if name == "size" else (202, b"")
    assert await status(BODY_BYTES_MAX) == good
    too_large, problem = await status(BODY_BYTES_MAX + 1)
    assert (too_large, json.loads(problem)["code"]) == (413, "body_too_large")
