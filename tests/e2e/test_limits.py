"""The time limit, and handlers that do their worst: each harms its own attempt and nothing else."""

import asyncio
import math
import textwrap
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.notes import NOTE, notes
from tests.system import System, alive
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIED_AGAIN = "config = {'retries': 2, 'retry_delay': 0.1, 'memory': 128}\n"
LIMIT_S = 3  # long enough for a handler to begin, with all the others beside it
AT_ITS_LIMIT = f"config = {{'timeout': {LIMIT_S}, 'retries': 2, 'retry_delay': 0.2}}"
TRIES = 3  # on a machine that stands still now and then, for longer than a limit
# What others keep from the processor is so late at most; whatever else ends an attempt comes far later.
LATE_S = 10
ON_TIME_S = 0.5  # and what nobody keeps from it: one of several attempts at least
SHOWN_S = 0.002  # moments are shown in milliseconds


def function(code: str, config: str = TRIED_AGAIN) -> str:
    body = textwrap.indent(textwrap.dedent(code), "    ")
    return f"{NOTE}\n{config}\ndef handler(event, context):\n    print('last words', flush=True)\n{body}\n"


FUNCTIONS = {
    "two-minutes-background": function(
        """
        import subprocess, sys

        plain = subprocess.Popen(["sleep", "120"])
        own_session = subprocess.Popen(["sleep", "120"], start_new_session=True)
        deaf = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 120; sleep 120"])
        # A daemon: its parent ends at once, so that nobody in the worker is its parent any more.
        daemon = "import os, time; os.setsid(); os.fork() and os._exit(0)"
        daemon += "; print(os.getpid(), flush=True); time.sleep(120)"
        daemon = subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE)
        daemon_pid = int(daemon.stdout.readline())
        note("began", context, children=[plain.pid, own_session.pid, deaf.pid, daemon_pid])
        time.sleep(120)
        """,
        f"config = {{'timeout': {LIMIT_S}, 'retries': 1, 'retry_delay': 0.2}}",
    ),
    "deaf-background": function(
        """
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note("began", context)
        time.sleep(120)
        """,
        AT_ITS_LIMIT,
    ),
    "says-goodbye-background": function(
        """
        import signal

        def goodbye(*_):
            print("goodbye", flush=True)
            note("goodbye", context)
            os._exit(0)

        signal.signal(signal.SIGTERM, goodbye)
        time.sleep(120)
        """,
        AT_ITS_LIMIT,
    ),
    "exits-background": function("""
        note("end", context)
        os._exit(3)
    """),
    "kills-itself-background": function("""
        note("end", context)
        os.kill(os.getpid(), 9)
    """),
    "segfaults-background": function("""
        import ctypes

        note("end", context)
        ctypes.string_at(0)
    """),
    "eats-memory-background": function("""
        eaten = []
        try:
            while True:
                eaten.append(bytearray(1 << 20))
        except MemoryError:
            del eaten
            note("end", context)
            raise
    """),
    "blocks-in-c-background": function(
        """
        import ctypes

        note("began", context)
        ctypes.PyDLL(None).sleep(120)  # PyDLL keeps the interpreter's lock
        """,
        AT_ITS_LIMIT,
    ),
    "closes-everything-background": function("""
        note("end", context)
        os.closerange(0, 1024)
        time.sleep(120)
    """),
    "closes-everything-and-returns-background": function("""
        note("end", context)
        os.closerange(0, 1024)
    """),
    # Runs beside the others, until it is told to end.
    "neighbour-background": """
        import pathlib, time

        def handler(event, context):
            gate = pathlib.Path(__file__).parent.parent / event["body"]
            while not gate.exists():
                time.sleep(0.02)
            return "unharmed"
    """,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("limits"), FUNCTIONS) as system:
        await system.start_gateway()
        await system.start_runner()
        yield system


