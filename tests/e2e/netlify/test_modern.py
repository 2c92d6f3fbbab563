"""Modern handlers, which in Python are ASGI applications; streams; and paths of functions' own."""

import asyncio
import uuid

import httpx
import pytest

from tests.e2e.netlify.rows import javascript, row
from tests.e2e.netlify.sites import TEXT, Site
from tests.e2e.wire import PREFIX

pytestmark = pytest.mark.asyncio(loop_scope="module")


@row("modern")
async def test_the_response_is_the_answer(site: Site) -> None:
    answer = await site.call("modern", "/response")
    assert (answer.status, answer.body.decode()) == (418, "short ö")
    assert (answer.values("x-one"), answer.values("set-cookie")) == (["1"], ["a=1", "b=2"])


@row("modern")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "BREW"])
async def test_the_request_is_the_real_one(site: Site, method: str) -> None:
    body = None if method == "GET" else "ö{".encode()
    headers = f"{TEXT}X-A: 1\r\nCookie: a=1\r\n"
    answer = await site.call("modern", "/request?x=%20y&x=2", method=method, headers=headers, body=body)
    shown = answer.json
    assert shown["method"] == method
    assert shown["url"] == f"http://example.org{PREFIX}/modern/request?x=%20y&x=2"
    assert shown["text"] == ("" if body is None else "ö{")
    (identity,) = answer.values("x-nf-request-id")
    sent = [["x-a", "1"], ["cookie", "a=1"], ["client-ip", "127.0.0.1"], ["x-nf-request-id", identity]]
    assert [pair for pair in sent if pair not in shown["headers"]] == []


@row("modern")
async def test_bytes_are_bytes_and_empty_is_empty(site: Site) -> None:
    assert (await site.call("modern", "/bytes")).body == b"\x00\xff"
    answer = await site.call("modern", "/empty")
    assert (answer.status, answer.body, answer.rest) == (204, b"", b"")


@row("modern", "head")
async def test_head_gets_no_body(site: Site) -> None:
    answer = await site.call("modern", "/response", method="HEAD")
    assert (answer.status, answer.body, answer.rest, answer.values("x-one")) == (418, b"", b"", ["1"])


@row("modern", "failure")
async def test_an_error_is_500(site: Site) -> None:
    answer = await site.call("modern", "/fails")
    assert (answer.status, answer.json["errorType"], answer.json["errorMessage"]) == (
        500,
        "TypeError",
        "modern",
    )


@javascript
@row("modern-nothing")
async def test_undefined_is_204(site: Site) -> None:
    answer = await site.call("modern", "/nothing")
    assert (answer.status, answer.body, answer.rest) == (204, b"", b"")


@row("modern-no-response")
async def test_no_response_is_500(site: Site) -> None:
    answer = await site.call("modern", "/none")
    assert (answer.status, answer.values("content-type")) == (500, ["application/json"])


@javascript
@row("modern-no-response")
@pytest.mark.parametrize("what", ["begins", "text", "number"])
async def test_another_value_is_500(site: Site, what: str) -> None:
    answer = await site.call("modern", f"/{what}")
    assert (answer.status, answer.json["errorType"]) == (500, "InvalidResult")


@row("modern", "accepted")
async def test_it_may_run_in_the_background(site: Site) -> None:
    note = uuid.uuid4().hex
    identity = await site.enqueue("modern-background", method="PUT", headers=TEXT, body=note.encode())
    assert (await site.end(identity))["state"] == "succeeded"
    assert site.noted(note) == ["PUT"]


@row("streams")
@pytest.mark.parametrize("name", ["streams", "modern-streams"])
async def test_the_first_bytes_come_before_the_function_ends(site: Site, name: str) -> None:
    gate = uuid.uuid4().hex
    async with (
        asyncio.timeout(60),
        httpx.AsyncClient(base_url=site.url, timeout=60) as client,
        client.stream("GET", f"{site.path(name)}?gate={gate}") as answer,
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (201, "text/x-pieces")
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one"
        site.open_gate(gate)
        assert b"".join([piece async for piece in pieces]) == b"two"


@row("path", "params")
@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/crew/enterprise/picard", {"ship": "enterprise", "name": "picard"}),
        ("/crew/a%20b/c%2Fd?x=1", {"ship": "a%20b", "name": "c%2Fd"}),
        ("/crew", {}),
        ("/files/a/b", {"0": "a/b"}),
    ],
)
async def test_a_path_of_its_own(site: Site, path: str, params: dict[str, str]) -> None:
    answer = await site.get(path)
    assert (answer.status, answer.json) == (200, params)


@row("path")
@pytest.mark.parametrize("rest", ["", "/", "/enterprise/picard"])
async def test_it_replaces_the_default_address(site: Site, rest: str) -> None:
    answer = await site.call("modern-crew", rest)
    assert (answer.status, answer.body) == (404, b"Function not found...")


@row("path")
@pytest.mark.parametrize("path", ["/crew/enterprise", "/crew/a/b/c", "/Crew/a/b", "/crewx"])
async def test_another_path_finds_nothing(site: Site, path: str) -> None:
    assert (await site.get(path)).status == 404


@row("path", "accepted")
async def test_a_background_function_at_its_own_path(site: Site) -> None:
    answer = await site.get("/later/now")
    assert (answer.status, answer.body) == (202, b"")


@row("path-method")
@pytest.mark.parametrize(("name", "path"), [("picky", "/picky"), ("picky-default", None)])
async def test_other_methods_find_nothing(site: Site, name: str, path: str | None) -> None:
    methods = {"picky": {"POST", "PATCH"}, "picky-default": {"DELETE"}}[name]
    async with httpx.AsyncClient(base_url=site.url, timeout=60) as client:
        for method in ("GET", "POST", "PATCH", "DELETE", "OPTIONS", "HEAD"):
            answer = await client.request(method, path or site.path(name))
            assert answer.status_code == (200 if method in methods else 404), method
            if method in methods:
                assert answer.text == method
