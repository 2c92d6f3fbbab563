"""An invocation's address in a browser: which clients get the page, and what its headers forbid."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from quarterhour.broker.port import Settlement
from quarterhour.outcome import Error, Failed, Succeeded
from quarterhour.record import settled, waiting
from quarterhour.retry import Bury, BuryReason, Complete
from tests.process.gateway_rig import PREFIX, Rig, open_rig

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HTML, JSON, PROBLEM = "text/html; charset=utf-8", "application/json", "application/problem+json"
EVIL = "</pre><script>alert(1)</script>"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def accepted(rig: Rig) -> str:
    answer = await rig.client.post(f"{PREFIX}/hello-background")
    assert answer.status_code == 202
    return str(answer.headers["location"])


async def ended(rig: Rig, outcome: Any, disposition: Any, logs: str = "") -> str:
    location = await accepted(rig)
    (delivery,) = [delivery async for delivery in rig.broker.pull("hello-background", 1)]
    record = settled(
        waiting(delivery.invocation),
        outcome,
        disposition,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_001.5,
        logs=logs,
        runner="runner-1",
    )
    await rig.broker.settle(Settlement(delivery=delivery, record=record))
    return location


async def get(rig: Rig, location: str, accept: str | None = CHROMIUM) -> httpx.Response:
    # httpx has an Accept of its own, which an empty one takes the place of.
    answer = await rig.client.get(location, headers={"accept": accept or ""})
    assert answer.headers["vary"] == "Accept"
    return answer


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        (CHROMIUM, HTML),
        (FIREFOX, HTML),
        ("text/html", HTML),
        ("TEXT/HTML;q=0.9, application/json;q=0.8", HTML),
        ("text/html;q=0.5, */*;q=0.4", HTML),
        ("*/*", JSON),
        (None, JSON),
        ("application/json", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/json, text/html", JSON),
        ("text/html, application/json", JSON),
        ("text/html;q=0.8, application/json;q=0.9", JSON),
        ("text/html;q=0, */*", JSON),
        ("text/plain", JSON),
        ("garbage;;q=,", JSON),
    ],
)
async def test_browsers_get_the_page_and_programs_json(rig: Rig, accept: str | None, type: str) -> None:
    answer = await get(rig, await accepted(rig), accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, type)


async def test_a_program_that_sends_no_accept_gets_json(rig: Rig) -> None:
    location = await accepted(rig)
    raw = await rig.raw(f"GET {location} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert b"content-type: application/json\r\n" in raw


async def test_whoever_waits_gets_json(rig: Rig) -> None:
    location = await accepted(rig)
    answer = await get(rig, f"{location}?wait=0")
    assert (answer.headers["content-type"], answer.json()["state"]) == (JSON, "waiting")
    answer = await get(rig, f"{location}?wait=soon")
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)


async def test_the_page_may_load_and_run_nothing(rig: Rig) -> None:
    headers = (await get(rig, await accepted(rig))).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


async def test_it_refreshes_itself_until_the_end(rig: Rig) -> None:
    location = await accepted(rig)
    assert '<meta http-equiv="refresh" content="2">' in (await get(rig, location)).text
    assert "http-equiv" not in (await get(rig, f"{location}?refresh=off")).text


async def test_at_the_end_it_refreshes_itself_no_more(rig: Rig) -> None:
    location = await ended(rig, Succeeded(value=b"{}"), Complete())
    assert "http-equiv" not in (await get(rig, location)).text


async def test_what_a_function_says_stays_text(rig: Rig) -> None:
    error = Error(type="ValueError", message=EVIL, trace=(EVIL,))
    location = await ended(rig, Failed(error=error), Bury(reason=BuryReason.FAILED), EVIL)
    text = (await get(rig, location)).text
    assert "<script" not in text
    assert (
        text.count("&lt;script&gt;alert(1)") == 5
    )  # message and trace, of the whole and of the attempt; log


@pytest.mark.parametrize(("depth", "kind"), [(253, list), (254, str), (900, str)])
async def test_a_result_that_is_nested_deeply_is_shown_all_the_same(
    rig: Rig, depth: int, kind: type[Any]
) -> None:
    location = await ended(rig, Succeeded(value=b"[" * depth + b"]" * depth), Complete())
    page = await get(rig, location)
    assert (page.status_code, page.text.count("]")) == (200, depth)
    answer = await get(rig, location, "*/*")
    assert answer.status_code == 200
    assert isinstance(answer.json()["result"], kind)


@pytest.mark.parametrize("id", ["01a20a41-925e-7196-ad45-ec02dd9af527", "no-id", "%3Cscript%3E"])
async def test_an_unknown_id_is_a_page_as_well(rig: Rig, id: str) -> None:
    answer = await get(rig, f"/v1/invocations/{id}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, HTML)
    assert "There is no such invocation" in answer.text
    assert "<script" not in answer.text
    assert "http-equiv" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    answer = await get(rig, f"/v1/invocations/{id}", "*/*")
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)


async def test_while_the_broker_is_away_the_page_says_so_and_tries_again(rig: Rig) -> None:
    location = await accepted(rig)
    rig.broker.store.away = True
    answer = await get(rig, location)
    assert (answer.status_code, answer.headers["content-type"]) == (503, HTML)
    assert "The broker is away" in answer.text
    assert '<meta http-equiv="refresh" content="2">' in answer.text
    assert answer.headers["retry-after"] == "2"
    answer = await get(rig, location, "*/*")
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
    assert answer.json()["code"] == "broker_unavailable"


async def test_head_has_the_headers_and_no_body(rig: Rig) -> None:
    answer = await rig.client.head(await accepted(rig), headers={"accept": CHROMIUM})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, HTML, b"")
