"""Background functions from the POST to the end, and what the status address tells on the way."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from quarterhour.ids import new_id
from tests.e2e.wire import PREFIX, exchange, request
from tests.system import System
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = {
    # Returns what its body says, as JSON.
    "returns-background": """
        import json

        config = {"retry_delay": [0.1, 0.2]}

        async def handler(event, context):
            print("attempt", context.attempt)
            return json.loads(event["body"] or "null")
    """,
    "ignores-background": """
        config = {"returned_status": "ignore"}

        def handler(event, context):
            return {"statusCode": 503}
    """,
    "gone-background": "def handler(event, context): pass",
    "sees-background": """
        def handler(event, context):
            return {"event": event, "id": context.awsRequestId, "name": context.functionName}
    """,
    "object-background": """
        config = {"retry_delay": 0.1}

        def handler(event, context):
            return object()
    """,
    # Fails until its third attempt.
    "third-background": """
        import sys

        config = {"retry_delay": [0.1, 0.2]}

        def handler(event, context):
            print("out", context.attempt)
            print("err", [error["type"] for error in context.errors], file=sys.stderr)
            if context.attempt < 3:
                raise ValueError(f"attempt {context.attempt}")
            return {"attempt": context.attempt}
    """,
    "fails-background": """
        config = {"retries": 1, "retry_delay": 0.1}

        def handler(event, context):
            raise ValueError(f"attempt {context.attempt}")
    """,
    "patient-background": """
        config = {"retry_delay": 600}

        def handler(event, context):
            raise ValueError("not now")
    """,
    "never-again-background": """
        from quarterhour import DoNotRetry

        def handler(event, context):
            raise DoNotRetry("it is of no use")
    """,
    "later-background": """
        from quarterhour import RetryAfter

        config = {"retries": 1, "retry_delay": 600}

        def handler(event, context):
            if context.attempt == 1:
                raise RetryAfter(0.5, "come again")
            return "came again"
    """,
    "broken-import-background": "config = {'retries': 1, 'retry_delay': 0.1}\nimport nowhere_to_be_found\n",
    # Runs until a file named like its body appears.
    "waits-background": """
        import pathlib, time

        def handler(event, context):
            gate = pathlib.Path(__file__).parent.parent / event["body"]
            while not gate.exists():
                time.sleep(0.01)
            return "done"
    """,
}
TEXT = {"content-type": "text/plain"}
TRIES = 3  # for what has to be quick: once at least, the machine does not stand still meanwhile


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("background"), FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system


async def ended(system: System, name: str, **kwargs: Any) -> dict[str, Any]:
    """The status at the end of an invocation."""
    id = await system.enqueue(name, **kwargs)
    status: dict[str, Any] = (await system.get(f"/v1/invocations/{id}?wait=60")).json()
    assert status["state"] in {"succeeded", "dead"}, status
    return status


async def all_returned(system: System, results: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Each of the results, and the status at the end of an invocation that returned it."""
    ends = await asyncio.gather(*(ended(system, "returns-background", json=result) for result in results))
    return list(zip(results, ends, strict=True))


def moment(text: str) -> float:
    """What the API says of a time, as Unix seconds."""
    assert text.endswith("Z")
    return datetime.fromisoformat(text).timestamp()


# The answer


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW"])
async def test_every_method_is_accepted(system: System, method: str) -> None:
    assert system.gateway is not None
    answer = await exchange(system.gateway.port, request(f"{PREFIX}/sees-background/sub?q=1", method))
    assert (answer.status, answer.body, answer.rest) == (202, b"", b"")
    assert answer.values("content-length") == ["0"]
    assert answer.values("content-type") == []
    (id,) = answer.values("x-nf-request-id")
    assert answer.values("location") == [f"/v1/invocations/{id}"]
    status = await system.in_state(id, "succeeded")
    assert status["result"]["event"]["httpMethod"] == method


async def test_it_sees_what_a_synchronous_function_sees(system: System) -> None:
    body = '{"to": "é"}'
    status = await ended(
        system,
        "sees-background/a%2Fb//?a=1&a=2",
        content=body.encode(),
        headers={"Content-Type": "application/json", "X-One": "1"},
    )
    event = status["result"]["event"]
    assert event["path"] == f"{PREFIX}/sees-background/a%2Fb//"
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    assert (event["body"], event["isBase64Encoded"]) == (body, False)
    assert event["headers"]["x-one"] == "1"
    assert event["headers"]["x-nf-request-id"] == status["result"]["id"] == status["id"]
    assert status["result"]["name"] == "sees-background"


async def test_the_answer_comes_before_the_function_has_run(system: System) -> None:
    id = await system.enqueue("waits-background", content="early", headers=TEXT)
    status = await system.in_state(id, "running")
    assert status["finished_at"] is None
    (system.folder / "early").touch()
    assert (await system.in_state(id, "succeeded"))["result"] == "done"


