"""Cancelling with real processes: what runs is dead at once, what waits never runs, what is said holds."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.notes import NOTE, notes
from tests.faults.proxy import Proxy
from tests.parts import need
from tests.system import System, alive
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE_S = 60.0  # no renewal notices what runners were not told of: the first one comes after 20 s
DEAD_WITHIN_S = 2.0
TOLD_WITHIN_S = 10.0  # on a machine that stands still now and then
TRIES = 3  # once at least it does not

FUNCTIONS = {
    # Ignores SIGTERM, and has children that do so too, one in a session of its own.
    "stubborn-background": f"""{NOTE}
import os, signal, sys

def stay(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(name, os.getpid(), flush=True)
    while True:
        time.sleep(1000)

def handler(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        stay("child")
    if os.fork() == 0:
        os.setsid()
        stay("session")
    note("began", context)
    stay("handler")
""",
    "loops-background": f"""{NOTE}
def handler(event, context):
    note("began", context)
    print("looping", flush=True)
    while True:
        pass
""",
    "notes-background": f"{NOTE}\ndef handler(event, context):\n    note('began', context)\n",
    "one-background": f"""{NOTE}
config = {{"concurrency": 1}}

def handler(event, context):
    note("began", context)
    while not pathlib.Path(__file__).parent.parent.joinpath("go").exists():
        time.sleep(0.01)
""",
    "fails-background": f"""{NOTE}
config = {{"retry_delay": 1}}

def handler(event, context):
    note("began", context)
    raise ValueError("as always")
""",
    "quick-background": f"""{NOTE}
import json

def handler(event, context):
    note("began", context)
    time.sleep(json.loads(event["body"]))
    note("ended", context)
""",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("cancel"), FUNCTIONS, lease_s=LEASE_S) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system


async def cancel(system: System, id: str) -> dict[str, Any]:
    """Cancel what has not ended."""
    answer = await system.cancel(id)
    assert answer.status_code == 200, answer.text
    status: dict[str, Any] = answer.json()
    assert (status["id"], status["state"]) == (id, "cancelled")
    return status


def began(system: System, id: str) -> list[dict[str, Any]]:
    return [note for note in notes(system.folder, "began") if note["id"] == id]


async def running(system: System, name: str, **kwargs: Any) -> str:
    """An invocation whose handler is at work."""
    id = await system.enqueue(name, **kwargs)
    await eventually(lambda: began(system, id), what="it runs")
    return id


async def with_its_attempt(system: System, id: str) -> dict[str, Any]:
    """The status once the attempt that was ended is on record."""

    async def check() -> dict[str, Any] | None:
        status = await system.status(id)
        return status if status["attempts"] else None

    found: dict[str, Any] | None = await eventually(check, what="the attempt is on record")
    assert found is not None
    return found


async def test_what_runs_is_dead_within_two_seconds_with_all_that_it_has_started(system: System) -> None:
    took_s = []
    for _ in range(TRIES):
        took_s.append(await stubborn_dies(system))
        if took_s[-1] < DEAD_WITHIN_S:
            break
    assert min(took_s) < DEAD_WITHIN_S


async def stubborn_dies(system: System) -> float:
    """How long it takes from the answer to a cancel to the death of all that was started (s)."""
    (runner,) = [process for process in system.processes if process.facts("runner_started")]
    labels = {"function": "stubborn-background", "result": "cancelled"}
    before = await system.metric("quarterhour_outcomes_total", **labels)
    id = await running(system, "stubborn-background")

    def printed() -> dict[str, int] | None:
        lines = [fact["text"] for fact in runner.facts("function_output") if fact["invocation"] == id]
        found = {name: int(pid) for name, pid in (line.split() for line in lines)}
        return found if len(found) == 3 else None

    pids = await eventually(printed, what="all of them said who they are")
    assert pids is not None
    assert all(map(alive, pids.values()))
    await cancel(system, id)
    answered_at = time.monotonic()
    await eventually(
        lambda: not any(map(alive, pids.values())), deadline_s=TOLD_WITHIN_S, what="all of them are dead"
    )
    took_s = time.monotonic() - answered_at
    status = await with_its_attempt(system, id)
    (attempt,) = status["attempts"]
    assert (status["state"], attempt["outcome"], attempt["attempt"]) == ("cancelled", "cancelled", 1)
    assert f"handler {pids['handler']}" in attempt["logs"]

    async def counted() -> bool:
        outcomes = await system.metric("quarterhour_outcomes_total", **labels)
        running = await system.metric("quarterhour_running", function="stubborn-background")
        return (outcomes, running) == (before + 1, 0)

    await eventually(counted, what="it was counted once, and is running no more")
    assert len(began(system, id)) == 1
    return took_s


async def test_a_handler_that_loops_is_ended(system: System) -> None:
    id = await running(system, "loops-background")
    (note,) = began(system, id)
    await cancel(system, id)
    await eventually(lambda: not alive(note["pid"]), deadline_s=TOLD_WITHIN_S, what="its worker is dead")
    status = await with_its_attempt(system, id)
    assert status["attempts"][0]["logs"] == "looping\n"
    again = await system.enqueue("notes-background")
    assert (await system.in_state(again, "succeeded"))["attempt"] == 1


async def test_a_handler_that_loops_in_javascript_is_ended(tmp_path: Path) -> None:
    need("node", package="nodejs")
    async with System(tmp_path, {}, lease_s=LEASE_S) as system:
        (system.functions / "loops-background.mjs").write_text(
            "export const handler = () => { console.log(process.pid); for (;;) {} };"
        )
        await system.start_gateway()
        runner = await system.start_runner()
        id = await system.enqueue("loops-background")
        (fact, *_) = await eventually(lambda: runner.facts("function_output"), what="it runs")
        assert alive(int(fact["text"]))
        await cancel(system, id)
        await eventually(lambda: not alive(int(fact["text"])), deadline_s=TOLD_WITHIN_S, what="it is dead")
        assert [one["outcome"] for one in (await with_its_attempt(system, id))["attempts"]] == ["cancelled"]


async def test_what_waits_never_runs(system: System) -> None:
    first = await running(system, "one-background")
    waiting = [await system.enqueue("one-background") for _ in range(4)]
    unwanted = waiting[1::2]
    for id in unwanted:
        await cancel(system, id)
    (system.folder / "go").touch()
    for id in (first, *waiting[::2]):
        await system.in_state(id, "succeeded")
    await at_rest(system, "one-background")
    for id in unwanted:
        assert began(system, id) == []
        assert (await system.status(id))["attempts"] == []


async def test_what_is_delayed_never_runs(system: System) -> None:
    headers = {"X-Quarterhour-Delay": "2"}
    for _ in range(TRIES):
        sent_at = time.time()
        unwanted = await system.enqueue("notes-background", headers=headers)
        answer = await system.cancel(unwanted)
        if time.time() < sent_at + 2:  # or the machine stood still until it was due
            break
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled"), answer.text
    wanted = await system.enqueue("notes-background", headers=headers)
    await system.in_state(wanted, "succeeded")
    last = await system.enqueue("notes-background", headers={"X-Quarterhour-Delay": "1"})
    await system.in_state(last, "succeeded")
    assert began(system, unwanted) == []
    assert (await system.status(unwanted))["state"] == "cancelled"
    await at_rest(system, "notes-background")


async def test_what_is_to_be_tried_again_never_is(system: System) -> None:
    for _ in range(TRIES):
        unwanted = await system.enqueue("fails-background")
        planned = (await system.in_state(unwanted, "retrying", "dead"))["next_attempt_at"]
        answer = await system.cancel(unwanted)
        in_time = planned is not None and time.time() < datetime.fromisoformat(planned).timestamp()
        status = answer.json()
        if answer.status_code == 200 and in_time and len(status["attempts"]) == 1:
            break  # or the machine stood still until it was tried again
    assert (answer.status_code, status["state"]) == (200, "cancelled"), answer.text
    wanted = await system.enqueue("fails-background")
    assert [one["outcome"] for one in status["attempts"]] == ["failed"]
    assert status["next_attempt_at"] is None
    await system.in_state(wanted, "dead")
    assert len(began(system, wanted)) == 3
    assert len(began(system, unwanted)) == 1
    assert (await system.status(unwanted))["state"] == "cancelled"
    await at_rest(system, "fails-background")


async def test_a_cancel_in_the_moment_of_the_end_has_one_answer_and_that_is_the_end(system: System) -> None:
    ends: list[tuple[str, str]] = []
    lasts_s = 0.02
    both = {"cancelled", "succeeded"}
    while len(ends) < 24 or ({state for _, state in ends} != both and len(ends) < 100):
        id = await running(system, "quick-background", json=lasts_s)
        answer = await system.cancel(id)
        lasts_s *= 0.7 if answer.status_code == 200 else 1.5  # whatever the machine: around that moment
        if answer.status_code == 200:
            ends.append((id, "cancelled"))
        else:
            assert (answer.status_code, answer.json()["code"]) == (409, "already_ended")
            ends.append((id, "succeeded"))
    await at_rest(system, "quick-background")
    for id, state in ends:
        assert (await system.status(id))["state"] == state
        assert len(began(system, id)) == 1
    assert {state for _, state in ends} == both


async def test_twice_and_too_late(system: System) -> None:
    id = await running(system, "loops-background")
    for _ in range(2):
        await cancel(system, id)
    succeeded = await system.enqueue("notes-background")
    await system.in_state(succeeded, "succeeded")
    answer = await system.cancel(succeeded)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_ended")
    assert succeeded in answer.json()["detail"]
    await at_rest(system, "loops-background")


async def test_it_is_cancelled_from_the_command_line(system: System) -> None:
    id = await running(system, "loops-background")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quarterhour", "cancel", id, "--url", system.url),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await command.communicate()
    assert (command.returncode, output.decode()) == (0, f"Cancelled {id} of loops-background.\n")
    await at_rest(system, "loops-background")


async def at_rest(system: System, function: str) -> None:
    """Wait until nothing of a function waits or runs, for the broker and for the runner."""

    async def check() -> bool:
        gauges = ("quarterhour_running", "quarterhour_waiting", "quarterhour_delayed")
        return not any([await system.metric(gauge, function=function) for gauge in gauges])

    await eventually(check, what="it is at rest")


async def test_a_runner_that_was_cut_off_meanwhile_ends_it_when_it_is_back(tmp_path: Path) -> None:
    functions = {"loops-background": FUNCTIONS["loops-background"]}
    lease_s = 12.0  # time enough to cut it off and to heal that; it learns of the cancel with a renewal
    async with System(tmp_path, functions, lease_s=lease_s) as system, Proxy(system.nats.port) as link:
        await system.start_gateway()
        runner = await system.start_runner("--broker", f"nats://127.0.0.1:{link.port}")
        id = await running(system, "loops-background")
        (note,) = began(system, id)
        link.cut()
        await eventually(lambda: runner.facts("broker_away"), what="the runner is cut off")
        await cancel(system, id)
        assert alive(note["pid"])
        link.heal()
        healed_at = time.monotonic()
        await eventually(lambda: not alive(note["pid"]), deadline_s=lease_s, what="its worker is dead")
        assert runner.facts("attempt_lost") == [], "its lease has ended it, not the cancel"
        status = await with_its_attempt(system, id)
        assert [one["outcome"] for one in status["attempts"]] == ["cancelled"]
        assert time.monotonic() - healed_at < lease_s
        assert len(began(system, id)) == 1
