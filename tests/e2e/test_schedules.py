"""Schedules and delays from outside: what is fired, when, with which event, and how often."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from quarterhour.ids import firing_id
from tests.e2e.notes import NOTE, notes, runs_by_id
from tests.system import Process, System, descendants
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TICK = f"""{NOTE}
config = {{"schedule": "* * * * * *"}}

def handler(event, context):
    note("tick", context, event=event)
    return {{"statusCode": 200, "body": "called"}}
"""
FUNCTIONS = {
    "tick": TICK,
    "tick-background": TICK,
    "fail": 'config = {"schedule": "* * * * * *"}\n\ndef handler(event, context): raise ValueError(1)\n',
    "nightly": 'config = {"schedule": "@daily"}\n\ndef handler(event, context): ...\n',
    "later-background": f"""{NOTE}
def handler(event, context):
    note("later", context, headers=event["headers"])
    return "done"
""",
}

PLACED_MIN = 10  # so many firings of each second are placed ahead, whenever a gateway dies


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("schedules"), FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system


async def fired(system: System, name: str) -> dict[str, Any]:
    """The note of one firing of a function."""

    def found() -> list[dict[str, Any]]:
        path = f"/.netlify/functions/{name}"
        events = [(note, note["event"]) for note in notes(system.folder, "tick")]
        return [
            note
            for note, event in events
            if event["path"] == path and event["headers"].get("x-nf-event") == "schedule"
        ]

    last: dict[str, Any] = (await eventually(found, what=f"{name} was fired"))[-1]
    return last


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@pytest.mark.parametrize("name", ["tick", "tick-background"])
async def test_a_firing_has_netlifys_event_and_a_record(system: System, name: str) -> None:
    note = await fired(system, name)
    event, id = note["event"], note["id"]
    next_run = json.loads(event.pop("body"))["next_run"]
    assert next_run.endswith(".000Z")
    assert id == firing_id(name, seconds(next_run) - 1)
    assert -0.05 < note["now"] - (seconds(next_run) - 1) < 10, "that is the moment at which it ran"
    headers = {
        "host": "localhost",
        "content-type": "application/json",
        "user-agent": "Netlify Clockwork",
        "x-nf-event": "schedule",
        "x-nf-request-id": id,
    }
    assert event == {
        "path": f"/.netlify/functions/{name}",
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {key: [value] for key, value in headers.items()},
        "queryStringParameters": {},
        "multiValueQueryStringParameters": {},
        "isBase64Encoded": False,
        "rawUrl": f"http://localhost/.netlify/functions/{name}",
        "rawQuery": "",
    }
    status = await system.in_state(id, "succeeded")
    assert (status["mode"], status["function"], status["attempt"]) == ("scheduled", name, 1)
    assert seconds(status["due_at"]) == seconds(next_run) - 1
    assert status["result"] == {"statusCode": 200, "body": "called"}


async def test_a_synchronous_function_is_not_tried_again_when_its_firing_fails(system: System) -> None:
    async def buried() -> dict[str, Any] | None:
        ids = [firing_id("fail", float(int(time.time()) - back)) for back in range(1, 5)]
        found = await asyncio.gather(*(system.status(id) for id in ids))
        return next((status for status in found if status.get("reason") == "failed"), None)

    status = await eventually(buried, what="a firing failed")
    assert status is not None
    assert (status["state"], status["attempt"], status["error"]["type"]) == ("dead", 1, "ValueError")


async def test_the_next_run_is_listed(system: System) -> None:
    listed = {one["name"]: one for one in (await system.get("/v1/functions")).json()["functions"]}
    assert (listed["later-background"]["schedule"], listed["later-background"]["next_run"]) == (None, None)
    assert listed["nightly"]["schedule"] == "@daily"
    assert listed["nightly"]["next_run"].endswith("T00:00:00.000Z")
    assert 0 < seconds(listed["nightly"]["next_run"]) - time.time() <= 24 * 3600 + 5
    assert abs(seconds(listed["tick"]["next_run"]) - time.time()) < 5


async def test_outcomes_of_firings_are_counted_as_scheduled(system: System) -> None:
    async def counted() -> bool:
        labels = {"function": "fail", "mode": "scheduled", "result": "failed"}
        outcomes = await system.metric("quarterhour_outcomes_total", **labels)
        dead = await system.metric("quarterhour_dead_letters_total", function="fail", reason="failed")
        return outcomes > 0 and dead > 0

    await eventually(counted, what="it was counted, and so was what became of it")
    assert await system.metric("quarterhour_outcomes_total", function="fail", mode="synchronous") == 0
    assert await system.metric("quarterhour_accepted_total", function="fail") == 0


async def test_by_its_address_a_scheduled_function_is_called_only_where_that_is_allowed(
    system: System,
) -> None:
    for name in ("tick", "tick-background"):
        answer = await system.post(name)
        assert (answer.status_code, answer.text) == (404, "Function not found...")
    strict = system.gateway
    try:
        await system.start_gateway("--call-scheduled")
        await eventually(lambda: _answers(system, "tick"), what="it is served")
        answer = await system.post("tick")
        assert (answer.status_code, answer.text) == (200, "called")
        id = await system.enqueue("tick-background")
        assert (await system.in_state(id, "succeeded"))["mode"] == "background"
    finally:
        system.gateway = strict


async def _answers(system: System, name: str) -> bool:
    return (await system.post(name)).status_code == 200


async def test_removing_a_function_or_its_schedule_stops_it(tmp_path: Path) -> None:
    functions = {"gone": FUNCTIONS["tick"], "changed": FUNCTIONS["tick"]}
    async with System(tmp_path, functions) as own:
        gateway = await own.start_gateway()
        await own.start_runner("--watch", "--withdraw-missing")
        for name in functions:
            await fired(own, name)
        (own.functions / "gone.py").unlink()
        own.write("changed", functions["changed"].replace('"schedule"', '"path"').replace('"* *', '"/'))

        async def stopped() -> bool:
            listed = (await own.get("/v1/functions")).json()["functions"]
            return [(one["name"], one["schedule"]) for one in listed] == [("changed", None)]

        await eventually(stopped, what="the schedules are gone")
        await eventually(lambda: len(gateway.facts("schedule_ended")) == 2, what="what was placed is removed")
        ended_at = time.time()
        await asyncio.sleep(2.5)
        # What was fired before may run late on a busy machine.
        assert [note for note in notes(tmp_path, "tick") if fired_at(note) > ended_at] == []


def fired_at(note: dict[str, Any]) -> float:
    """The moment of a firing (Unix s), by what it says of the next one a second later."""
    return seconds(json.loads(note["event"]["body"])["next_run"]) - 1


async def test_it_fires_on_time_while_no_gateway_is_up(tmp_path: Path) -> None:
    async with System(tmp_path, {"tick": FUNCTIONS["tick"]}) as own:
        gateway = await own.start_gateway()
        await own.start_runner()
        await fired(own, "tick")
        await gateway.kill()
        first = int(time.time()) + 1

        def ran() -> bool:
            ids = {note["id"] for note in notes(tmp_path, "tick")}
            all_ran = (firing_id("tick", float(first + number)) in ids for number in range(PLACED_MIN))
            return "1111" in "".join("01"[ran] for ran in all_ran)

        # A firing that comes late is not run: so all of them were there within their second. They are four
        # in a row, and not always the first four, since a machine that stands still makes some late.
        await eventually(ran, what="four in a row ran")


# Delays


async def test_a_delayed_invocation_runs_when_it_is_due(system: System) -> None:
    delays = {"x-quarterhour-delay": "PT2S"}
    for _ in range(3):
        sent_at = time.time()
        id = await system.enqueue("later-background", headers=delays)
        status = await system.status(id)
        page = await system._http.get(f"{system.url}/v1/invocations/{id}", headers={"accept": "text/html"})
        if time.time() < sent_at + 2:
            break  # or the machine stood still until it was due
    assert (status["state"], status["attempt"], status["outcome"]) == ("delayed", 1, None)
    assert 1.9 < seconds(status["due_at"]) - sent_at < 7
    assert "Delayed" in page.text
    assert "It is due in" in page.text
    ended = await system.in_state(id, "succeeded", "dead")
    assert (ended["state"], ended["result"], ended["due_at"]) == ("succeeded", "done", status["due_at"])
    [note] = [note for note in notes(system.folder, "later") if note["id"] == id]
    assert note["now"] >= seconds(status["due_at"]) - 0.01
    assert note["headers"]["x-quarterhour-delay"] == "PT2S"


async def test_a_moment_that_has_passed_is_at_once(system: System) -> None:
    at = {"x-quarterhour-at": "2001-01-01T00:00:00Z"}
    id = await system.enqueue("later-background", headers=at)
    status = await system.in_state(id, "succeeded")
    assert status["due_at"] == status["accepted_at"]


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("later-background", {"x-quarterhour-delay": "soon"}),
        ("later-background", {"x-quarterhour-delay": "5", "x-quarterhour-at": "2030-01-01T00:00:00Z"}),
        ("later-background", {"x-quarterhour-delay": "P31D"}),
    ],
)
async def test_what_cannot_be_put_off_is_refused(system: System, name: str, headers: dict[str, str]) -> None:
    answer = await system.post(name, headers=headers, content=b"x" * 100_000)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_delay")


# Every firing once


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many schedules, how far apart (s) each one's firings, and for how long (s)."""

    schedules: int
    period_s: int
    lasting_s: int
    deadline_s: float


