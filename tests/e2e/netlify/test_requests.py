"""What a function sees of its request: "Requests"."""

from typing import Any

import pytest

from tests.e2e.netlify.rows import row
from tests.e2e.netlify.sites import JSON, TEXT, Site, Sites
from tests.e2e.wire import PREFIX, Answer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY_BYTES_MAX = 6_291_456


async def event_of(site: Site, rest: str = "", **more: Any) -> dict[str, Any]:
    """The event of a call of `echo`."""
    event: dict[str, Any] = (await site.seen("echo", rest, **more))["event"]
    return event


@row("route")
@pytest.mark.parametrize(
    "rest",
    ["", "/", "//", "/a/b", "//a//", "%2F", "%2fa", "/%zz", "/a;b=1/%C3%A9", "/a%20b", "/../echo", "/."],
)
async def test_whatever_follows_the_name_reaches_the_function(site: Site, rest: str) -> None:
    assert (await event_of(site, f"{rest}?x=1"))["path"] == f"{PREFIX}/echo{rest}"


@row("not-found")
@pytest.mark.parametrize(
    "rest",
    [
        *("/missing", "/missing-background", "/Echo", "/ECHO", "/echo.py", "/echo.js", "/ech%6F", "/e%63ho"),
        *("", "/", "//echo", "/%2Fecho", "/echo.", "/x-Background-", "/Notes-background", "/echo%20"),
    ],
)
async def test_what_is_no_function_is_not_found(site: Site, rest: str) -> None:
    for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "BREW"):
        answer = await site.send(request(PREFIX + rest, method))
        assert (answer.status, answer.rest) == (404, b""), method
        assert answer.body == (b"" if method == "HEAD" else b"Function not found...")


@row("methods", "cors")
@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "M-1"]
)
async def test_every_method_runs_the_function(site: Site, method: str) -> None:
    assert (await event_of(site, method=method))["httpMethod"] == method


@row("head")
async def test_head_runs_the_function_and_gets_no_body(site: Site) -> None:
    answer = await site.call("echo", "?note=head", method="HEAD")
    assert (answer.status, answer.body, answer.rest) == (200, b"", b"")
    assert answer.values("content-type") == ["application/json"]
    assert site.noted("head") == ["HEAD"]


@row("cors")
async def test_a_preflight_is_a_request_like_others(site: Site) -> None:
    headers = "Origin: http://a.example\r\nAccess-Control-Request-Method: PUT\r\n"
    answer = await site.call("echo", method="OPTIONS", headers=headers)
    assert answer.json["event"]["httpMethod"] == "OPTIONS"
    added = {name for name, _ in answer.headers if name.startswith("access-control") or name == "vary"}
    assert not added


def chunked(body: bytes) -> bytes:
    pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def send_body(site: Site, name: str, body: bytes, framing: str) -> Answer:
    if framing == "length":
        return await site.call(name, method="POST", headers=TEXT, body=body)
    head = request(site.path(name), "POST", f"{TEXT}Transfer-Encoding: chunked\r\n")
    return await site.send(head + chunked(body))


@row("body-limit")
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_may_have_six_mebibytes_and_no_byte_more(site: Site, framing: str) -> None:
    body = b"x" * BODY_BYTES_MAX
    answer = await send_body(site, "measures", body, framing)
    assert (answer.status, answer.body) == (200, b"6291456 false")
    answer = await send_body(site, "measures", body + b"x", framing)
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


@row("body-limit")
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_and_so_may_that_of_a_background_function(site: Site, framing: str) -> None:
    body = b"x" * BODY_BYTES_MAX
    answer = await send_body(site, "measures-background", body, framing)
    assert (answer.status, answer.body) == (202, b"")
    (identity,) = answer.values("x-nf-request-id")
    assert (await site.end(identity))["state"] == "succeeded"
    assert site.noted(identity) == [BODY_BYTES_MAX]
    answer = await send_body(site, "measures-background", body + b"x", framing)
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")


