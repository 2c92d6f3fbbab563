"""The API, health and metrics, over real HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from quarterhour.broker.port import Delivery, Run, Settlement
from quarterhour.outcome import Error, Failed, Succeeded
from quarterhour.record import settled, waiting
from quarterhour.retry import Bury, BuryReason, Complete, Retry
from tests.process.gateway_rig import PREFIX, Rig, function, open_rig
from tests.waiting import eventually

BACKGROUND = f"{PREFIX}/hello-background"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


async def accepted(rig: Rig) -> tuple[str, Delivery]:
    """The status address of an accepted invocation, and its delivery."""
    answer = await rig.client.post(BACKGROUND)
    assert answer.status_code == 202
    deliveries = [delivery async for delivery in rig.broker.pull("hello-background", 1)]
    return answer.headers["location"], deliveries[0]


async def settle(rig: Rig, delivery: Delivery, outcome: Any, disposition: Any) -> None:
    record = settled(
        waiting(delivery.invocation),
        outcome,
        disposition,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_001.5,
        logs="a line\n",
        runner="runner-1",
    )
    await rig.broker.settle(Settlement(delivery=delivery, record=record))


async def metric(rig: Rig, line: str) -> float | None:
    text = (await rig.client.get("/metrics")).text
    for found in text.splitlines():
        if found.startswith(line + " "):
            return float(found.rpartition(" ")[2])
    return None


async def test_functions_are_listed(rig: Rig) -> None:
    await rig.announce(function("broken", error="line 3: invalid syntax"))
    listed = (await rig.client.get("/v1/functions")).json()["functions"]
    assert [(one["name"], one["mode"], one["url"], one["runners"]) for one in listed] == [
        ("broken", "synchronous", f"{PREFIX}/broken", 0),
        ("hello", "synchronous", f"{PREFIX}/hello", 1),
        ("hello-background", "background", BACKGROUND, 0),
    ]
    assert listed[0]["error"] == "line 3: invalid syntax"
    assert {"runtime", "schedule", "next_run", "timeout_s", "retries"} <= set(listed[0])
    assert (await rig.client.get("/v1/functions/broken")).json() == listed[0]


async def test_what_a_runner_serves_and_nobody_has_read_of_is_named(rig: Rig) -> None:
    await rig.runner("runner-2", "hello", "just-announced")
    assert (await rig.client.get("/v1/functions")).json()["unread"] == ["just-announced"]
    await rig.announce(function("just-announced"))
    assert (await rig.client.get("/v1/functions")).json()["unread"] == []


async def test_an_unknown_function_is_a_problem(rig: Rig) -> None:
    answer = await rig.client.get("/v1/functions/missing")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_function")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_withdrawn_functions_are_unknown_again(rig: Rig) -> None:
    await rig.broker.withdraw(["hello-background"])

    async def gone() -> bool:
        return (await rig.client.post(BACKGROUND)).status_code == 404

    await eventually(gone, what="the function is unknown")
    assert (await rig.client.get("/v1/functions/hello-background")).status_code == 404


async def test_runners_metrics_are_listed_for_prometheus(rig: Rig) -> None:
    answer = await rig.client.get("/v1/runners/targets")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [{"targets": ["127.0.0.1:9465"], "labels": {"runner": "runner-1"}}]


async def test_a_waiting_invocation(rig: Rig) -> None:
    answer = await rig.client.post(BACKGROUND)
    status = (await rig.client.get(answer.headers["location"])).json()
    assert status["id"] == answer.headers["x-nf-request-id"]
    assert (status["function"], status["mode"]) == ("hello-background", "background")
    assert (status["state"], status["attempt"], status["attempts"]) == ("waiting", 1, [])
    assert TIME.fullmatch(status["accepted_at"])
    empty = ("started_at", "finished_at", "next_attempt_at", "outcome", "error", "result")
    assert {key: status[key] for key in empty} == dict.fromkeys(empty)


async def test_a_running_invocation(rig: Rig) -> None:
    location, delivery = await accepted(rig)
    runner = await rig.runner("runner-9")
    run = Run(runner="runner-9", attempt=1, started_at=None)
    await runner.broker.answer_who_runs(lambda one: run if one == delivery.invocation.id else None)
    assert (await rig.client.get(location)).json()["state"] == "waiting", "its handler is not started yet"
    run = replace(run, started_at=1_700_000_000.25)
    status = (await rig.client.get(location)).json()
    assert (status["state"], status["attempt"], status["runner"]) == ("running", 1, "runner-9")
    assert status["started_at"] == "2023-11-14T22:13:20.250Z"


async def test_an_invocation_that_succeeded(rig: Rig) -> None:
    location, delivery = await accepted(rig)
    await settle(rig, delivery, Succeeded(value=b'{"sent": [1, 2]}'), Complete())
    status = (await rig.client.get(location)).json()
    assert (status["state"], status["outcome"], status["error"]) == ("succeeded", "succeeded", None)
    assert status["result"] == {"sent": [1, 2]}
    assert "result_truncated" not in status
    assert status["started_at"] == "2023-11-14T22:13:20.000Z"
    assert status["finished_at"] == "2023-11-14T22:13:21.500Z"
    assert status["attempts"] == [
        {
            "attempt": 1,
            "started_at": "2023-11-14T22:13:20.000Z",
            "finished_at": "2023-11-14T22:13:21.500Z",
            "outcome": "succeeded",
            "error": None,
            "logs": "a line\n",
            "runner": "runner-1",
        }
    ]


async def test_an_invocation_that_is_dead_keeps_its_last_outcome(rig: Rig) -> None:
    location, delivery = await accepted(rig)
    failure = Failed(error=Error(type="ValueError", message="no", trace=("x",)))
    await settle(rig, delivery, failure, Bury(reason=BuryReason.FAILED))
    status = (await rig.client.get(location)).json()
    assert (status["state"], status["outcome"], status["reason"]) == ("dead", "failed", "failed")
    assert status["error"] == {"type": "ValueError", "message": "no", "trace": ["x"]}


async def test_an_invocation_that_is_tried_again_says_when(rig: Rig) -> None:
    location, delivery = await accepted(rig)
    await settle(rig, delivery, Failed(error=Error(type="E", message="m")), Retry(delay_s=60))
    status = (await rig.client.get(location)).json()
    assert (status["state"], status["outcome"], status["finished_at"]) == ("retrying", "failed", None)
    assert status["next_attempt_at"] == "2023-11-14T22:14:21.500Z"


async def test_waiting_for_the_end_ends_with_it(rig: Rig) -> None:
    location, delivery = await accepted(rig)
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(rig.client.get(f"{location}?wait=30"))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        await settle(rig, delivery, Succeeded(value=b"1"), Complete())
        answer = await asyncio.wait_for(asked, 15)
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", 1)


async def test_waiting_for_the_end_ends_without_it_too(rig: Rig) -> None:
    location, _ = await accepted(rig)
    answer = await asyncio.wait_for(rig.client.get(f"{location}?wait=0.2"), 20)
    assert answer.json()["state"] == "waiting"


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "inf", ""])
async def test_a_wait_that_is_none_is_400(rig: Rig, wait: str) -> None:
    location, _ = await accepted(rig)
    answer = await rig.client.get(f"{location}?wait={wait}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize("name", ["x", "0197a0b0-0000-7000-8000-000000000000", "*", "%3E", "a" * 300, "%00"])
async def test_an_unknown_invocation_is_a_problem(rig: Rig, name: str) -> None:
    answer = await rig.client.get(f"/v1/invocations/{name}?wait=5")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_invocation")


async def test_a_synchronous_call_is_not_kept(rig: Rig) -> None:
    request_id = (await rig.client.get(f"{PREFIX}/hello")).headers["x-nf-request-id"]
    assert (await rig.client.get(f"/v1/invocations/{request_id}")).status_code == 404


async def test_what_is_nowhere_and_what_is_not_allowed_are_problems(rig: Rig) -> None:
    nowhere = await rig.client.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    refused = await rig.client.post("/v1/functions")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in refused.headers["allow"]
    assert {one.headers["content-type"] for one in (nowhere, refused)} == {"application/problem+json"}


async def test_ready_while_the_broker_is_there(rig: Rig) -> None:
    assert (await rig.client.get("/healthz")).status_code == 200
    assert (await rig.client.get("/readyz")).status_code == 200
    rig.broker.store.away = True
    answer = await rig.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert (await rig.client.get("/healthz")).status_code == 200
    status = await rig.client.get("/v1/invocations/0197a0b0-0000-7000-8000-000000000000")
    assert (status.status_code, status.json()["code"]) == (503, "broker_unavailable")
    rig.broker.store.away = False
    assert (await rig.client.get("/readyz")).status_code == 200


async def test_series_of_announced_functions_start_at_zero(rig: Rig) -> None:
    for line in (
        'quarterhour_requests_total{function="hello",mode="synchronous",status="500"}',
        'quarterhour_requests_total{function="hello-background",mode="background",status="202"}',
        'quarterhour_accepted_total{function="hello-background"}',
        'quarterhour_waiting{function="hello-background"}',
        'quarterhour_delayed{function="hello-background"}',
        'quarterhour_oldest_waiting_seconds{function="hello-background"}',
    ):
        assert await metric(rig, line) == 0, line


async def test_requests_and_accepts_are_counted(rig: Rig) -> None:
    for _ in range(3):
        await rig.client.get(f"{PREFIX}/hello")
        await rig.client.post(BACKGROUND)
    hello = 'quarterhour_requests_total{function="hello",mode="synchronous",status="200"}'
    background = 'quarterhour_requests_total{function="hello-background",mode="background",status="202"}'
    for line in (hello, background, 'quarterhour_accepted_total{function="hello-background"}'):
        await counted(rig, line, 3)


async def counted(rig: Rig, line: str, times: int) -> None:
    """Wait until it was counted so often: that comes after the answer."""

    async def found() -> bool:
        value = await metric(rig, line) or 0
        assert value <= times, line
        return value == times

    await eventually(found, what=f"{line} is {times}")


async def test_the_queue_is_measured(rig: Rig) -> None:
    for _ in range(4):
        await rig.client.post(BACKGROUND)

    async def seen() -> bool:
        return await metric(rig, 'quarterhour_waiting{function="hello-background"}') == 4

    await eventually(seen, what="four wait")

    async def older() -> bool:
        age = await metric(rig, 'quarterhour_oldest_waiting_seconds{function="hello-background"}')
        return age is not None and age > 0.5

    await eventually(older, what="the oldest grows older")


async def test_the_brokers_absence_is_measured(rig: Rig) -> None:
    async def connected(value: float) -> bool:
        return await metric(rig, "quarterhour_broker_connected") == value

    await eventually(lambda: connected(1))
    rig.broker.store.away = True
    await eventually(lambda: connected(0))


async def test_unknown_names_never_become_labels(rig: Rig) -> None:
    for number in range(5):
        await rig.client.get(f"{PREFIX}/missing-{number}")
    await counted(rig, 'quarterhour_requests_total{function="",mode="",status="404"}', 5)
    text = (await rig.client.get("/metrics")).text
    assert "missing" not in text


async def test_the_queue_gauges_of_a_withdrawn_function_vanish(rig: Rig) -> None:
    line = 'quarterhour_waiting{function="hello-background"}'
    assert await metric(rig, line) == 0
    await rig.broker.withdraw(["hello-background"])

    async def gone() -> bool:
        return await metric(rig, line) is None

    await eventually(gone, what="the gauge is gone")
    # Nor does it come back with the next look at the queues.
    await asyncio.sleep(1.5)
    assert await metric(rig, line) is None
    assert await metric(rig, line.replace("waiting", "delayed")) is None
    await rig.announce(function("hello-background"))
    assert await metric(rig, line) == 0


async def test_what_waited_too_long_is_a_dead_letter() -> None:
    async with open_rig(waiting_age_s=1.0) as rig:
        answer = await rig.client.post(BACKGROUND)

        async def dead() -> bool:
            status = (await rig.client.get(answer.headers["location"])).json()
            return (status["state"], status["reason"]) == ("dead", "expired")

        await eventually(dead, what="it is dead")
        assert answer.headers["x-nf-request-id"] in rig.broker.store.dead_letters
        line = 'quarterhour_dead_letters_total{function="hello-background",reason="expired"}'
        await eventually(lambda: metric(rig, line), what="it was counted")
        assert await metric(rig, line) == 1