SHORT = Plan(schedules=10, period_s=1, lasting_s=6, deadline_s=40)
LONG = Plan(schedules=50, period_s=2, lasting_s=60, deadline_s=60)
LONG_WANTED = os.environ.get("QUARTERHOUR_TEST_LONG") == "true"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(
            LONG,
            id="long",
            marks=pytest.mark.skipif(not LONG_WANTED, reason="two minutes: QUARTERHOUR_TEST_LONG=true"),
        ),
    ],
)
async def test_each_firing_has_one_outcome_though_a_runner_is_killed(tmp_path: Path, plan: Plan) -> None:
    source = f"""{NOTE}
config = {{"schedule": "*/{plan.period_s} * * * * *"}}

def handler(event, context):
    note("began", context)
    time.sleep(0.15)
    note("ended", context)
"""
    names = [f"f{number}" for number in range(plan.schedules)]
    # A lease that is long enough for renewals to come in time on a machine that is busy with other tests.
    async with System(tmp_path, dict.fromkeys(names, source), lease_s=8) as system:
        first = await system.start_gateway()
        await system.start_gateway()
        lost, *_ = await asyncio.gather(*(system.start_runner() for _ in range(3)))
        await eventually(lambda: len({note["id"] for note in notes(tmp_path)}) >= 2, what="it has begun")
        # A machine that stalls for longer than a period lets firings expire, which is an end as well: then
        # another runner is lost, in another span of time.
        for _ in range(3):
            if await _succeeded(system, plan, names, lost, first) >= 0.8:
                return
            lost = await system.start_runner()
        pytest.fail("more than a fifth of the firings expired, three times out of three")


