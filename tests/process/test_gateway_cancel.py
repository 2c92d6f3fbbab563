"""`DELETE /v1/invocations/<id>` over real HTTP: what it answers, and to whom."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quarterhour.broker.port import Settlement
from quarterhour.keys import digest_of, parse_lines
from quarterhour.outcome import Error, Failed, Outcome, Succeeded
from quarterhour.record import settled, waiting
from quarterhour.retry import Bury, BuryReason, Complete, Disposition
from tests.process.gateway_rig import PREFIX, Rig, function, open_rig

BACKGROUND = f"{PREFIX}/hello-background"
NOBODYS = "/v1/invocations/0197a0b0-0000-7000-8000-000000000000"
ADMIN, LIMITED, READ, INVOKE, OWN = "qh_admin-key", "qh_limited-key", "qh_read-key", "qh_invoke-key", "qh_own"
KEYS = {
    ADMIN: "admin",
    LIMITED: "admin open-*",
    READ: "read",
    INVOKE: "invoke",
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def accepted(rig: Rig, path: str = BACKGROUND, **headers: str) -> str:
    """The address of an accepted invocation."""
    answer = await rig.client.post(path, headers=headers)
    assert answer.status_code == 202
    return str(answer.headers["location"])


async def pulled(rig: Rig) -> list[Any]:
    return [delivery async for delivery in rig.broker.pull("hello-background", 10)]


@pytest.mark.parametrize("headers", [{}, {"X-Quarterhour-Delay": "3600"}])
async def test_it_shows_the_invocation_as_it_is_then(rig: Rig, headers: dict[str, str]) -> None:
    location = await accepted(rig, **headers)
    answer = await rig.client.delete(location)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["state"] == "cancelled"
    assert answer.json()["finished_at"] is not None
    assert answer.json() == (await rig.client.get(location)).json()
    assert (await rig.client.delete(location)).json() == answer.json()
    assert await pulled(rig) == []
    assert "Somebody cancelled it." in (await rig.client.get(location, headers={"accept": "text/html"})).text


async def test_who_waits_for_its_end_sees_it(rig: Rig) -> None:
    location = await accepted(rig)
    began = time.monotonic()
    await rig.client.delete(location)
    assert (await rig.client.get(f"{location}?wait=30")).json()["state"] == "cancelled"
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("outcome", "disposition", "how"),
    [
        (Succeeded(), Complete(), "succeeded"),
        (Failed(error=Error(type="E", message="m")), Bury(reason=BuryReason.FAILED), "was set aside as dead"),
    ],
)
async def test_what_has_ended_is_409_and_stays(
    rig: Rig, outcome: Outcome, disposition: Disposition, how: str
) -> None:
    location = await accepted(rig)
    (delivery,) = await pulled(rig)
    record = settled(
        waiting(delivery.invocation),
        outcome,
        disposition,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_001.5,
        logs="",
        runner="r",
    )
    await rig.broker.settle(Settlement(delivery=delivery, record=record))
    before = (await rig.client.get(location)).json()
    answer = await rig.client.delete(location)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_ended")
    assert answer.json()["detail"] == (
        f"Invocation {delivery.invocation.id} {how} at 2023-11-14T22:13:21.500Z; "
        "there is nothing left to cancel."
    )
    assert (await rig.client.get(location)).json() == before


@pytest.mark.parametrize("name", ["x", "0197a0b0-0000-7000-8000-000000000000", "*", "%3E", "a" * 300, "%00"])
async def test_what_nobody_knows_is_404(rig: Rig, name: str) -> None:
    answer = await rig.client.delete(f"/v1/invocations/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_invocation")


async def test_a_synchronous_call_cannot_be_cancelled(rig: Rig) -> None:
    request_id = (await rig.client.get(f"{PREFIX}/hello")).headers["x-nf-request-id"]
    assert (await rig.client.delete(f"/v1/invocations/{request_id}")).status_code == 404


async def test_with_the_broker_away_it_says_that_it_does_not_know(rig: Rig) -> None:
    location = await accepted(rig)
    rig.broker.store.away = True
    began = time.monotonic()
    answer = await rig.client.delete(location)
    assert time.monotonic() - began < 5
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert "not known whether the invocation was cancelled" in answer.json()["detail"]
    rig.broker.store.away = False
    assert (await rig.client.delete(location)).json()["state"] == "cancelled"


async def test_a_page_of_another_site_cancels_nothing(rig: Rig) -> None:
    location = await accepted(rig)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        answer = await rig.client.delete(location, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    rebound = f"DELETE {location} HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert b"unknown_host" in await rig.raw(rebound.encode())
    assert (await rig.client.get(location)).json()["state"] == "waiting"
    assert (await rig.client.delete(location, headers={"sec-fetch-site": "same-origin"})).status_code == 200


async def test_a_page_that_is_named_may_cancel() -> None:
    app = "https://app.example.com"
    async with open_rig(cors_origins=(app,)) as rig:
        location = await accepted(rig)
        asks = {
            "origin": app,
            "access-control-request-method": "DELETE",
            "access-control-request-headers": "x",
        }
        preflight = await rig.client.options(location, headers=asks)
        assert preflight.headers["access-control-allow-methods"] == "DELETE"
        answer = await rig.client.delete(location, headers={"origin": app, "sec-fetch-site": "cross-site"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, app)


async def test_it_takes_the_key_of_an_admin_for_this_function() -> None:
    lines = [f"sha256:{digest_of(key.encode()).hex()}  {what}" for key, what in KEYS.items()]
    both = f"sha256:{digest_of(OWN.encode()).hex()}"
    lines += [f"{both}  read", f"{both}  admin open-*"]
    async with open_rig(api_keys=parse_lines(lines)) as rig:
        await rig.announce(function("open-background"))
        location = await accepted(rig, **{"x-api-key": ADMIN})
        theirs = await accepted(rig, f"{PREFIX}/open-background", **{"x-api-key": ADMIN})

        async def refused(key: str, path: str = location) -> tuple[int, str, str]:
            answer = await rig.client.delete(path, headers={"x-api-key": key} if key else {})
            problem = answer.json()
            return answer.status_code, problem["code"], re.sub("[0-9a-f]{8}-.*? ", "", problem["detail"])

        assert (await refused(""))[:2] == (401, "unauthorized")
        for key in (READ, INVOKE):
            assert (await refused(key))[:2] == (403, "forbidden")
            assert await refused(key) == await refused(key, NOBODYS)
        # What may not be known is as if it were not there; what may be known, and not changed, is refused.
        assert await refused(LIMITED) == await refused(LIMITED, NOBODYS)
        assert (await refused(LIMITED))[:2] == (404, "unknown_invocation")
        assert (await refused(OWN))[:2] == (403, "forbidden")
        assert (await rig.client.get(location, headers={"x-api-key": ADMIN})).json()["state"] == "waiting"
        assert (await rig.client.delete(theirs, headers={"x-api-key": LIMITED})).status_code == 200
        assert (await rig.client.delete(location, headers={"x-api-key": ADMIN})).status_code == 200
