"""What comes back from functions, over real HTTP: results, refusals, lost runners, background accepts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.body import BodyLimits
from quarterhour.broker.memory import MemoryBroker
from quarterhour.broker.port import Key
from quarterhour.errors import BrokerUnavailable, TooLarge
from quarterhour.ids import is_invocation_id
from quarterhour.invocation import Invocation
from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Response, Succeeded, TimedOut
from quarterhour.reply import Refusal, Refused, Reply
from quarterhour.settings import Server
from tests.process.gateway_rig import PREFIX, Rig, answered, connected, function, json_of, open_rig
from tests.waiting import eventually

FAILURE = Failed(error=Error(type="ValueError", message="no such thing", trace=("line 1", "line 2")))


@pytest.fixture(params=["hypercorn", "granian"])
def server(request: pytest.FixtureRequest) -> Server:
    name: Server = request.param
    return name


@pytest.fixture
async def rig(server: Server) -> AsyncIterator[Rig]:
    async with open_rig(server) as rig:
        yield rig


def always(reply: Reply) -> Callable[[Invocation], Awaitable[Reply]]:
    async def handler(_: Invocation) -> Reply:
        return reply

    return handler


async def reply_with(rig: Rig, reply: Reply, method: str = "GET") -> Any:
    """What a client gets if a function comes to `reply`."""
    await rig.announce(function("one"))
    await rig.runner("runner-one", "one", handler=always(reply))
    return await rig.client.request(method, f"{PREFIX}/one")


@pytest.mark.parametrize("status", [200, 201, 301, 404, 418, 500, 503, 599])
async def test_the_status_is_the_functions(rig: Rig, status: int) -> None:
    answer = await reply_with(rig, answered(status, b"text"))
    assert (answer.status_code, answer.content) == (status, b"text")
    assert "content-type" not in answer.headers
    assert is_invocation_id(answer.headers["x-nf-request-id"])


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_never_carry_a_body(rig: Rig, status: int) -> None:
    answer = await reply_with(rig, answered(status, b"text"))
    assert (answer.status_code, answer.content) == (status, b"")
    assert (await rig.client.get(f"{PREFIX}/hello")).status_code == 200


async def test_a_header_may_have_several_lines(rig: Rig) -> None:
    headers = (("set-cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "caf\xe9"), ("x-wide", "\u2603"))
    answer = await reply_with(rig, Succeeded(response=Response(headers=headers, body=b"x")))
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert (b"x-latin", b"caf\xe9") in answer.headers.raw
    assert (b"x-wide", "\u2603".encode()) in answer.headers.raw


async def test_headers_of_the_connection_are_not_the_functions_to_set(rig: Rig) -> None:
    headers = {
        "content-length": "1000",
        "transfer-encoding": "chunked",
        "connection": "close",
        "date": "yesterday",
        "X-NF-Request-Id": "made-up",
    }
    answer = await reply_with(rig, answered(200, b"text", **headers))
    assert answer.headers.get_list("content-length") == ["4"]
    assert "transfer-encoding" not in answer.headers
    assert answer.headers.get_list("date") != ["yesterday"]
    assert len(answer.headers.get_list("date")) == 1
    assert is_invocation_id(answer.headers["x-nf-request-id"])


async def test_head_has_the_headers_and_no_body(rig: Rig) -> None:
    answer = await reply_with(rig, answered(200, b"text", **{"x-one": "1"}), "HEAD")
    assert (answer.content, answer.headers["content-length"], answer.headers["x-one"]) == (b"", "4", "1")


async def test_a_failure_is_500_with_type_and_message(rig: Rig) -> None:
    answer = await reply_with(rig, FAILURE)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"errorType": "ValueError", "errorMessage": "no such thing"}


async def test_a_failure_of_head_has_no_body(rig: Rig) -> None:
    answer = await reply_with(rig, FAILURE, "HEAD")
    assert (answer.status_code, answer.content) == (500, b"")


async def test_the_trace_is_shown_only_if_asked_for(server: Server) -> None:
    async with open_rig(server, expose_errors=True) as rig:
        assert (await reply_with(rig, FAILURE)).json()["trace"] == ["line 1", "line 2"]


async def test_a_crash_is_500(rig: Rig) -> None:
    answer = await reply_with(rig, Crashed(signal="SIGKILL"))
    assert (answer.status_code, answer.json()["errorType"]) == (500, "Crashed")


@pytest.mark.parametrize(
    ("reply", "status", "code"), [(TimedOut(limit_s=3.0), 504, "timed_out"), (Cancelled(), 502, "cancelled")]
)
async def test_what_did_not_finish_is_a_problem(rig: Rig, reply: Reply, status: int, code: str) -> None:
    answer = await reply_with(rig, reply)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_response_past_its_limit_is_a_problem(server: Server) -> None:
    async with open_rig(server, response_bytes_max=1000) as rig:
        answer = await reply_with(rig, answered(200, b"x" * 1001))
        assert (answer.status_code, answer.json()["code"]) == (502, "response_too_large")


async def test_a_large_response_arrives_whole(rig: Rig) -> None:
    body = bytes(range(256)) * 20_000
    assert (await reply_with(rig, answered(200, body))).content == body


async def test_without_a_runner_it_is_503(rig: Rig) -> None:
    await rig.announce(function("one"))
    answer = await rig.client.get(f"{PREFIX}/one")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_runner")
    assert int(answer.headers["retry-after"]) > 0


async def test_if_all_runners_are_busy_it_is_503_and_each_is_asked_once(rig: Rig) -> None:
    await rig.announce(function("one"))
    busy = always(Refused(reason=Refusal.BUSY))
    runners = [await rig.runner(f"busy-{number}", "one", handler=busy) for number in range(3)]
    answer = await rig.client.get(f"{PREFIX}/one")
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    assert [len(runner.taken) for runner in runners] == [1, 1, 1]


@pytest.mark.parametrize("refusal", list(Refusal))
async def test_another_runner_takes_what_one_refuses(rig: Rig, refusal: Refusal) -> None:
    await rig.announce(function("one"))
    refusing = await rig.runner("refusing", "one", handler=always(Refused(reason=refusal)))
    willing = await rig.runner("willing", "one")
    answers = [await rig.client.get(f"{PREFIX}/one") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(willing.taken) == 4
    assert len(refusing.taken) >= 1


async def test_another_runner_takes_the_call_of_one_that_is_gone(rig: Rig) -> None:
    await rig.announce(function("one"))
    gone = await rig.runner("gone", "one")
    willing = await rig.runner("willing", "one")
    await gone.broker.stop_serving()
    gone.beating = False
    answers = [await rig.client.get(f"{PREFIX}/one") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert (len(willing.taken), len(gone.taken)) == (4, 0)


async def test_calls_go_to_the_runner_with_the_fewest(rig: Rig) -> None:
    await rig.announce(function("one"))
    go_on = asyncio.Event()

    async def hold(_: Invocation) -> Reply:
        await go_on.wait()
        return answered()

    runners = [await rig.runner(f"holding-{number}", "one", handler=hold) for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(rig.client.get(f"{PREFIX}/one")) for _ in range(9)]
        await eventually(lambda: sum(len(runner.taken) for runner in runners) == 9)
        assert [len(runner.taken) for runner in runners] == [3, 3, 3]
        go_on.set()
    assert {call.result().status_code for call in calls} == {200}


async def test_a_draining_runner_gets_no_new_calls_but_finishes_its_own(rig: Rig) -> None:
    await rig.announce(function("one"))
    go_on = asyncio.Event()

    async def hold(_: Invocation) -> Reply:
        await go_on.wait()
        return answered(200, b"held")

    draining = await rig.runner("draining", "one", handler=hold)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(rig.client.get(f"{PREFIX}/one"))
        await eventually(lambda: draining.taken)
        draining.draining = True
        await draining.beat()
        await draining.broker.stop_serving()
        await eventually(lambda: not rig.gateway.runners.serving("one"))
        assert (await rig.client.get(f"{PREFIX}/one")).json()["code"] == "no_runner"
        await asyncio.sleep(1.0)  # it is not mistaken for lost
        go_on.set()
    assert (call.result().status_code, call.result().content) == (200, b"held")


async def test_a_runner_that_goes_silent_with_a_call_is_502_and_nobody_else_runs_it(rig: Rig) -> None:
    await rig.announce(function("one"))

    async def never(_: Invocation) -> Reply:
        await asyncio.Event().wait()
        return answered()

    silent = await rig.runner("silent", "one", handler=never)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(rig.client.get(f"{PREFIX}/one"))
        await eventually(lambda: silent.taken)
        other = await rig.runner("other", "one")
        await silent.beat()  # for the last time
        silent.beating = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await call
    assert (answer.status_code, answer.json()["code"]) == (502, "runner_lost")
    assert 2.0 < loop.time() - began < 20.0  # and not at the end of the function's own time
    assert other.taken == []


BACKGROUND = f"{PREFIX}/hello-background"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"])
async def test_a_background_function_answers_202_to_every_method(rig: Rig, method: str) -> None:
    answer = await rig.client.request(method, f"{BACKGROUND}/sub?x=1")
    invocation_id = answer.headers["x-nf-request-id"]
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["location"] == f"/v1/invocations/{invocation_id}"
    assert answer.headers["content-length"] == "0"
    assert "content-type" not in answer.headers
    deliveries = [delivery async for delivery in rig.broker.pull("hello-background", 10)]
    assert [delivery.invocation.id for delivery in deliveries] == [invocation_id]
    invocation = deliveries[0].invocation
    assert (invocation.mode, invocation.attempt) == ("background", 1)
    assert (invocation.request.method, invocation.request.path) == (method, f"{BACKGROUND}/sub")


async def test_a_request_with_the_same_key_is_answered_as_the_first(rig: Rig) -> None:
    async def post(key: str, path: str = BACKGROUND, **request: Any) -> Any:
        return await rig.client.post(path, headers={"idempotency-key": key}, **request)

    first = await post('"order 17"', content=b"a")
    again = await post('"order 17"', content=b"a")
    assert [answer.status_code for answer in (first, again)] == [202, 202]
    for name in ("location", "x-nf-request-id"):
        assert first.headers[name] == again.headers[name]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await post('"order 17"', content=b"b")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    bad = await post("order 17", content=b"a")
    assert (bad.status_code, bad.json()["code"]) == (400, "bad_idempotency_key")
    assert len([delivery async for delivery in rig.broker.pull("hello-background", 10)]) == 1
    assert rig.gateway._backlog.waiting("hello-background") <= 1
    # Of a synchronous function it is a header like any other, whatever it says.
    echoed = (await post("order 17", f"{PREFIX}/hello")).json()
    assert ["idempotency-key", "order 17"] in echoed["headers"]


async def test_a_repeat_is_answered_as_the_first_though_too_many_wait(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: MemoryBroker, function: str, key_text: str) -> bool:
        message = "Away."
        raise BrokerUnavailable(message)

    async with open_rig(server, waiting_max=1, body=BodyLimits()) as rig:

        async def post(key: str, content: bytes) -> tuple[int, str | None]:
            answer = await rig.client.post(BACKGROUND, headers={"idempotency-key": key}, content=content)
            return answer.status_code, answer.headers.get("location")

        first = await post("k", b"a")
        assert first[0] == 202
        assert await post("k", b"a") == first
        assert await post("k", b"b") == (422, None)
        assert await post("l", b"a") == (429, None)
        assert (await rig.client.post(BACKGROUND)).status_code == 429
        # Nothing is read of what is not known.
        head = f"POST {BACKGROUND} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: l\r\nContent-Length: 5\r\n\r\n"
        assert json_of(await rig.raw(head.encode()))["code"] == "too_many_waiting"
        monkeypatch.setattr(MemoryBroker, "knows", away)
        assert await post("k", b"a") == (503, None)
        assert len([delivery async for delivery in rig.broker.pull("hello-background", 10)]) == 1


async def test_a_202_comes_only_after_the_broker_has_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = asyncio.Event()
    enqueue = MemoryBroker.enqueue

    async def slow(self: MemoryBroker, invocation: Invocation, key: Key | None) -> str:
        await stored.wait()
        return await enqueue(self, invocation, key)

    monkeypatch.setattr(MemoryBroker, "enqueue", slow)
    async with asyncio.TaskGroup() as tasks:
        post = tasks.create_task(rig.client.post(BACKGROUND, content=b"x"))
        done, _ = await asyncio.wait({post}, timeout=0.3)
        assert not done
        stored.set()
    assert post.result().status_code == 202


async def test_client_gone_before_202(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    enqueue = MemoryBroker.enqueue

    async def slow(self: MemoryBroker, invocation: Invocation, key: Key | None) -> str:
        begun.set()
        await go_on.wait()
        return await enqueue(self, invocation, key)

    monkeypatch.setattr(MemoryBroker, "enqueue", slow)
    async with connected(rig) as (_, writer):
        writer.write(f"POST {BACKGROUND} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".encode())
        await asyncio.wait_for(begun.wait(), 30)
        writer.transport.abort()
    await asyncio.sleep(0.3)  # the server has noticed by now
    go_on.set()
    await eventually(lambda: rig.broker.store.queues.get("hello-background"), what="it is stored")


async def test_a_client_that_goes_away_does_not_disturb_a_call(rig: Rig) -> None:
    await rig.announce(function("one"))
    go_on = asyncio.Event()
    ended = []

    async def hold(invocation: Invocation) -> Reply:
        await go_on.wait()
        ended.append(invocation)
        return answered(200, b"x" * 100_000)

    runner = await rig.runner("holding", "one", handler=hold)
    async with connected(rig) as (_, writer):
        writer.write(f"GET {PREFIX}/one HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await eventually(lambda: runner.taken)
        writer.transport.abort()
    await asyncio.sleep(0.2)
    go_on.set()
    await eventually(lambda: ended)
    assert (await rig.client.get(f"{PREFIX}/hello")).status_code == 200


@pytest.mark.parametrize("name", ["hello", "hello-background"])
async def test_with_the_broker_away_it_is_503_at_once(rig: Rig, name: str) -> None:
    rig.broker.store.away = True
    answer = await asyncio.wait_for(rig.client.post(f"{PREFIX}/{name}"), 20)
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    rig.broker.store.away = False
    assert (await rig.client.post(BACKGROUND)).status_code == 202


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BrokerUnavailable("Away."), 503, "broker_unavailable"),
        (TooLarge("Too large."), 413, "body_too_large"),
    ],
)
async def test_what_the_broker_refuses_is_never_a_202(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def refuse(self: MemoryBroker, invocation: Invocation, key: Key | None) -> str:
        raise error

    monkeypatch.setattr(MemoryBroker, "enqueue", refuse)
    answer = await rig.client.post(BACKGROUND)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_fault_of_ours_is_a_problem_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: MemoryBroker, invocation: Invocation, key: Key | None) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(MemoryBroker, "enqueue", broken)
    answer = await rig.client.post(BACKGROUND)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")


async def test_too_many_waiting_are_429_and_another_function_is_not_affected(server: Server) -> None:
    async with open_rig(server, waiting_max=3) as rig:
        await rig.announce(function("other-background"))
        statuses = [(await rig.client.post(BACKGROUND)).status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 429, 429]
        answer = await rig.client.post(BACKGROUND)
        assert answer.json()["code"] == "too_many_waiting"
        assert int(answer.headers["retry-after"]) > 0
        assert (await rig.client.post(f"{PREFIX}/other-background")).status_code == 202
        for delivery in [one async for one in rig.broker.pull("hello-background", 10)]:
            await rig.broker.acknowledge(delivery)

        async def accepts() -> bool:
            return (await rig.client.post(BACKGROUND)).status_code == 202

        await eventually(accepts, what="there is room again")


async def test_delayed_ones_count_toward_the_limit(server: Server) -> None:
    later = {"x-quarterhour-delay": "1000"}
    async with open_rig(server, waiting_max=3) as rig:

        async def delayed() -> bool:
            page = (await rig.client.get("/metrics")).text
            return 'quarterhour_delayed{function="hello-background"} 2.0' in page

        statuses = [(await rig.client.post(BACKGROUND, headers=later)).status_code for _ in range(2)]
        await eventually(delayed, what="the broker has counted them")
        statuses += [(await rig.client.post(BACKGROUND)).status_code for _ in range(2)]
        assert statuses == [202, 202, 202, 429]
        answer = await rig.client.post(BACKGROUND, headers=later)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_waiting")
        assert "3 invocations of hello-background wait or are delayed already; 3 may." in answer.text


async def test_many_requests_at_once_all_get_their_own_answer(rig: Rig) -> None:
    async def one(number: int) -> str:
        answer = await rig.client.post(f"{PREFIX}/hello/{number}", content=str(number).encode())
        assert answer.status_code == 200, answer.text
        return str(answer.json()["body"])

    assert await asyncio.gather(*map(one, range(200))) == list(map(str, range(200)))