QUERIES: dict[str, tuple[dict[str, str], dict[str, list[str]]]] = {
    "?a=1&a=2&b=%20x+y&c": (
        {"a": "1, 2", "b": " x y", "c": ""},
        {"a": ["1", "2"], "b": [" x y"], "c": [""]},
    ),
    "": ({}, {}),
    "?": ({}, {}),
    "?x[]=1&x[]=2&y[k]=3": ({"x[]": "1, 2", "y[k]": "3"}, {"x[]": ["1", "2"], "y[k]": ["3"]}),
    "?a=1;b=2": ({"a": "1;b=2"}, {"a": ["1;b=2"]}),
    "?z=%zz&p=100%": ({"z": "%zz", "p": "100%"}, {"z": ["%zz"], "p": ["100%"]}),
    "?n=%C3%A9&%C3%A9=1": ({"n": "é", "é": "1"}, {"n": ["é"], "é": ["1"]}),
    "?a=b=c?d": ({"a": "b=c?d"}, {"a": ["b=c?d"]}),
    "?__proto__=1&constructor=2": (
        {"__proto__": "1", "constructor": "2"},
        {"__proto__": ["1"], "constructor": ["2"]},
    ),
}


@row("query")
@pytest.mark.parametrize("query", QUERIES)
async def test_the_query(site: Site, query: str) -> None:
    event = await event_of(site, query)
    single, lists = QUERIES[query]
    assert event["queryStringParameters"] == single
    assert event["multiValueQueryStringParameters"] == lists
    assert event["rawQuery"] == query.removeprefix("?")


@row("headers")
@pytest.mark.parametrize(
    ("lines", "name", "values"),
    [
        ("X-MiXed: A b", "x-mixed", ["A b"]),
        ("X-One: 1\r\nx-one: 2\r\nX-ONE: 3", "x-one", ["1", "2", "3"]),
        ("X-Empty:", "x-empty", [""]),
        ("X-Latin: caf\xe9", "x-latin", ["caf\xe9"]),
        ("Cookie: a=1\r\nCookie: b=2", "cookie", ["a=1", "b=2"]),
        ("Accept: a, b\r\nAccept: c", "accept", ["a, b", "c"]),
    ],
    ids=["case", "repeated", "empty", "latin", "cookies", "commas"],
)
async def test_headers(site: Site, lines: str, name: str, values: list[str]) -> None:
    event = await event_of(site, headers=f"{lines}\r\n")
    assert event["multiValueHeaders"][name] == values
    assert event["headers"][name] == ("; " if name == "cookie" else ", ").join(values)
    assert event["headers"].keys() == event["multiValueHeaders"].keys()


@row("client-address")
@pytest.mark.parametrize("lines", ["", "Client-IP: 6.6.6.6\r\nX-NF-Client-Connection-IP: 6.6.6.6\r\n"])
async def test_the_clients_address_is_the_peers(site: Site, lines: str) -> None:
    event = await event_of(site, headers=lines)
    for name in ("client-ip", "x-nf-client-connection-ip"):
        assert (event["headers"][name], event["multiValueHeaders"][name]) == ("127.0.0.1", ["127.0.0.1"])


@row("proxies")
async def test_nobody_is_believed_who_is_no_proxy(site: Site) -> None:
    event = await event_of(site, headers="X-Forwarded-For: 6.6.6.6\r\n")
    assert (event["headers"]["client-ip"], event["headers"]["x-forwarded-for"]) == ("127.0.0.1", "6.6.6.6")


@row("proxies")
async def test_a_proxy_that_is_trusted_is_believed(sites: Sites, language: str) -> None:
    event = await event_of(sites.settings(language), headers="X-Forwarded-For: 6.6.6.6, 7.7.7.7\r\n")
    assert event["headers"]["client-ip"] == event["headers"]["x-nf-client-connection-ip"] == "7.7.7.7"