CRASHES = {
    "exits-background": "exited with status 3",
    "kills-itself-background": "was killed by SIGKILL",
    "segfaults-background": "was killed by SIGSEGV",
    "closes-everything-background": "closed its connection",
    "closes-everything-and-returns-background": "exited with status 74",
}
OTHERS = ["eats-memory-background", "blocks-in-c-background", "deaf-background", "says-goodbye-background"]


@dataclass
class Ends:
    """How everything ended that ran at the same time on one runner."""

    by_name: dict[str, dict[str, Any]]
    neighbours: list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ends(system: System) -> Ends:
    """All that is bad, run at once beside neighbours that began before and end after it."""
    gate = {"content": "gate", "headers": {"content-type": "text/plain"}}
    neighbours = [await system.enqueue("neighbour-background", **gate) for _ in range(4)]
    for id in neighbours:
        await system.in_state(id, "running")
    names = [*CRASHES, *OTHERS]
    ids = await asyncio.gather(*(system.enqueue(name) for name in names))
    statuses = await asyncio.gather(*(system.in_state(id, "dead", deadline_s=60) for id in ids))
    (system.folder / "gate").touch()
    return Ends(
        by_name=dict(zip(names, statuses, strict=True)),
        neighbours=[await system.in_state(id, "succeeded", "dead") for id in neighbours],
    )


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def took_s(attempt: dict[str, Any]) -> float:
    return moment(attempt["finished_at"]) - moment(attempt["started_at"])


def assert_ended_after(seconds: float, attempts: Sequence[dict[str, Any]]) -> None:
    """None was ended sooner than that, or much later; one of them was ended then."""
    took = [took_s(attempt) for attempt in attempts]
    assert all(seconds - SHOWN_S <= one < seconds + LATE_S for one in took), took
    assert min(took, default=math.inf) < seconds + ON_TIME_S, took


def noted(system: System, what: str, status: dict[str, Any]) -> list[dict[str, Any]]:
    return [note for note in notes(system.folder, what) if note["id"] == status["id"]]


async def counted(system: System, count: float, name: str, **labels: str) -> None:
    """Wait until a metric has this value: it is counted just after the record can be read."""

    async def check() -> bool:
        return await system.metric(name, **labels) == count

    await eventually(check, what=f"{name} {labels} was {count}")


async def lived_s(system: System, id: str, attempt: int) -> float:
    """How long an attempt lived with all its children, seen from outside; NaN if they were not seen alive."""

    async def over() -> bool:
        return len((await system.status(id)).get("attempts", ())) >= attempt

    async def began() -> list[dict[str, Any]] | bool:
        found = [note for note in noted(system, "began", {"id": id}) if note["attempt"] == attempt]
        return found or await over()

    found = await eventually(began, what=f"attempt {attempt} had begun")
    if isinstance(found, bool):
        return math.nan
    family = [found[0]["pid"], *found[0]["children"]]
    if not all(map(alive, family)):
        return math.nan
    await eventually(lambda: not any(map(alive, family)), what="the worker and its children were killed")
    return time.monotonic() - float(found[0]["at"])


async def test_two_minutes_with_a_limit_of_three_seconds(system: System) -> None:
    name = "two-minutes-background"
    three_each = pytest.approx([LIMIT_S, LIMIT_S], abs=ON_TIME_S)
    tried = 0
    while tried < TRIES:
        tried += 1
        sent_at = time.monotonic()
        id = await system.enqueue(name)
        lived = [await lived_s(system, id, attempt) for attempt in (1, 2)]
        died_at = time.monotonic()
        status = await system.in_state(id, "dead")
        took = [took_s(attempt) for attempt in status["attempts"]]
        assert died_at - sent_at >= 2 * LIMIT_S
        if lived == three_each and took == three_each:
            break
    assert lived == three_each
    assert took == three_each
    assert_ended_after(LIMIT_S, status["attempts"])
    assert (status["reason"], status["outcome"], status["attempt"]) == ("timed_out", "timed_out", 2)
    assert status["error"] == {
        "type": "TimedOut",
        "message": f"Task timed out after {LIMIT_S}.00 seconds",
        "trace": [],
    }
    assert all("last words" in attempt["logs"] for attempt in status["attempts"])
    await counted(system, 2 * tried, "quarterhour_outcomes_total", function=name, result="timed_out")
    await counted(system, tried, "quarterhour_retries_total", function=name)
    await counted(system, tried, "quarterhour_dead_letters_total", function=name, reason="timed_out")


