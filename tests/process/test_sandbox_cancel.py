"""An attempt that is cancelled ends at once, whatever it does, and so does all that it has started."""

import asyncio
import time

import pytest

from quarterhour.clock import boot_s
from quarterhour.outcome import Cancelled, Succeeded
from runner.sandbox.job import AttemptLost
from tests.process.sandboxes import Bench, alive
from tests.process.test_sandbox_limits import (
    CHILDREN,
    IGNORE,
    LABELS,
    MASK,
    SLEEP_HOLDING_EVERYTHING,
    SPIN,
    SWALLOW,
    pids_of_children,
    source_of,
)
from tests.waiting import eventually

RETURN = "def handler(event, context): return {'statusCode': 200}"


@pytest.mark.parametrize("body", [SPIN, IGNORE, MASK, SWALLOW, SLEEP_HOLDING_EVERYTHING])
async def test_whatever_it_does_it_ends_at_once_and_its_lines_are_kept(bench: Bench, body: str) -> None:
    code = bench.function(source_of(f"print('begun', flush=True)\n            {body}"))
    took_s: list[float] = []
    while not took_s or (took_s[-1] >= 1 and len(took_s) < 3):  # a machine that stalls does not do it thrice
        bench.lines.clear()
        attempt = bench.attempt(code)
        running = asyncio.create_task(attempt.run())
        await bench.printed("begun")
        began = time.monotonic()
        attempt.cancel()
        finished = await running
        took_s.append(time.monotonic() - began)
        assert finished.outcome == Cancelled()
        assert finished.logs.startswith("begun\n")
        assert (await bench.run(RETURN)).outcome != Cancelled()
    assert min(took_s) < 1


async def test_what_it_has_started_ends_as_well(bench: Bench) -> None:
    attempt = bench.attempt(CHILDREN)
    running = asyncio.create_task(attempt.run())
    pids = await pids_of_children(bench)
    assert len(pids) == len(LABELS)
    attempt.cancel()
    assert (await running).outcome == Cancelled()
    await eventually(
        lambda: not any(map(alive, pids)), deadline_s=20, what="nothing of it is left that it has started"
    )


async def test_before_a_worker_has_it_it_is_not_begun(bench: Bench) -> None:
    attempt = bench.attempt("print('begun', flush=True)\ndef handler(event, context): pass")
    attempt.cancel()
    with pytest.raises(AttemptLost) as lost:
        await attempt.run()
    assert lost.value.reason == "cancelled"
    assert attempt.started_at is None
    assert bench.lines == []


async def test_one_that_is_stopped_as_well_is_cancelled_all_the_same(bench: Bench) -> None:
    attempt = bench.attempt(source_of(f"print('begun', flush=True)\n            {SPIN}"))
    running = asyncio.create_task(attempt.run())
    await bench.printed("begun")
    attempt.cancel()
    attempt.stop()
    assert (await running).outcome == Cancelled()


async def test_one_whose_lease_ends_first_is_lost(bench: Bench) -> None:
    attempt = bench.attempt(source_of(f"print('begun', flush=True)\n            {SPIN}"), lease_s=30.0)
    running = asyncio.create_task(attempt.run())
    await bench.printed("begun")
    attempt.extend(boot_s() + 1.0)
    with pytest.raises(AttemptLost) as lost:
        await running
    attempt.cancel()
    assert lost.value.reason == "lease"


async def test_once_it_has_ended_its_worker_is_another_attempts(bench: Bench) -> None:
    code = bench.function(
        "import os\ndef handler(event, context):\n    return {'statusCode': 200, 'body': str(os.getpid())}"
    )
    attempt = bench.attempt(code)
    first = (await attempt.run()).outcome
    attempt.cancel()
    second = (await bench.run(code)).outcome
    assert isinstance(first, Succeeded)
    assert first == second, "the worker was ended"
