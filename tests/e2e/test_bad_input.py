"""What a gateway refuses, with the rest of the system behind it: a clear answer, nothing lost or run."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import nats
import nats.errors
import pytest
import pytest_asyncio

from tests.e2e.notes import NOTE, notes
from tests.e2e.wire import PREFIX, Answer, exchange, request
from tests.system import Process, System
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = f"""{NOTE}
def handler(event, context):
    note("ran", context)
    return {{"statusCode": 200, "body": "ran"}}
"""
# Runs until a file named like its body appears.
WAITS = """
    import pathlib, time

    def handler(event, context):
        gate = pathlib.Path(__file__).parent.parent / event["body"]
        while not gate.exists():
            time.sleep(0.01)
        return {"statusCode": 200, "body": "done"}
"""
FUNCTIONS = {"notes": NOTES, "notes-background": NOTES, "waits": WAITS, "waits-background": WAITS}
TEXT = {"content-type": "text/plain"}
BOTH = ["notes", "notes-background"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["hypercorn", "granian"])
async def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("bad-input"), FUNCTIONS) as system:
        await system.start_gateway("--server", request.param)
        await system.start_runner("--slots", "1")
        yield system
        assert notes(system.folder) == []  # nothing that is refused here may ever run


async def sent(system: System, data: bytes) -> Answer:
    assert system.gateway is not None
    return await exchange(system.gateway.port, data)


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.values("content-type") == ["application/problem+json"]
    assert answer.json.keys() == {"type", "title", "status", "detail", "code"}
    assert (answer.json["status"], answer.json["code"]) == (status, code)


MALFORMED = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "no colon": b"POST PATH HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
    "a bad header name": b"POST PATH HTTP/1.1\r\nHost: x\r\nBad name: 1\r\n\r\n",
    "NUL in a header": b"POST PATH HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "no host": b"POST PATH HTTP/1.1\r\n\r\n",
    "two hosts": b"POST PATH HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a negative length": b"POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "lengths that differ": (
        b"POST PATH HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"
    ),
    "a broken chunk": b"POST PATH HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_http_is_400(system: System, case: str, name: str) -> None:
    data = MALFORMED[case].replace(b"PATH", f"{PREFIX}/{name}".encode())
    answer = await sent(system, data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert answer.status == 400


@pytest.mark.parametrize("name", BOTH)
async def test_a_header_block_past_its_limit_is_431(system: System, name: str) -> None:
    answer = await sent(system, request(f"{PREFIX}/{name}", headers=f"X-Filler: {'a' * 65_536}\r\n"))
    assert_problem(answer, 431, "headers_too_large")


@pytest.mark.parametrize("name", BOTH)
async def test_an_unfinished_body_runs_nothing(system: System, name: str) -> None:
    assert system.gateway is not None
    _, writer = await asyncio.open_connection("127.0.0.1", system.gateway.port)
    writer.write(f"POST {PREFIX}/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf".encode())
    await writer.drain()
    writer.close()  # that nothing ran is seen at the end
    with suppress(OSError):
        await writer.wait_closed()


async def test_two_lengths_are_400(tmp_path: Path) -> None:
    # With Hypercorn; Granian drops the Content-Length before an application can see that there was one.
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        for name in BOTH:
            for lengths in ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"):  # fmt: skip
                data = request(f"{PREFIX}/{name}", "POST", lengths) + b"5\r\nabcde\r\n0\r\n\r\n"
                assert_problem(await sent(system, data), 400, "ambiguous_length")
        assert notes(tmp_path) == []


async def test_saturated_runners_are_503(system: System) -> None:
    running = asyncio.ensure_future(system.post("waits", content="saturated", headers=TEXT))
    await eventually(lambda: has_running(system, "waits"), what="the only slot was taken")
    answer = await sent(system, request(f"{PREFIX}/notes", "POST"))
    assert_problem(answer, 503, "busy")
    assert int(answer.values("retry-after")[0]) >= 1
    (system.folder / "saturated").touch()
    assert (await running).text == "done"


async def has_running(system: System, name: str) -> bool:
    return await system.metric("quarterhour_running", function=name) == 1


async def test_a_call_that_gets_its_slot_in_time_is_served(system: System) -> None:
    # The slot is waited for during one second: a machine that stands still for longer is tried again.
    for number in range(3):
        gate = f"in time {number}"
        running = asyncio.ensure_future(system.post("waits", content=gate, headers=TEXT))
        await eventually(lambda: has_running(system, "waits"), what="the only slot was taken")
        queued = asyncio.ensure_future(system.post("waits", content=gate, headers=TEXT))
        await asyncio.wait([queued], timeout=0.2)
        (system.folder / gate).touch()
        answers = [(await call).text for call in (running, queued)]
        if answers[1] == "done":
            break
    assert answers == ["done", "done"]


async def test_without_a_runner_calls_are_503_and_background_work_is_accepted(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        runner = await system.start_runner()
        await runner.kill()
        await eventually(lambda: nobody_listens(system, runner), what="NATS knows that it is gone")
        # To the gateway it may still seem to be there at first: the call then finds nobody, and says so.
        for _ in range(2):
            answer = await sent(system, request(f"{PREFIX}/notes", "POST"))
            assert_problem(answer, 503, "no_runner")
            assert int(answer.values("retry-after")[0]) >= 1
            await eventually(lambda: nobody_serves(system))
        await system.enqueue("notes-background")
        assert (await sent(system, request(f"{PREFIX}/missing", "POST"))).status == 404


async def nobody_listens(system: System, runner: Process) -> bool:
    client = await nats.connect(system.nats.url)
    try:
        name = runner.facts("runner_started")[0]["runner"]
        await client.request(f"quarterhour.call.{name}", timeout=0.2)
    except nats.errors.NoRespondersError:
        return True
    except nats.errors.TimeoutError:
        return False
    finally:
        await client.close()
    return False


async def nobody_serves(system: System) -> bool:
    functions = (await system.get("/v1/functions")).json()["functions"]
    return {function["runners"] for function in functions} == {0}


async def test_too_many_waiting_are_429(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway("--waiting-limit", "3")
        runner = await system.start_runner()
        runner.send(signal.SIGTERM)
        await runner.ended()
        answers = [await sent(system, request(f"{PREFIX}/notes-background", "POST")) for _ in range(3)]
        # One that was on its way while the gateway looked at the queue may count twice, for a second.
        while 429 in [answer.status for answer in answers]:
            answers.remove(next(answer for answer in answers if answer.status == 429))
            await asyncio.sleep(1)
            answers.append(await sent(system, request(f"{PREFIX}/notes-background", "POST")))
        answers += [await sent(system, request(f"{PREFIX}/notes-background", "POST")) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429, 429]
        assert_problem(answers[4], 429, "too_many_waiting")
        assert int(answers[4].values("retry-after")[0]) >= 1
        # It is each function's own limit.
        assert (await sent(system, request(f"{PREFIX}/waits-background", "POST"))).status == 202
        # None beyond the limit was taken on, and none of the others is lost.
        await system.start_runner()
        for answer in answers[:3]:
            await system.in_state(answer.values("x-nf-request-id")[0], "succeeded")
        await eventually(lambda: accepts(system), what="there was room again")
        assert len(notes(tmp_path)) <= 4


async def accepts(system: System) -> bool:
    return (await system.post("notes-background")).status_code == 202


async def test_with_the_broker_away_everything_is_503_within_5_s(tmp_path: Path) -> None:
    # What was on its way to the runner when the broker died comes back when its lease has ended.
    async with System(tmp_path, FUNCTIONS, lease_s=3) as system:
        await system.start_gateway()
        await system.start_runner()
        assert (await system.post("notes")).status_code == 200

        async def timed(name: str) -> tuple[int, float]:
            began = time.monotonic()
            status = (await system.post(name, content=b"1")).status_code
            return status, time.monotonic() - began

        # Some are on their way when it dies, the others come later.
        early = [asyncio.ensure_future(timed("notes-background")) for _ in range(20)]
        await asyncio.sleep(0)
        system.nats.kill()
        died = time.monotonic()
        late = await asyncio.gather(*(timed(name) for name in BOTH * 10))
        assert {status for status, _ in late} == {503}
        answers = [*await asyncio.gather(*early), *late]
        assert {status for status, _ in answers} <= {202, 503}
        assert max(seconds for _, seconds in answers) < 5
        assert time.monotonic() - died < 10
        accepted = [status for status, _ in answers].count(202)

        answer = await sent(system, request(f"{PREFIX}/notes-background", "POST"))
        assert_problem(answer, 503, "broker_unavailable")
        assert int(answer.values("retry-after")[0]) >= 1
        assert (await system.get("/readyz")).status_code == 503
        assert (await system.get("/healthz")).status_code == 200
        assert (await system.get(f"/v1/invocations/{answer.values('x-nf-request-id')[0]}")).status_code == 503

        await asyncio.to_thread(system.nats.start)
        await eventually(lambda: ready(system), what="the gateway was ready again")
        status = await system.in_state(await system.enqueue("notes-background"), "succeeded")
        assert status["attempt"] == 1
        await eventually(lambda: len(notes(tmp_path)) >= accepted + 2, what="every accepted one had run")
        await eventually(lambda: calls_work(system), what="calls worked again")


async def test_with_a_broker_that_hangs_everything_is_answered_within_5_s(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()

        async def timed(name: str) -> tuple[int, float]:
            began = time.monotonic()
            status = (await system.post(name, content=b"1")).status_code
            return status, time.monotonic() - began

        # It takes four of the five seconds, so a machine that stands still meanwhile is tried again.
        for _ in range(3):
            system.nats.pause()
            try:
                answers = await asyncio.gather(*(timed(name) for name in BOTH * 10))
            finally:
                system.nats.resume()
            assert {status for status, _ in answers} <= {502, 503}
            await eventually(lambda: calls_work(system), what="calls worked again")
            longest_s = max(seconds for _, seconds in answers)
            if longest_s < 5:
                break
        assert longest_s < 5


async def ready(system: System) -> bool:
    return (await system.get("/readyz")).status_code == 200


async def calls_work(system: System) -> bool:
    try:
        return (await system.post("notes")).status_code == 200
    except httpx.TransportError:
        return False