async def test_one_that_is_deaf_to_sigterm_is_killed_a_second_later(system: System, ends: Ends) -> None:
    status = ends.by_name["deaf-background"]
    assert status["reason"] == "timed_out"
    deaf = {note["attempt"] for note in noted(system, "began", status)}
    assert_ended_after(LIMIT_S + 1, [one for one in status["attempts"] if one["attempt"] in deaf])
    assert_all_dead(system, status)


async def test_at_its_limit_it_has_a_second_to_say_goodbye(ends: Ends) -> None:
    status = ends.by_name["says-goodbye-background"]
    assert status["reason"] == "timed_out"
    polite = [attempt for attempt in status["attempts"] if "goodbye" in attempt["logs"]]
    assert_ended_after(LIMIT_S, polite)


def assert_all_dead(system: System, status: dict[str, Any]) -> None:
    """None of its attempts is left that had begun, as one of them has done at least."""
    began = noted(system, "began", status)
    assert began
    assert not any(alive(note["pid"]) for note in began)


def assert_noticed_at_once(system: System, status: dict[str, Any]) -> None:
    """An attempt is over 100 ms after what ended it: the quickest of three, since others use the machine."""
    ends = [note["now"] for note in noted(system, "end", status)]
    lags = [
        moment(attempt["finished_at"]) - end for attempt, end in zip(status["attempts"], ends, strict=True)
    ]
    assert all(-SHOWN_S <= lag < LATE_S for lag in lags), lags
    assert min(lags) <= 0.1, lags


@pytest.mark.parametrize("name", CRASHES)
async def test_a_crash_costs_the_attempt_alone(system: System, ends: Ends, name: str) -> None:
    status = ends.by_name[name]
    assert (status["reason"], status["attempt"]) == ("crashed", 3)
    for attempt in status["attempts"]:
        assert attempt["outcome"] == "crashed"
        assert CRASHES[name] in attempt["error"]["message"]
        assert "last words" in attempt["logs"]
    assert_noticed_at_once(system, status)
    await counted(system, 3, "quarterhour_outcomes_total", function=name, result="crashed")


async def test_allocating_without_end_costs_the_attempt_alone(system: System, ends: Ends) -> None:
    status = ends.by_name["eats-memory-background"]
    assert (status["reason"], status["attempt"]) == ("crashed", 3)
    for attempt in status["attempts"]:
        assert attempt["outcome"] == "crashed"
        assert "ran out of memory" in attempt["error"]["message"]
        assert "last words" in attempt["logs"]
    assert_noticed_at_once(system, status)
    assert len({note["pid"] for note in noted(system, "end", status)}) == 3  # none was used again


async def test_blocking_for_ever_in_c_costs_the_attempt_alone(system: System, ends: Ends) -> None:
    status = ends.by_name["blocks-in-c-background"]
    assert status["reason"] == "timed_out"
    assert_ended_after(LIMIT_S, status["attempts"])
    assert_all_dead(system, status)


async def test_the_neighbours_are_unharmed(system: System, ends: Ends) -> None:
    assert [(status["result"], status["attempt"]) for status in ends.neighbours] == [("unharmed", 1)] * 4
    (runner,) = [process for process in system.processes if process.facts("runner_started")]
    assert runner.popen.poll() is None
    assert not runner.facts("guard_died")