async def test_an_import_error_is_accepted_and_becomes_a_dead_letter(system: System) -> None:
    status = await ended(system, "broken-import-background")
    assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 2)
    assert status["error"]["type"] == "ModuleNotFoundError"


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
async def test_the_client_may_go(system: System, server: str) -> None:
    default = system.gateway
    gateway = await system.start_gateway("--server", server)
    system.gateway = default
    succeeded = {"function": "gone-background", "result": "succeeded"}
    before = await system.metric("quarterhour_outcomes_total", **succeeded)

    async def shown(sample: str) -> bool:
        return sample in (await system.metrics_page(gateway)).splitlines()

    system.nats.pause()  # so that all of them go while their invocation is on its way to the disk
    try:
        clients = [(await asyncio.open_connection("127.0.0.1", gateway.port))[1] for _ in range(10)]
        for client in clients:
            client.write(request(f"{PREFIX}/gone-background", "POST", body=b"1"))
        # One whose body has not come yet is not under way.
        await eventually(
            lambda: shown("quarterhour_requests_under_way 10.0"), what="the gateway was at work on all"
        )
        for client in clients[:5]:
            client.close()
        for client in clients[5:]:
            client.transport.abort()
    finally:
        system.nats.resume()

    async def all_have_run() -> bool:
        return await system.metric("quarterhour_outcomes_total", **succeeded) == before + 10

    await eventually(all_have_run, what="all of them ran")
    await eventually(
        lambda: shown('quarterhour_accepted_total{function="gone-background"} 10.0'),
        what="all of them were counted as accepted",
    )


# What it returns


RESULTS = [None, "text", "", [], [1, "a"], 0, 1.5, True, {}, {"a": {"b": ["é", None]}}, {"body": "no status"}]


async def test_any_json_value_is_a_success(system: System) -> None:
    for result, status in await all_returned(system, RESULTS):
        assert (status["state"], status["outcome"], status["error"]) == ("succeeded", "succeeded", None)
        assert (status["result"], status["attempt"]) == (result, 1)


async def test_a_status_below_400_is_a_success(system: System) -> None:
    results = [{"statusCode": code, "body": "x"} for code in (200, 202, 204, 301, "200")]
    for result, status in await all_returned(system, results):
        assert (status["state"], status["result"]) == ("succeeded", result)


async def test_4xx_has_failed_and_is_not_retried(system: System) -> None:
    results = [{"statusCode": code, "body": "bad address"} for code in (400, 404, 499, "422")]
    for result, status in await all_returned(system, results):
        assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 1)
        assert status["outcome"] == "failed"
        assert status["error"]["type"] == "ReturnedStatus"
        message = f"The function returned the status {result['statusCode']}: bad address"
        assert status["error"]["message"] == message


async def test_5xx_has_failed_and_is_retried(system: System) -> None:
    for _, status in await all_returned(system, [{"statusCode": code} for code in (500, 503, "502")]):
        assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 3)
        assert [attempt["outcome"] for attempt in status["attempts"]] == ["failed"] * 3


async def test_a_returned_status_can_be_ignored(system: System) -> None:
    status = await ended(system, "ignores-background")
    assert (status["state"], status["result"]) == ("succeeded", {"statusCode": 503})


async def test_a_status_that_is_none_has_failed_and_is_not_retried(system: System) -> None:
    results = [{"statusCode": code} for code in (0, "word", None, 99, 600)]
    for _, status in await all_returned(system, results):
        assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 1)
        assert status["error"]["type"] == "InvalidResult"


async def test_what_is_not_json_has_failed_and_is_not_retried(system: System) -> None:
    status = await ended(system, "object-background")
    assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 1)
    assert status["error"]["type"] == "InvalidResult"


# Retries


async def test_attempts_are_numbered_and_each_has_its_evidence(system: System) -> None:
    for _ in range(TRIES):
        before = time.time()
        status = await ended(system, "third-background")
        if max(waited_s(status)) < 2:
            break
    assert (status["state"], status["attempt"], status["result"]) == ("succeeded", 3, {"attempt": 3})
    attempts = status["attempts"]
    assert [attempt["attempt"] for attempt in attempts] == [1, 2, 3]
    assert [attempt["outcome"] for attempt in attempts] == ["failed", "failed", "succeeded"]
    assert [attempt["error"] and attempt["error"]["message"] for attempt in attempts] == [
        "attempt 1",
        "attempt 2",
        None,
    ]
    assert "third-background.py" in "\n".join(attempts[0]["error"]["trace"])
    assert all(f"out {attempt['attempt']}" in attempt["logs"] for attempt in attempts)
    assert "err ['ValueError', 'ValueError']" in attempts[2]["logs"]
    times = [moment(attempt[key]) for attempt in attempts for key in ("started_at", "finished_at")]
    assert times == sorted(times)
    assert before - 0.01 < times[0]
    # Each retry waited for its delay, and not for long after it.
    assert 0.09 < times[2] - times[1] < 2
    assert 0.19 < times[4] - times[3] < 2
    assert moment(status["accepted_at"]) <= times[0]
    assert moment(status["finished_at"]) == times[5]


