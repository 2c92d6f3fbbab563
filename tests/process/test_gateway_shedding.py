"""An overloaded gateway refuses a share of what comes for functions, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.pressure import FEW
from quarterhour.invocation import Invocation
from quarterhour.reply import Reply
from tests.process.gateway_rig import (
    PREFIX,
    Rig,
    answered,
    connected,
    function,
    json_of,
    open_rig,
    read_answer,
)
from tests.waiting import eventually

HELLO = f"POST {PREFIX}/hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode()
IN_PIECES = (
    f"POST {PREFIX}/hello HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
)


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with open_rig(request.param) as rig:
        yield rig


def overload(rig: Rig, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it refuse this share of requests, whatever it measures, as if many were under way."""
    pressure = rig.gateway.shedding._pressure
    monkeypatch.setattr(pressure, "look", lambda late_s: None)
    monkeypatch.setattr(pressure, "under_way", pressure.under_way + FEW)
    monkeypatch.setattr(pressure, "is_overloaded", True)
    monkeypatch.setattr(pressure, "_share", share)


async def answers(rig: Rig, *requests: bytes) -> list[bytes]:
    """What the requests get, one after the other on one connection."""
    async with connected(rig) as (reader, writer):
        got = []
        for request in requests:
            writer.write(request)
            got.append(await asyncio.wait_for(read_answer(reader), 30))
        return got


def statuses(got: list[bytes]) -> list[int]:
    return [int(answer.split()[1]) for answer in got]


async def counts(rig: Rig, *statuses: float) -> None:
    """Wait until as many requests as are named were answered with 200 and 503: the servers count last."""

    async def found() -> bool:
        seen = (await counted(rig, 200), await counted(rig, 503))
        assert all(has <= wanted for has, wanted in zip(seen, statuses, strict=True)), seen
        return seen == statuses

    await eventually(found, what=f"200 and 503 were counted {statuses} times")


async def counted(rig: Rig, status: int) -> float:
    page = (await rig.client.get("/metrics")).text
    series = f'quarterhour_requests_total{{function="hello",mode="synchronous",status="{status}"}} '
    return next(
        (float(line.removeprefix(series)) for line in page.splitlines() if line.startswith(series)), 0.0
    )


async def test_a_share_is_refused_and_the_connection_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    overload(rig, 0.5, monkeypatch)
    got = await answers(rig, *[HELLO] * 10)
    # Half of them, so nobody is asked about twice.
    assert statuses(got) == [200, 503] * 5
    refused = got[1]
    assert json_of(refused)["code"] == "overloaded"
    assert json_of(got[0])["body"] == "{}"
    head = refused.partition(b"\r\n\r\n")[0].lower()
    for header in (
        b"retry-after: 1",
        b"content-type: application/problem+json",
        b"x-content-type-options: nosniff",
    ):
        assert header in head.split(b"\r\n")
    ids = {
        line
        for answer in got
        for line in answer.lower().split(b"\r\n")
        if line.startswith(b"x-nf-request-id: ")
    }
    assert len(ids) == 10
    await counts(rig, 5, 5)


async def test_what_is_not_plain_gets_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    overload(rig, 0.5, monkeypatch)
    got = await answers(rig, *[IN_PIECES] * 4)
    assert statuses(got) == [200, 503] * 2
    assert json_of(got[1])["code"] == "overloaded"
    await counts(rig, 2, 2)


async def test_each_request_is_weighed_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    overload(rig, 0.5, monkeypatch)
    assert statuses(await answers(rig, *[HELLO, IN_PIECES] * 3)) == [200, 503] * 3


async def test_who_would_get_nothing_anyway_is_no_one_of_the_share(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    overload(rig, 0.5, monkeypatch)
    arrived = []
    monkeypatch.setattr(rig.gateway.shedding._pressure, "arrival", lambda: arrived.append(True))
    unknown = IN_PIECES.replace(b"/hello ", b"/unknown ")
    assert statuses(await answers(rig, *[IN_PIECES, unknown] * 4)) == [200, 404, 503, 404] * 2
    assert len(arrived) == 8  # but while they come it is looked how late everything is


async def test_what_looks_like_a_request_may_be_a_body(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    overload(rig, 1.0, monkeypatch)
    head = HELLO.replace(b": 2\r\n", b": %d\r\n" % len(HELLO)).removesuffix(b"{}")
    async with connected(rig) as (reader, writer), asyncio.timeout(30):
        writer.write(head)
        refused = await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)  # which nobody waits for any more
        await reader.readuntil(b"}")
        writer.write(HELLO)
        second = await read_answer(reader)
    assert statuses([refused, second]) == [503, 503]
    await counts(rig, 0, 2)


async def test_what_is_no_functions_is_never_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    overload(rig, 1.0, monkeypatch)
    for path in ("/healthz", "/readyz", "/metrics", "/v1/functions", "//healthz", "/%68ealthz"):
        got = await answers(rig, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (statuses(got), path) == ([200], path)
    assert statuses(await answers(rig, HELLO)) == [503]


async def test_a_path_of_a_functions_own_is_refused_in_its_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as where functions live by name, so that what follows could be taken for one.
    await rig.announce(function("orders", path=("/api/shops/main/420/:id",)), function("7"))
    overload(rig, 1.0, monkeypatch)
    assert (await rig.client.post("/api/shops/main/420/7")).status_code == 503
    line = 'quarterhour_requests_total{function="orders",mode="synchronous",status="503"} 1.0'

    async def counted_there() -> bool:
        return line in (await rig.client.get("/metrics")).text

    await eventually(counted_there, what="it was counted")


async def test_as_many_as_may_be_are_under_way() -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    async with open_rig(requests_max=1) as rig:

        async def slow(invocation: Invocation) -> Reply:
            started.set()
            await finish.wait()
            return answered(200)

        await rig.announce(function("slow"))
        await rig.runner("runner-2", "slow", handler=slow)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(rig.client.post(f"{PREFIX}/slow"))
            await started.wait()
            refused = await rig.client.post(f"{PREFIX}/hello")
            finish.set()
        assert (first.result().status_code, refused.status_code) == (200, 503)
        assert refused.json()["code"] == "overloaded"
        assert "1 requests" in refused.json()["detail"]
