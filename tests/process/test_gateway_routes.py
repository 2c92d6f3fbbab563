"""Functions at paths of their own, over real HTTP: they get their requests, and the gateway keeps its own."""

from collections.abc import AsyncIterator
from typing import cast

import pytest
from quart import Quart
from structlog.testing import capture_logs

from quarterhour.route import is_gateways
from tests.process.gateway_rig import PREFIX, Rig, function, json_of, open_rig
from tests.waiting import eventually

FUNCTIONS = [
    function("user", path=("/users/:id", "/me"), excluded_path=("/users/root",)),
    function("get", path=("/items",), method=("GET",)),
    function("put", path=("/items",), method=("PUT", "OPTIONS")),
    function("picky", method=("POST",)),
    function("both", path=("/both", f"{PREFIX}/both")),
    function("later-background", path=("/later/*",)),
    function("all", path=("/*",), method=("GET",)),
]


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request.param) as rig:
        await rig.announce(*FUNCTIONS)
        await rig.runner("runner-2", *(one.name for one in FUNCTIONS))
        yield rig


async def test_requests_go_where_their_paths_and_methods_say(rig: Rig) -> None:
    for request_line, name, params in [
        ("POST /users/7", "user", {"id": "7"}),
        ("POST /users/a%20b%2Fc?x=1", "user", {"id": "a%20b%2Fc"}),
        ("POST /users/7/", "user", {"id": "7"}),
        ("DELETE /me", "user", {}),
        ("GET /users/root", "all", {"0": "users/root"}),
        ("GET /items", "get", {}),
        ("PUT /items", "put", {}),
        ("OPTIONS /items", "put", {}),
        ("GET /v1x", "all", {"0": "v1x"}),
        ("GET /.netlify/other", "all", {"0": ".netlify/other"}),
        ("POST /both", "both", {}),
        (f"POST {PREFIX}/both/x", "both", {}),
        (f"POST {PREFIX}/picky", "picky", {}),
        (f"GET {PREFIX}/hello", "hello", {}),
        ("GET http://example.org/x", "all", {"0": "x"}),
    ]:
        head = f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        got = json_of(await rig.raw(head.encode()))
        assert (got["function"], got["params"]) == (name, params), request_line
        target = request_line.partition(" ")[2].removeprefix("http://example.org")
        assert f"{got['path']}?{got['query']}".rstrip("?") == target


async def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    for request_line, text in [
        (f"POST {PREFIX}/user", "Function not found..."),
        (f"POST {PREFIX}/user/7", "Function not found..."),
        (f"GET {PREFIX}/picky", "Function not found..."),
        (f"GET {PREFIX}/later-background", "Function not found..."),
        (f"GET {PREFIX}/missing", "Function not found..."),
        ("POST /users/root", "not_found"),
        ("POST /users/7/x", "not_found"),
        ("DELETE /items", "not_found"),
        ("POST /anything", "not_found"),
    ]:
        method, _, path = request_line.partition(" ")
        answer = await rig.client.request(method, path)
        assert (answer.status_code, text in answer.text) == (404, True), request_line


async def test_the_gateways_own_addresses_stay_its_own(rig: Rig) -> None:
    for path, status in [
        ("/v1/functions", 200),
        ("/v1/%66unctions", 200),
        ("/%761/functions", 200),
        ("/v1/missing", 404),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/console", 404),
        ("/openapi.json", 200),
    ]:
        answer = await rig.client.get(path)
        assert (answer.status_code, "function" in answer.headers) == (status, False), path
        assert "x-nf-request-id" not in answer.headers, path


async def test_every_address_that_the_gateway_has_is_kept_for_it(rig: Rig) -> None:
    rules = [rule.rule for rule in cast("Quart", rig.gateway.app).url_map.iter_rules()]
    assert len(rules) > 5
    assert [rule for rule in rules if not is_gateways(rule)] == []


async def test_a_background_function_is_accepted_at_its_path(rig: Rig) -> None:
    answer = await rig.client.put("/later/a/b", content=b"x")
    assert (answer.status_code, answer.content) == (202, b"")
    status = (await rig.client.get(answer.headers["location"])).json()
    assert (status["function"], status["mode"]) == ("later-background", "background")
    (delivery,) = [delivery async for delivery in rig.broker.pull("later-background", 1)]
    request = delivery.invocation.request
    assert (request.method, request.path, request.params) == ("PUT", "/later/a/b", {"0": "a/b"})
    metrics = (await rig.client.get("/metrics")).text
    assert 'quarterhour_accepted_total{function="later-background"} 1.0' in metrics
    requests = 'quarterhour_requests_total{function="later-background",mode="background",status="202"} 1.0'
    assert requests in metrics


async def test_head_runs_the_function_and_sends_no_body(rig: Rig) -> None:
    answer = await rig.client.head("/users/7")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await rig.client.head("/items")).status_code == 404, (
        "it takes GET alone, and that is what it says"
    )


async def test_nothing_is_unknown_before_the_functions_were_read(rig: Rig) -> None:
    rig.gateway.functions.ready = False
    for path in ("/users/7", "/anything"):
        answer = await rig.client.post(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert (await rig.client.get("/healthz")).status_code == 200


async def test_the_api_says_where_a_function_is(rig: Rig) -> None:
    listed = {one["name"]: one for one in (await rig.client.get("/v1/functions")).json()["functions"]}
    shown = {name: (one["url"], one["paths"], one["methods"]) for name, one in listed.items()}
    assert shown["user"] == ("/users/:id", ["/users/:id", "/me"], [])
    assert shown["get"] == ("/items", ["/items"], ["GET"])
    assert shown["hello"] == (f"{PREFIX}/hello", [f"{PREFIX}/hello"], [])
    assert listed["user"]["excluded_paths"] == ["/users/root"]


async def test_a_path_that_changes_is_served_at_once_and_a_rival_is_said() -> None:
    rival = "hello and other both have the path /x; hello gets its requests."
    with capture_logs() as logs:
        async with open_rig() as rig:
            await rig.announce(function("hello", path=("/x",)), function("other", path=("/x",)))
            await eventually(lambda: rig.gateway.functions.routes.complaints, what="the rival is known")
            assert (await rig.client.get("/x")).json()["function"] == "hello"
            await rig.announce(function("hello", path=("/y",)))
            await eventually(lambda: not rig.gateway.functions.routes.complaints, what="the change is known")
            assert (await rig.client.get("/y")).json()["function"] == "hello"
    assert [line["text"] for line in logs if line["event"] == "routes"] == [rival]
