"""Web pages of other origins: what browsers are told, if it is set, and that nothing is if it is not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterhour.keys import parse_lines
from tests.process.gateway_rig import PREFIX, Rig, answered, function, open_rig

APP = "https://app.example.com"
EVIL = "https://evil.example"
KEYS = parse_lines(["anonymous invoke hello", "anonymous read hello"])
ASKS = {
    "access-control-request-method": "PUT",
    "access-control-request-headers": "content-type, x-api-key",
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig(cors_origins=(APP, "http://localhost:3000"), api_keys=KEYS) as rig:
        yield rig


def cors(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", [f"{PREFIX}/hello", f"{PREFIX}/no-such", "/a/path", "/v1/functions"])
async def test_whether_a_page_may_ask_is_answered_by_the_gateway(rig: Rig, path: str) -> None:
    answer = await rig.client.options(path, headers={"origin": APP, **ASKS})
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer.headers) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": "PUT",
        "access-control-allow-headers": "content-type, x-api-key",
        "access-control-max-age": "600",
    }
    other = await rig.client.options(path, headers={"origin": EVIL, **ASKS})
    assert (other.status_code, cors(other.headers)) == (204, {})
    assert answer.headers["vary"] == other.headers["vary"]
    assert answer.headers["vary"].startswith("origin, ")


async def test_its_answers_may_be_read_by_the_pages_that_are_named(rig: Rig) -> None:
    for path, status in ((f"{PREFIX}/hello", 200), ("/v1/functions", 200), (f"{PREFIX}/no-such", 401)):
        answer = await rig.client.get(path, headers={"origin": APP})
        assert answer.status_code == status
        assert cors(answer.headers) == {
            "access-control-allow-origin": APP,
            "access-control-expose-headers": "location, retry-after, x-nf-request-id",
        }
        assert answer.headers["vary"] == "origin"
        for headers in ({}, {"origin": EVIL}, {"origin": "null"}):
            answer = await rig.client.get(path, headers=headers)
            assert (cors(answer.headers), answer.headers["vary"]) == ({}, "origin")


@pytest.mark.parametrize(
    "path", ["/metrics", "/healthz", "//metrics", "//healthz", "http://x.example/healthz"]
)
async def test_metrics_and_health_are_not_shared_however_they_are_named(rig: Rig, path: str) -> None:
    answer = await rig.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: {APP}\r\n\r\n".encode())
    assert b"access-control-" not in answer


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Host: x\r\nX-Filler: " + "a" * 100_000, 431),
        ("Host: @@@", 400),
    ],
)
async def test_the_question_is_checked_as_any_request_is(rig: Rig, wrong: str, status: int) -> None:
    asks = "".join(f"{name}: {value}\r\n" for name, value in ASKS.items())
    head = f"OPTIONS {PREFIX}/hello HTTP/1.1\r\nOrigin: {APP}\r\n{asks}{wrong}\r\n\r\n"
    answer = await rig.raw(head.encode() + b"0\r\n\r\n")
    assert int(answer.split()[1]) == status


async def test_a_function_that_speaks_for_itself_is_left_alone() -> None:
    async def own(_: Any) -> Any:
        return answered(200, b"", **{"Access-Control-Allow-Origin": "https://mine.example", "vary": "accept"})

    async with open_rig(cors_origins=(APP,)) as rig:
        await rig.announce(function("own"))
        await rig.runner("runner-2", "own", handler=own)
        answer = await rig.client.get(f"{PREFIX}/own", headers={"origin": APP})
        assert cors(answer.headers) == {"access-control-allow-origin": "https://mine.example"}
        assert answer.headers["vary"] == "accept"


async def test_all_pages_are_all_pages_but_change_nothing_in_the_api() -> None:
    async with open_rig(cors_origins=("*",)) as rig:
        answer = await rig.client.post(f"{PREFIX}/hello", headers={"origin": EVIL})
        assert (answer.headers["access-control-allow-origin"], "vary" in answer.headers) == ("*", False)
        headers = {"origin": EVIL, "sec-fetch-site": "cross-site"}
        assert (await rig.client.post("/v1/functions", headers=headers)).status_code == 403


async def test_a_page_that_is_named_may_change_what_it_has_the_key_for() -> None:
    async with open_rig(cors_origins=(APP,)) as rig:
        headers = {"origin": APP, "sec-fetch-site": "cross-site"}
        assert (await rig.client.post("/v1/functions", headers=headers)).status_code == 405


async def test_without_the_setting_the_question_goes_to_the_function() -> None:
    async with open_rig() as rig:
        answer = await rig.client.options(f"{PREFIX}/hello", headers={"origin": APP, **ASKS})
        assert (answer.status_code, answer.json()["method"]) == (200, "OPTIONS")
        assert cors(answer.headers) == {}
