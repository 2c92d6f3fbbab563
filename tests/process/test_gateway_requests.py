"""What reaches a function, over real HTTP: the "Requests" table of Netlify's behaviour."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterhour.options import networks
from quarterhour.settings import Server
from tests.process.gateway_rig import PREFIX, Rig, json_of, open_rig

MIB = 1024 * 1024
LIMIT = 64 * 1024


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request.param, request_bytes_max=LIMIT) as rig:
        yield rig


def raw_request(path: str, method: str = "GET", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: example.org\r\n{headers}\r\n".encode("latin-1")


@pytest.mark.parametrize(
    "rest", ["", "/", "/a/b", "//", "//a", "%2F", "%2fa", "/..", "/%zz", "/a;b=1/%C3%A9"]
)
async def test_every_path_under_a_name_reaches_the_function_verbatim(rig: Rig, rest: str) -> None:
    got = json_of(await rig.raw(raw_request(f"{PREFIX}/hello{rest}")))
    assert got["function"] == "hello"
    assert got["path"] == f"{PREFIX}/hello{rest}"


async def test_absolute_form_is_a_request_like_any_other(rig: Rig) -> None:
    got = json_of(await rig.raw(raw_request(f"http://example.org{PREFIX}/hello/x?y=1")))
    assert (got["path"], got["query"]) == (f"{PREFIX}/hello/x", "y=1")
    ready = await rig.raw(raw_request("http://example.org/healthz"))
    assert ready.startswith(b"HTTP/1.1 200 ")


NO_NAMES = [
    "/missing",
    "/missing-background",
    "/Hello",
    "/hello.py",
    "/hello.",
    "/hell%6F",
    "/%68ello",
    "/hello%20",
    "/hello%00",
    "/hello%3E",
    "/%2e%2e",
    "/..",
    "/../hello",
    "/*",
    "/hello*",
    "/hello%2Ejs",
    "/hello$",
    "/hello,world",
    "/hello%252F",
    "/" + "a" * 300,
    "/",
    "",
    "//hello",
]


@pytest.mark.parametrize("path", NO_NAMES)
async def test_what_is_no_function_is_not_found(rig: Rig, path: str) -> None:
    answer = await rig.raw(raw_request(PREFIX + path))
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert answer.endswith(b"\r\n\r\nFunction not found...")


@pytest.mark.parametrize("path", ["/hello>", "/hel lo", "/hello\x00", '/"hello"', "/{hello}", "/h\xe9llo"])
async def test_what_is_no_address_is_refused(rig: Rig, path: str) -> None:
    answer = await rig.raw(raw_request(PREFIX + path))
    assert answer[9:12] in {b"400", b"404"}, answer  # a server may see first that it is no HTTP
    assert b"200" not in answer[:15]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_not_found_is_the_same_for_every_method(rig: Rig, method: str) -> None:
    answer = await rig.client.request(method, f"{PREFIX}/missing", content=b"x" * 1000)
    assert (answer.status_code, answer.text) == (404, "Function not found...")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_any_method_runs_the_function(rig: Rig, method: str) -> None:
    answer = await rig.client.request(method, f"{PREFIX}/hello")
    assert answer.status_code == 200
    assert answer.json()["method"] == method
    assert "access-control-allow-origin" not in answer.headers


async def test_head_runs_the_function_and_sends_no_body(rig: Rig) -> None:
    runner = await rig.runner("runner-2", "hello")
    answers = [await rig.client.head(f"{PREFIX}/hello") for _ in range(4)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    assert {invocation.request.method for invocation in runner.taken} == {"HEAD"}
    # The connection is in order: what follows is an answer, not a forgotten body.
    assert (await rig.client.get(f"{PREFIX}/hello")).json()["method"] == "GET"


async def test_connect_is_refused(rig: Rig) -> None:
    try:
        answer = await rig.raw(raw_request(f"{PREFIX}/hello", "CONNECT"))
    except EOFError:
        return  # Granian closes the connection
    assert answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 400 ")), answer


@pytest.mark.parametrize("query", ["", "a=1&a=2&b=%20x+y&c", "x[]=1&y;z=%zz", "?", "a=b?c=/d"])
async def test_the_query_is_verbatim(rig: Rig, query: str) -> None:
    got = json_of(await rig.raw(raw_request(f"{PREFIX}/hello?{query}")))
    assert got["query"] == query


async def test_every_header_arrives_with_a_lower_case_name(rig: Rig) -> None:
    headers = "X-One: 1\r\nX-Two: a, b\r\nx-one: 2\r\nX-Latin: caf\xe9\r\nCookie: a=1\r\nCookie: b=2\r\n"
    got = json_of(await rig.raw(raw_request(f"{PREFIX}/hello", headers=headers)))
    sent = [
        tuple(pair) for pair in got["headers"] if pair[0].startswith(("x-one", "x-two", "x-latin", "cookie"))
    ]
    # In the order of arrival for each name; Granian puts those of one name together.
    assert sorted(sent, key=lambda pair: pair[0]) == [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-latin", "caf\xe9"),
        ("x-one", "1"),
        ("x-one", "2"),
        ("x-two", "a, b"),
    ]


async def test_what_the_server_sets_cannot_be_made_up(rig: Rig) -> None:
    made_up = {
        "Client-IP": "6.6.6.6",
        "X-NF-Client-Connection-IP": "6.6.6.6",
        "X-Nf-Request-Id": "made-up",
        "X-Forwarded-For": "6.6.6.6",
    }
    answer = await rig.client.get(f"{PREFIX}/hello", headers=made_up)
    got = answer.json()
    ours = [
        tuple(pair)
        for pair in got["headers"]
        if "6.6.6.6" in pair[1] or pair[0].startswith(("client-ip", "x-nf"))
    ]
    assert sorted(ours) == [
        ("client-ip", "127.0.0.1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-nf-client-connection-ip", "127.0.0.1"),
        ("x-nf-request-id", got["id"]),
    ]
    assert got["client"] == "127.0.0.1"
    assert answer.headers["x-nf-request-id"] == got["id"]


async def test_the_request_id_is_new_for_each_request(rig: Rig) -> None:
    ids = {(await rig.client.get(f"{PREFIX}/hello")).headers["x-nf-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_forwarded_headers_are_believed_from_trusted_proxies(server: Server) -> None:
    proxies = networks().read("127.0.0.0/8", Path())
    async with open_rig(server, trusted_proxies=proxies, allow_anonymous=True) as rig:
        headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 127.0.0.5", "X-Forwarded-Proto": "https"}
        got = (await rig.client.get(f"{PREFIX}/hello", headers=headers)).json()
        assert (got["client"], got["scheme"]) == ("203.0.113.9", "https")
        assert ["client-ip", "203.0.113.9"] in got["headers"]


async def test_a_request_without_a_body_has_none(rig: Rig) -> None:
    assert json_of(await rig.raw(raw_request(f"{PREFIX}/hello", "POST")))["body"] is None


@pytest.mark.parametrize(
    "framed", ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
async def test_an_empty_body_is_an_empty_text(rig: Rig, framed: str) -> None:
    data = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\n{framed}".encode()
    assert json_of(await rig.raw(data))["body"] == ""


async def test_bodies_arrive_as_they_are(rig: Rig) -> None:
    body = bytes(range(256)) * 10
    assert (await rig.client.post(f"{PREFIX}/hello", content=body)).json()["body"] == body.decode("latin-1")


async def test_a_body_in_pieces_arrives_whole(rig: Rig) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"0123456789"

    assert (await rig.client.post(f"{PREFIX}/hello", content=pieces())).json()["body"] == "0123456789" * 20


async def test_the_trace_context_is_taken_over(rig: Rig) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert (await rig.client.get(f"{PREFIX}/hello", headers={"traceparent": trace})).json()["trace"] == trace
    assert (await rig.client.get(f"{PREFIX}/hello", headers={"traceparent": "x"})).json()["trace"] is None


@pytest.mark.parametrize("name", ["hello", "hello-background"])
async def test_a_body_at_the_limit_is_accepted_and_one_byte_more_is_413(rig: Rig, name: str) -> None:
    good = await rig.client.post(f"{PREFIX}/{name}", content=b"x" * LIMIT)
    assert good.status_code in {200, 202}
    bad = await rig.client.post(f"{PREFIX}/{name}", content=b"x" * (LIMIT + 1))
    assert (bad.status_code, bad.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("name", ["hello", "hello-background"])
async def test_a_chunked_body_past_the_limit_is_413(rig: Rig, name: str) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    good = await rig.client.post(f"{PREFIX}/{name}", content=pieces(64))
    assert good.status_code in {200, 202}
    bad = await rig.client.post(f"{PREFIX}/{name}", content=pieces(65))
    assert (bad.status_code, bad.json()["code"]) == (413, "body_too_large")


async def test_the_default_limit_is_netlifys() -> None:
    async with open_rig() as rig:
        good = await rig.client.post(f"{PREFIX}/hello-background", content=b"x" * 6_291_456)
        assert good.status_code == 202
        bad = await rig.client.post(f"{PREFIX}/hello-background", content=b"x" * 6_291_457)
        assert bad.status_code == 413