async def _succeeded(system: System, plan: Plan, names: list[str], lost: Process, other: Process) -> float:
    """The share of the firings that succeeded in a span of time, in the middle of which a runner was lost."""
    begin = (int(time.time()) // plan.period_s + 2) * plan.period_s
    moments = range(begin, begin + plan.lasting_s, plan.period_s)
    await asyncio.sleep(max(0.0, begin + plan.lasting_s / 2 - time.time()))
    workers = await _kill_in_the_midst(system.folder, lost)
    await asyncio.sleep(max(0.0, begin + plan.lasting_s - time.time()))
    ids = [firing_id(name, float(moment)) for name in names for moment in moments]
    ended = await _ended(system, ids, other, plan.deadline_s)

    results = Counter(status["outcome"] or status["reason"] for status in ended)
    runs = runs_by_id(system.folder)
    again = [id for id in ids if len(runs.get(id, ())) > 1]
    lateness = sorted(seconds(one["started_at"]) - seconds(one["due_at"]) for one in ended if one["outcome"])
    _report(plan, results, again, lateness)
    assert sum(results.values()) == len(ids) == plan.schedules * plan.lasting_s // plan.period_s
    assert set(results) <= {"succeeded", "expired"}
    assert all(len(status["attempts"]) == (status["outcome"] is not None) for status in ended)
    assert all(run[0].pid in workers for id, run in runs.items() if id in again)
    return results["succeeded"] / len(ids)


async def _kill_in_the_midst(folder: Path, runner: Process) -> set[int]:
    """Kill the runner while a function runs in it; gives its workers."""

    def stopped_while_busy() -> set[int] | None:
        # Stopped, its guard too, so that nobody adds a worker between the look and the end.
        _send(signal.SIGSTOP, {runner.pid, *descendants(runner.pid)})
        workers = descendants(runner.pid)
        open_runs = [run for of_one in runs_by_id(folder).values() for run in of_one if run.ended is None]
        if any(run.pid in workers for run in open_runs):
            return workers
        _send(signal.SIGCONT, {runner.pid, *workers})
        return None

    workers: set[int] = await eventually(stopped_while_busy, what="it runs something") or set()
    await runner.kill()
    _send(signal.SIGCONT, workers)
    return workers


def _send(number: signal.Signals, pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _ended(system: System, ids: list[str], other: Process, deadline_s: float) -> list[dict[str, Any]]:
    """The statuses of all of them at their end; both gateways know them."""
    addresses = (system.url, f"http://127.0.0.1:{other.port}")
    found: dict[str, dict[str, Any]] = {}

    async def look(client: httpx.AsyncClient, number: int, id: str) -> None:
        answer = await client.get(f"{addresses[number % 2]}/v1/invocations/{id}")
        if answer.status_code == 200 and answer.json()["state"] in {"succeeded", "dead"}:
            found[id] = answer.json()

    async def all_ended() -> bool:
        missing = [id for id in ids if id not in found]
        for start in range(0, len(missing), 50):
            await asyncio.gather(
                *(look(client, number, id) for number, id in enumerate(missing[start : start + 50]))
            )
        return len(found) == len(ids)

    async with httpx.AsyncClient(timeout=60) as client:
        await eventually(all_ended, deadline_s=deadline_s, what="every firing has its end")
    return [found[id] for id in ids]


def _report(plan: Plan, results: Counter[str], again: list[str], lateness: list[float]) -> None:
    if not lateness:
        return  # all of them expired
    middle, worst = lateness[len(lateness) // 2], lateness[-1]
    print(  # noqa: T201 - the figures of the long one are asked for
        f"{plan}: {dict(results)}, {len(again)} ran twice, late by {middle * 1000:.0f} ms (p50), "
        f"{lateness[int(len(lateness) * 0.99)] * 1000:.0f} ms (p99), {worst:.1f} s at most"
    )
