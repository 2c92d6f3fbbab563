"""What was accepted is kept: without a runner, until it is too old, and the books always balance."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

from tests.e2e.notes import NOTE, notes
from tests.system import System
from tests.waiting import eventually

NOTES = f"""{NOTE}
def handler(event, context):
    note("ran", context)
"""
# Does what its body says.
ACTS = """
    import json, os

    config = {"retries": 1, "retry_delay": 0.1, "memory": 128}

    def handler(event, context):
        what = json.loads(event["body"])
        if what == "fail" or (what == "fail once" and context.attempt == 1):
            raise ValueError("as asked")
        if what == "refuse":
            return {"statusCode": 422}
        if what == "crash" or (what == "crash once" and context.attempt == 1):
            os._exit(3)
"""
# A function of its own: its limit is so short that the start of a worker may take longer.
HANGS = """
    import time

    config = {"retries": 1, "retry_delay": 0.1, "timeout": 0.5, "memory": 128}

    def handler(event, context):
        time.sleep(120)
"""
BECOMES = {
    "work": "succeeded",
    "fail once": "succeeded",
    "crash once": "succeeded",
    "fail": "failed",
    "refuse": "failed",
    "crash": "crashed",
    "hang": "timed_out",
}


async def announced(system: System) -> None:
    """Have a runner announce its functions and go; nothing is on its way to it any more."""
    runner = await system.start_runner()
    runner.send(signal.SIGTERM)
    assert await runner.ended() == 0


async def test_without_a_runner_it_waits_for_one(tmp_path: Path) -> None:
    async with System(tmp_path, {"notes-background": NOTES}) as system:
        await system.start_gateway()
        await announced(system)
        ids = await asyncio.gather(*(system.enqueue("notes-background") for _ in range(20)))
        assert {(await system.status(id))["state"] for id in ids} == {"waiting"}
        # Neither a new gateway nor a broker that dies changes that.
        assert system.gateway is not None
        await system.gateway.kill()
        system.nats.kill()
        await asyncio.to_thread(system.nats.start)
        await system.start_gateway()
        assert {(await system.status(id))["state"] for id in ids} == {"waiting"}
        assert notes(tmp_path) == []

        await system.start_runner()
        for id in ids:
            assert (await system.in_state(id, "succeeded"))["attempt"] == 1
        assert Counter(note["id"] for note in notes(tmp_path)) == dict.fromkeys(ids, 1)


async def test_what_waited_for_too_long_expires_without_any_runner(tmp_path: Path) -> None:
    async with System(tmp_path, {"notes-background": NOTES}) as system:
        gateway = await system.start_gateway("--waiting-age-limit", "1")
        await announced(system)
        ids = [await system.enqueue("notes-background") for _ in range(7)]
        for id in ids:
            status = await system.in_state(id, "dead")
            assert (status["reason"], status["attempts"]) == ("expired", [])
            assert (status["outcome"], status["error"]) == (None, None)
        expired = 'quarterhour_dead_letters_total{function="notes-background",reason="expired"} 7.0'

        async def shown(line: str) -> bool:
            return line in await system.metrics_page(gateway)

        await eventually(lambda: shown(expired), what="all of them were counted")
        await eventually(lambda: gateway.facts("invocation_expired")[6:], what="all of them were logged")
        assert len(gateway.facts("invocation_expired")) == 7
        nothing_waits = 'quarterhour_waiting{function="notes-background"} 0.0'
        await eventually(lambda: shown(nothing_waits), what="nothing was waiting any more")
        await system.start_runner()

        async def runs_in_time() -> str | None:
            id = await system.enqueue("notes-background")
            status = await system.in_state(id, "succeeded", "dead")
            return id if status["state"] == "succeeded" else None

        # One that comes while the machine stands still for its second expires as well.
        fresh = await eventually(runs_in_time, what="one that did not wait for long ran")
        assert [note["id"] for note in notes(tmp_path)] == [fresh]


async def test_the_books_balance(tmp_path: Path) -> None:
    names = ("acts-background", "other-background")
    hanging = {"acts-background": "hangs-background", "other-background": "other-hangs-background"}
    functions = {**dict.fromkeys(names, ACTS), **dict.fromkeys(hanging.values(), HANGS)}
    async with System(tmp_path, functions) as system:
        await system.start_gateway()
        runners = await asyncio.gather(
            system.start_runner("--slots", "4"), system.start_runner("--slots", "4")
        )
        posts = [(name, what) for name in names for what in BECOMES if what != "hang" for _ in range(9)]
        posts += [(hanging[name], "hang") for name in names] * 2
        random.shuffle(posts)

        answers = await asyncio.gather(*(system.post(name, json=what) for name, what in posts))
        assert {answer.status_code for answer in answers} == {202}
        ids = [answer.headers["x-nf-request-id"] for answer in answers]
        assert len(set(ids)) == len(posts)
        ended = [await system.in_state(id, "succeeded", "dead", deadline_s=60) for id in ids]

        became = [status["reason"] or status["state"] for status in ended]
        assert Counter(became) == Counter(BECOMES[what] for _, what in posts)
        assert became == [BECOMES[what] for _, what in posts]
        assert [status["function"] for status in ended] == [name for name, _ in posts]

        async def balance() -> bool:
            accepted = await system.metric("quarterhour_accepted_total")
            succeeded = await system.metric("quarterhour_outcomes_total", result="succeeded")
            dead = await system.metric("quarterhour_dead_letters_total")
            waiting = await system.metric("quarterhour_waiting")
            running = await system.metric("quarterhour_running")
            return (accepted, succeeded + dead, waiting, running) == (len(posts), len(posts), 0, 0)

        await eventually(balance, what="the metrics balanced")
        outcomes = await system.metric("quarterhour_outcomes_total")
        retries = await system.metric("quarterhour_retries_total")
        assert outcomes == len(posts) + retries == sum(len(status["attempts"]) for status in ended)
        assert all(not runner.facts("delivery_failed") for runner in runners)
