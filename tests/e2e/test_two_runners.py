"""Two runners share the work: both take part, each invocation runs once, the loss of one loses nothing."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.notes import NOTE, notes, runs_by_id
from tests.system import Process, System, alive, descendants
from tests.waiting import eventually

COUNT = 100
LEASE_S = 6.0  # of what the lost one had; more than a machine stands still for
FUNCTIONS = {
    "work-background": f"""{NOTE}
def handler(event, context):
    note("began", context)
    time.sleep(0.6)
    note("ended", context)
"""
}


async def started(system: System) -> tuple[Process, Process]:
    await system.start_gateway()
    first, second = await asyncio.gather(
        system.start_runner("--slots", "8"), system.start_runner("--slots", "8")
    )
    return first, second


async def enqueued(system: System) -> list[str]:
    return await asyncio.gather(*(system.enqueue("work-background") for _ in range(COUNT)))


async def statuses(system: System, ids: list[str], *, deadline_s: float) -> list[dict[str, Any]]:
    """The statuses at the end of all of them."""
    done = set[str]()

    def all_ran() -> bool:
        done.update(note["id"] for note in notes(system.folder, "ended"))
        return done == set(ids)

    await eventually(all_ran, deadline_s=deadline_s, what="all of them had run")
    return await asyncio.gather(*(system.in_state(id, "succeeded", "dead") for id in ids))


async def test_both_take_part_and_each_invocation_runs_once(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        runners = await started(system)
        ids = await enqueued(system)
        ended = await statuses(system, ids, deadline_s=50)
        assert Counter(status["state"] for status in ended) == {"succeeded": COUNT}
        names = [runner.facts("runner_started")[0]["runner"] for runner in runners]
        shares = Counter(status["attempts"][0]["runner"] for status in ended)
        assert set(shares) == set(names)
        assert min(shares.values()) >= COUNT / 10
        runs = runs_by_id(tmp_path)
        assert {id: len(runs[id]) for id in runs} == dict.fromkeys(ids, 1)
        assert all(run.ended is not None for (run,) in runs.values())


def in_the_midst(folder: Path) -> set[int]:
    """The workers that have begun a run and not ended it."""
    return {run.pid for of_one in runs_by_id(folder).values() for run in of_one if run.ended is None}


async def test_the_loss_of_one_half_way_loses_nothing(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS, lease_s=LEASE_S) as system:
        lost, _ = await started(system)
        ids = await enqueued(system)
        await eventually(lambda: len(notes(tmp_path, "ended")) >= COUNT / 2, what="half of them had run")
        workers = descendants(lost.pid)

        def stopped_in_the_midst() -> bool:
            """Stop workers in the midst of a run, so that none of those runs ends before the kill."""
            found = workers & in_the_midst(tmp_path)
            for pid in found:
                os.kill(pid, signal.SIGSTOP)
            if found & in_the_midst(tmp_path):
                return True
            for pid in found:
                os.kill(pid, signal.SIGCONT)
            return False

        await eventually(stopped_in_the_midst, what="the one to be lost was in the midst of a run")
        lost.send(signal.SIGKILL)
        await lost.ended()
        killed_at = time.monotonic()
        await eventually(lambda: not any(map(alive, workers)), what="its workers went with it")

        # The rest is done once the leases of the lost runner have ended.
        ended = await statuses(system, ids, deadline_s=LEASE_S + 40)
        assert Counter(status["state"] for status in ended) == {"succeeded": COUNT}
        assert {status["attempt"] for status in ended} == {1}

        runs = runs_by_id(tmp_path)
        assert set(runs) == set(ids)
        again = {id: of_one for id, of_one in runs.items() if len(of_one) > 1}
        assert 1 <= len(again) <= 4 * 8  # what ran on the lost runner, or was not on record yet
        for first, second in again.values():
            assert first.pid in workers
            assert first.began < (first.ended or killed_at) < killed_at + 0.5 < second.began
            assert second.ended is not None
