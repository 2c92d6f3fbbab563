"""Who may do what, over real HTTP: a gateway with API keys."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.asgi import OWN_HEADERS
from gateway.body import BodyLimits
from quarterhour.keys import digest_of, parse_lines
from tests.process.gateway_rig import PREFIX, Rig, answered, function, json_of, open_rig
from tests.waiting import eventually

ADMIN, INVOKE, READ, LIMITED = "qh_admin-key", "qh_invoke-key", "qh_read-key", "qh_limited-key"
WRONG = "qh_wrong-key"
BACKGROUND = f"{PREFIX}/hello-background"


def line(key: str, what: str) -> str:
    return f"sha256:{digest_of(key.encode()).hex()}  {what}"


LINES = (
    line(ADMIN, "admin"),
    line(INVOKE, "invoke"),
    line(READ, "read"),
    line(LIMITED, "invoke,read open-*"),
    "anonymous  invoke  open-*",
)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig(api_keys=parse_lines(LINES), body=BodyLimits()) as rig:
        await rig.announce(function("open-door"), function("open-background"))
        yield rig


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def shown(answer: httpx.Response) -> tuple[int, str, str]:
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


async def test_a_function_is_invoked_with_a_key_that_may_and_never_sees_it(rig: Rig) -> None:
    for headers in (bearer(INVOKE), {"x-api-key": INVOKE}, bearer(ADMIN)):
        answer = await rig.client.post(f"{PREFIX}/hello", headers=headers)
        assert answer.status_code == 200
        assert "qh_" not in answer.text
    theirs = {"x-api-key": INVOKE, "authorization": "Bearer theirs"}
    answer = await rig.client.post(f"{PREFIX}/hello", headers=theirs)
    assert ["authorization", "Bearer theirs"] in answer.json()["headers"]
    assert (await rig.client.post(BACKGROUND, headers=bearer(INVOKE))).status_code == 202
    (delivery,) = [delivery async for delivery in rig.broker.pull("hello-background", 1)]
    assert "qh_" not in repr(delivery.invocation)


async def test_a_key_that_is_missing_wrong_or_not_for_this_is_a_problem_of_its_own(rig: Rig) -> None:
    path = f"{PREFIX}/hello"
    for headers, expected in (
        ({}, (401, "unauthorized")),
        (bearer(WRONG), (401, "unauthorized")),
        ({**bearer(INVOKE), "x-api-key": ADMIN}, (401, "unauthorized")),
        (bearer(READ), (403, "forbidden")),
        (bearer(LIMITED), (403, "forbidden")),
    ):
        answer = await rig.client.post(path, headers=headers)
        assert shown(answer)[:2] == expected
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)
        assert answer.headers.get("www-authenticate", "Bearer").startswith("Bearer")
        assert "qh_" not in answer.text + str(answer.headers)


async def test_who_may_not_invoke_a_function_cannot_tell_whether_it_exists(rig: Rig) -> None:
    await rig.announce(function("routed", path=("/routed/:id",)))
    for headers in ({}, bearer(WRONG), bearer(READ), bearer(LIMITED)):
        for method in ("GET", "POST", "OPTIONS"):
            paths = (
                f"{PREFIX}/hello",
                BACKGROUND,
                f"{PREFIX}/no-such",
                f"{PREFIX}/",
                "/routed/7",
                "/nothing",
            )
            answers = [await rig.client.request(method, path, headers=headers) for path in paths]
            assert len({shown(answer) for answer in answers}) == 1
    assert (await rig.client.get(f"{PREFIX}/no-such", headers=bearer(INVOKE))).status_code == 404
    assert (await rig.client.get("/nothing", headers=bearer(INVOKE))).status_code == 404


async def test_while_it_is_not_known_which_functions_there_are_it_is_the_same() -> None:
    async with open_rig(api_keys=parse_lines(LINES[:-1])) as rig:
        rig.gateway.functions.ready = False
        for headers, status in (({}, 401), (bearer(READ), 403), (bearer(LIMITED), 503), (bearer(ADMIN), 503)):
            assert (await rig.client.get("/routed/7", headers=headers)).status_code == status


async def test_a_public_function_needs_no_key(rig: Rig) -> None:
    await rig.runner("runner-2", "open-door")
    assert (await rig.client.post(f"{PREFIX}/open-door")).status_code == 200
    assert (await rig.client.post(f"{PREFIX}/open-door", headers=bearer(READ))).status_code == 200
    assert (await rig.client.post(f"{PREFIX}/open-door", headers=bearer(WRONG))).status_code == 401
    assert (await rig.client.post(f"{PREFIX}/open-no-such")).status_code == 404
    assert (await rig.client.get("/v1/functions")).status_code == 401


async def test_it_is_refused_before_its_body_is_read(rig: Rig) -> None:
    head = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
    assert json_of(await rig.raw(head.encode()))["code"] == "unauthorized"


API = ["/v1/functions", "/v1/functions/hello", "/v1/invocations/0", "/v1/runners/targets", "/metrics"]


@pytest.mark.parametrize("path", API)
async def test_the_api_is_read_with_a_key_that_may(rig: Rig, path: str) -> None:
    assert (await rig.client.get(path)).status_code == 401
    assert (await rig.client.get(path, headers=bearer(WRONG))).status_code == 401
    assert (await rig.client.get(path, headers=bearer(INVOKE))).status_code == 403
    for key in (READ, ADMIN):
        assert (await rig.client.get(path, headers=bearer(key))).status_code in {200, 404}
    for target in (f"ftp://x{path}", f"/{path}", f"http://x{path}"):
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {INVOKE}\r\n\r\n"
        assert (await rig.raw(request.encode()))[9:12] in {b"400", b"403"}, target


async def test_it_is_changed_with_the_key_of_an_admin(rig: Rig) -> None:
    for key, status in ((READ, 403), (INVOKE, 403), (WRONG, 401), (ADMIN, 405)):  # for now there is no change
        answer = await rig.client.delete("/v1/functions", headers=bearer(key))
        assert answer.status_code == status


async def test_health_needs_no_key(rig: Rig) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await rig.client.get(path)).status_code == 200


async def test_a_key_for_some_functions_shows_those_alone(rig: Rig) -> None:
    limited, all_of_them = bearer(LIMITED), bearer(ADMIN)
    await rig.runner("runner-2", "hidden-unread", "open-unread")
    listed = (await rig.client.get("/v1/functions", headers=limited)).json()
    assert [one["name"] for one in listed["functions"]] == ["open-background", "open-door"]
    assert listed["unread"] == ["open-unread"]
    hidden = await rig.client.get("/v1/functions/hello", headers=limited)
    unknown = await rig.client.get("/v1/functions/no-such", headers=limited)
    assert shown(hidden)[:2] == shown(unknown)[:2] == (404, "unknown_function")
    assert (await rig.client.get("/metrics", headers=limited)).status_code == 403

    theirs = (await rig.client.post(BACKGROUND, headers=all_of_them)).headers["location"]
    ours = (await rig.client.post(f"{PREFIX}/open-background")).headers["location"]
    assert (await rig.client.get(ours, headers=limited)).json()["state"] == "waiting"
    assert (await rig.client.get(theirs, headers=all_of_them)).json()["state"] == "waiting"
    async with asyncio.timeout(20):  # nobody waits for what may not be known
        hidden = await rig.client.get(f"{theirs}?wait=60", headers=limited)
    unknown = await rig.client.get("/v1/invocations/0", headers=limited)
    assert shown(hidden) == shown(unknown)


async def test_the_file_is_read_again_when_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    file.write_text(line(INVOKE, "invoke"))

    async with open_rig(api_keys_file=file) as rig:

        async def status(key: str) -> int:
            return (await rig.client.post(f"{PREFIX}/hello", headers=bearer(key))).status_code

        async def turns(key: str, expected: int) -> None:
            async def turned() -> bool:
                return await status(key) == expected

            await eventually(turned, what=f"{key} led to {expected}")

        assert (await status(INVOKE), await status(ADMIN)) == (200, 401)
        file.write_text(f"{line(INVOKE, 'invoke')}\n{line(ADMIN, 'admin')}\n")
        await turns(ADMIN, 200)
        file.write_text(f"{line(ADMIN, 'admin')}\n")
        await turns(INVOKE, 401)
        file.write_text(f"{line(INVOKE, 'invoke')}\n{ADMIN} admin\n")
        await eventually(lambda: "api_keys_not_read" in capsys.readouterr().out, what="it complained")
        assert (await status(INVOKE), await status(ADMIN)) == (401, 200)
        file.write_text("# nobody\n")
        await turns(ADMIN, 401)


async def test_a_key_is_in_no_log_answer_or_metric(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    said = ""
    await rig.announce(function("slow"))

    async def broken(_: Any) -> Any:
        return answered(200, b"x" * 7_000_000)

    await rig.runner("runner-3", "slow", handler=broken)
    for key in (ADMIN, INVOKE, READ, LIMITED, WRONG):
        for path in (*API, "/nothing", "/v1/nothing", f"{PREFIX}/slow", BACKGROUND, f"{PREFIX}/no-such"):
            for method in ("GET", "POST"):
                answer = await rig.client.request(method, f"{path}?wait=soon", headers=bearer(key))
                said += answer.text + str(answer.headers)
    for key in (ADMIN, WRONG):
        crooked = f"GET {PREFIX}/hello HTTP/1.1\r\nX-API-Key: {key}\r\nContent-Length: x\r\n\r\n"
        said += (await rig.raw(crooked.encode())).decode()
    deliveries = [delivery async for delivery in rig.broker.pull("hello-background", 100)]
    assert len(deliveries) == 4
    caught = capsys.readouterr()
    everything = said + caught.out + caught.err + repr(deliveries)
    assert [key for key in (ADMIN, INVOKE, READ, LIMITED, WRONG) if key in everything] == []


# What holds without keys


@pytest.fixture
async def bare() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def test_what_the_gateway_says_may_only_be_shown_and_what_functions_say_is_theirs(bare: Rig) -> None:
    own = [
        await bare.client.get(path)
        for path in ("/healthz", "/v1/functions", "/metrics", "/v1/invocations/0", "/nothing", f"{PREFIX}/no")
    ]
    own += [
        await bare.client.post("/v1/functions"),
        await bare.client.get("/v1/functions", headers={"host": "e"}),
    ]
    for answer in own:
        for name, value in OWN_HEADERS:
            assert answer.headers.get_list(name.decode()) == [value.decode()], (answer.url, name)
    theirs = await bare.client.get(f"{PREFIX}/hello")
    assert not {name.decode() for name, _ in OWN_HEADERS} & set(theirs.headers)


async def test_a_page_of_another_site_changes_nothing(bare: Rig) -> None:
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        answer = await bare.client.post("/v1/functions", headers=headers)
        assert shown(answer)[:2] == (403, "cross_site")
        assert (await bare.client.post(f"{PREFIX}/hello", headers=headers)).status_code == 200
    assert (await bare.client.post("/v1/functions", headers={"sec-fetch-site": "none"})).status_code == 405


async def test_a_name_that_was_made_to_lead_here_reads_nothing(bare: Rig) -> None:
    for path in (*API, *(f"/{path}" for path in API)):
        raw = await bare.raw(f"GET {path} HTTP/1.1\r\nHost: evil.example:8888\r\n\r\n".encode())
        assert json_of(raw)["code"] == "unknown_host", path
    assert (
        await bare.client.get(f"{PREFIX}/hello", headers={"host": "evil.example:8888"})
    ).status_code == 200


async def test_what_a_client_says_of_itself_is_not_believed(bare: Rig) -> None:
    said = {
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example",
        "forwarded": "for=6.6.6.6;proto=https;host=evil.example",
        "x-real-ip": "6.6.6.6",
        "client-ip": "6.6.6.6",
        "x-nf-client-connection-ip": "6.6.6.6",
        "x-nf-request-id": "mine",
        "x-nf-geo": "e30=",
        "x-nf-event": "schedule",
    }
    got = (await bare.client.get(f"{PREFIX}/hello", headers=said)).json()
    assert (got["client"], got["scheme"]) == ("127.0.0.1", "http")
    headers = {name: value for name, value in got["headers"] if name.startswith(("x-nf-", "client-ip"))}
    assert headers == {
        "client-ip": "127.0.0.1",
        "x-nf-client-connection-ip": "127.0.0.1",
        "x-nf-request-id": got["id"],
    }