def waited_s(status: dict[str, Any]) -> list[float]:
    """How long it was from the end of each attempt to the beginning of the next one."""
    attempts = status["attempts"]
    return [
        moment(later["started_at"]) - moment(earlier["finished_at"])
        for earlier, later in itertools.pairwise(attempts)
    ]


async def test_after_the_last_retry_it_is_dead(system: System) -> None:
    status = await ended(system, "fails-background")
    assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 2)
    assert (status["outcome"], status["error"]["message"]) == ("failed", "attempt 2")
    assert (status["result"], status["next_attempt_at"]) == (None, None)


async def test_between_attempts_it_is_retrying(system: System) -> None:
    id = await system.enqueue("patient-background")
    status = await system.in_state(id, "retrying")
    assert (status["attempt"], status["outcome"], status["finished_at"]) == (1, "failed", None)
    (attempt,) = status["attempts"]
    assert moment(status["next_attempt_at"]) == pytest.approx(moment(attempt["finished_at"]) + 600, abs=0.1)


async def test_do_not_retry(system: System) -> None:
    status = await ended(system, "never-again-background")
    assert (status["state"], status["reason"], status["attempt"]) == ("dead", "failed", 1)
    assert status["error"]["type"] == "DoNotRetry"
    assert status["error"]["message"] == "it is of no use"


async def test_retry_after(system: System) -> None:
    for _ in range(TRIES):
        status = await ended(system, "later-background")
        (after_s,) = waited_s(status)
        if after_s < 3:
            break
    assert (status["state"], status["result"], status["attempt"]) == ("succeeded", "came again", 2)
    assert status["attempts"][0]["error"]["message"] == "come again"
    assert 0.49 < after_s < 3


# The status address


async def test_a_running_one_says_since_when_and_where(system: System) -> None:
    before = time.time()
    id = await system.enqueue("waits-background", content="where", headers=TEXT)
    status = await system.in_state(id, "running")
    assert before - 0.01 < moment(status["started_at"]) < time.time() + 0.01
    assert (status["function"], status["mode"], status["attempt"]) == ("waits-background", "background", 1)
    (started,) = [fact for process in system.processes for fact in process.facts("runner_started")]
    assert status["runner"] == started["runner"]
    assert status["attempts"] == []
    (system.folder / "where").touch()
    status = await system.in_state(id, "succeeded")
    assert status["runner"] is None
    assert [attempt["runner"] for attempt in status["attempts"]] == [started["runner"]]


async def test_waiting_for_the_end_returns_when_it_comes(system: System) -> None:
    took_s = []
    for number in range(TRIES):
        gate = f"end {number}"
        id = await system.enqueue("waits-background", content=gate, headers=TEXT)
        await system.in_state(id, "running")
        waiting = asyncio.ensure_future(system.get(f"/v1/invocations/{id}?wait=30"))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        began = time.monotonic()
        (system.folder / gate).touch()
        answer = (await waiting).json()
        assert (answer["state"], answer["result"]) == ("succeeded", "done")
        took_s.append(time.monotonic() - began)
        if took_s[-1] < 2:
            break
    # A gateway that hears of no end looks again after 5 s, of which less than one has passed.
    assert min(took_s) < 2


async def test_waiting_for_the_end_is_over_after_its_seconds(system: System) -> None:
    id = await system.enqueue("waits-background", content="seconds", headers=TEXT)
    took_s = []
    for _ in range(TRIES):
        began = time.monotonic()
        answer = (await system.get(f"/v1/invocations/{id}?wait=1")).json()
        assert answer["state"] in {"running", "waiting"}
        took_s.append(time.monotonic() - began)
        if took_s[-1] < 5:
            break
    assert 0.9 < min(took_s) < 5
    (system.folder / "seconds").touch()
    await system.in_state(id, "succeeded")


async def test_waiting_for_what_has_ended_returns_at_once(system: System) -> None:
    status = await ended(system, "returns-background")
    took_s = []
    for _ in range(TRIES):
        began = time.monotonic()
        assert (await system.get(f"/v1/invocations/{status['id']}?wait=30")).json() == status
        took_s.append(time.monotonic() - began)
        if took_s[-1] < 5:
            break
    assert min(took_s) < 5


@pytest.mark.parametrize("seconds", ["-1", "word", "nan", "inf", ""])
async def test_what_is_no_number_of_seconds_is_refused(system: System, seconds: str) -> None:
    answer = await system.get(f"/v1/invocations/{new_id()}?wait={seconds}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("id", ["0190a0b0-0000-7000-8000-000000000000", "x", "*", "%3E", "..%2f", "a" * 300])
async def test_an_unknown_id_is_404(system: System, id: str) -> None:
    answer = await system.get(f"/v1/invocations/{id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_large_result_is_kept_up_to_its_limit(system: System) -> None:
    text = "x" * 100_000
    status = await ended(system, "returns-background", json=text)
    assert status["state"] == "succeeded"
    assert status["result_truncated"]
    assert json.dumps(text).startswith(status["result"])
    assert len(status["result"]) == 65_536