@row("request-id", "context")
async def test_the_request_id_is_the_invocations_and_new_each_time(site: Site) -> None:
    answers = [await site.call("echo", headers="X-Nf-Request-Id: made-up\r\n") for _ in range(2)]
    ids = [answer.json["context"]["awsRequestId"] for answer in answers]
    assert [answer.values("x-nf-request-id") for answer in answers] == [[id] for id in ids]
    assert [answer.json["event"]["headers"]["x-nf-request-id"] for answer in answers] == ids
    assert len({*ids, "made-up"}) == 3


TEXT_TYPES = [
    *("text/plain", "text/html; charset=utf-8", "TEXT/CSV", "application/problem+json", "image/svg+xml"),
    *("application/json", "application/javascript", "application/graphql", "application/xml"),
    *("application/x-www-form-urlencoded", "application/x-ndjson", "application/csp-report"),
]


@row("text-bodies")
@pytest.mark.parametrize("content_type", TEXT_TYPES)
async def test_text_is_that_text(site: Site, content_type: str) -> None:
    body = '{"a": "é + %20"}'
    event = await event_of(
        site, method="POST", headers=f"Content-Type: {content_type}\r\n", body=body.encode()
    )
    assert (event["body"], event["isBase64Encoded"]) == (body, False)


@row("other-bodies")
@pytest.mark.parametrize(
    "content_type",
    [
        *("application/octet-stream", "multipart/form-data; boundary=x", "image/png", "application/jsonx"),
        *("application/pdf", "audio/mpeg", None),
    ],
)
async def test_everything_else_is_base64(site: Site, content_type: str | None) -> None:
    headers = f"Content-Type: {content_type}\r\n" if content_type else ""
    event = await event_of(site, method="POST", headers=headers, body=b"\x00\xff plain")
    assert (event["body"], event["isBase64Encoded"]) == ("AP8gcGxhaW4=", True)


@row("no-body")
@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("GET", "", None),
        ("POST", "", None),
        ("POST", TEXT, None),
        ("POST", "Content-Type: image/png\r\n", None),
        ("POST", "Content-Length: 0\r\n", ""),
        ("POST", f"{JSON}Content-Length: 0\r\n", ""),
        ("POST", "Content-Type: image/png\r\nContent-Length: 0\r\n", ""),
    ],
)
async def test_no_body_and_an_empty_one(site: Site, method: str, headers: str, body: str | None) -> None:
    event = await event_of(site, method=method, headers=headers)
    assert (event["body"], event["isBase64Encoded"]) == (body, False)


@row("raw-url")
@pytest.mark.parametrize("host", ["example.org", "example.org:81", "127.0.0.1:8888"])
async def test_the_raw_url(site: Site, host: str) -> None:
    rest = f"{PREFIX}/echo/a%20b?q=%C3%A9&r=+"
    data = f"GET {rest} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = await site.send(data.encode())
    assert answer.json["event"]["rawUrl"] == f"http://{host}{rest}"


@row("event-keys")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_keys_of_the_event(site: Site, method: str) -> None:
    keys = (
        "path httpMethod queryStringParameters multiValueQueryStringParameters headers multiValueHeaders "
        "body isBase64Encoded rawUrl rawQuery"
    )
    assert set(await event_of(site, "?a=1", method=method)) == set(keys.split())


@row("not-believed")
async def test_what_netlifys_own_headers_say_is_not_believed(site: Site) -> None:
    headers = "X-Nf-Function-Name: measures\r\nX-Netlify-Original-Pathname: /elsewhere\r\n"
    shown = await site.seen("echo", headers=headers)
    assert (shown["event"]["path"], shown["context"]["functionName"]) == (f"{PREFIX}/echo", "echo")
    assert shown["event"]["rawUrl"] == f"http://example.org{PREFIX}/echo"


@row("not-believed")
@pytest.mark.parametrize(
    "path", ["/xnetlify/functions/echo", "/.netlify/functionsx/echo", "//.netlify/functions/echo"]
)
async def test_what_looks_like_the_address_is_not_it(site: Site, path: str) -> None:
    assert (await site.get(path)).status == 404
