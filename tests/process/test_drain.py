"""A runner that is stopped: it takes nothing more, finishes what runs, hands back what it cannot finish."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.notes import NOTE, notes
from tests.system import Process, System
from tests.waiting import eventually

# Runs until a file named like its body appears.
WAITS = f"""{NOTE}
def handler(event, context):
    gate = pathlib.Path(__file__).parent.parent / event["body"]
    note("began", context)
    while not gate.exists():
        time.sleep(0.01)
    note("ended", context)
    return {{"statusCode": 200, "body": "done"}}
"""
FUNCTIONS = {"waits": WAITS, "waits-background": WAITS}
TEXT = {"content-type": "text/plain"}


def name_of(runner: Process) -> str:
    name: str = runner.facts("runner_started")[0]["runner"]
    return name


async def attempt_at(system: System, id: str, runner: Process) -> int:
    """The number of the attempt once it runs there; before it begins, its start note is on record already."""

    async def found() -> int:
        status = await system.status(id)
        there = (status["state"], status["runner"]) == ("running", name_of(runner))
        return status["attempt"] if there else 0

    return await eventually(found, deadline_s=20, what="the other runner runs it")


async def running(system: System, gate: str) -> str:
    """The id of a background invocation that runs, until the file `gate` is there."""
    id = await system.enqueue("waits-background", content=gate, headers=TEXT)
    await system.in_state(id, "running")
    return id


async def takes_no_calls(system: System) -> bool:
    functions: list[dict[str, Any]] = (await system.get("/v1/functions")).json()["functions"]
    return not any(function["runners"] for function in functions)


async def test_what_runs_is_finished_and_nothing_more_is_taken(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS, lease_s=60) as system:
        await system.start_gateway()
        runner = await system.start_runner()
        first = await running(system, "gate")
        call = asyncio.ensure_future(system.post("waits", content="gate", headers=TEXT))
        await eventually(lambda: len(notes(tmp_path, "began")) == 2, what="both ran")

        runner.send(signal.SIGTERM)
        await eventually(lambda: runner.facts("draining"))
        await eventually(lambda: takes_no_calls(system), what="the gateway has heard of it")
        refused = await system.post("waits", content="gate", headers=TEXT)
        assert (refused.status_code, refused.json()["code"]) == (503, "no_runner")
        later = await system.enqueue("waits-background", content="gate", headers=TEXT)
        assert runner.popen.poll() is None

        (tmp_path / "gate").touch()
        assert await runner.ended() == 0
        assert (await call).text == "done"
        status = await system.in_state(first, "succeeded")
        assert (status["attempt"], len(notes(tmp_path, "ended"))) == (1, 2)

        # What came meanwhile waits for the next runner, and is not left to a lease.
        assert (await system.status(later))["state"] == "waiting"
        await system.start_runner()
        status = await system.in_state(later, "succeeded", deadline_s=20)
        assert status["attempt"] == 1


async def test_what_is_not_finished_in_time_is_handed_back_without_an_attempt(tmp_path: Path) -> None:
    # Within a second, once at least: the machine may stand still, but not three times out of three.
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        if (took_s := await begun_elsewhere_s(folder)) < 1:
            return
    pytest.fail(f"what was handed back began elsewhere after {took_s:.1f} s, and before that not sooner")


async def begun_elsewhere_s(tmp_path: Path) -> float:
    """How long after the end of the runner that hands it back all of it had begun elsewhere."""
    # A lease that is long enough to tell a hand-back from the end of a lease.
    async with System(tmp_path, FUNCTIONS, lease_s=30) as system:
        await system.start_gateway()
        first = await system.start_runner("--drain", "0")
        ids = [await running(system, "gate") for _ in range(3)]
        second = await system.start_runner()
        system.remember(first)

        first.send(signal.SIGTERM)
        assert await first.ended(20) == 0
        drained_at = time.monotonic()
        for id in ids:
            assert await attempt_at(system, id, second) == 1
        began = await eventually(lambda: notes(tmp_path, "began")[2 * len(ids) - 1 :], what="all ran again")
        took_s: float = began[-1]["at"] - drained_at
        assert took_s < 15
        (tmp_path / "gate").touch()
        for id in ids:
            status = await system.in_state(id, "succeeded")
            assert status["attempt"] == 1
            assert [attempt["runner"] for attempt in status["attempts"]] == [name_of(second)]
        assert {len([note for note in notes(tmp_path, "ended") if note["id"] == id]) for id in ids} == {1}
        return took_s


async def test_a_call_that_is_not_finished_in_time_is_answered(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        runner = await system.start_runner("--drain", "0")
        call = asyncio.ensure_future(system.post("waits", content="gate", headers=TEXT))
        await eventually(lambda: notes(tmp_path, "began"), what="it ran")
        runner.send(signal.SIGTERM)
        answer = await call
        assert answer.status_code >= 500
        assert await runner.ended(20) == 0


async def test_handing_back_again_and_again_is_no_crime(tmp_path: Path) -> None:
    # Each hand-back is a delivery with a start note; were they not cancelled, five would bury it.
    async with System(tmp_path, FUNCTIONS, lease_s=30) as system:
        await system.start_gateway()
        runner = await system.start_runner("--drain", "0")
        id = await running(system, "gate")
        for _ in range(6):
            system.remember(runner)
            runner.send(signal.SIGTERM)
            assert await runner.ended(20) == 0
            runner = await system.start_runner("--drain", "0")
            assert await attempt_at(system, id, runner) == 1
        (tmp_path / "gate").touch()
        status = await system.in_state(id, "succeeded", "dead")
        assert (status["state"], len(status["attempts"])) == ("succeeded", 1)


async def test_a_broker_that_is_gone_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        await system.start_gateway()
        runner = await system.start_runner("--drain", "1")
        id = await running(system, "gate")
        system.nats.kill()
        (tmp_path / "gate").touch()
        await eventually(lambda: notes(tmp_path, "ended"), what="it had an outcome")
        runner.send(signal.SIGTERM)
        assert await runner.ended(30) == 0
        assert [fact["invocation"] for fact in runner.facts("settlement_broken_off")] == [id]
