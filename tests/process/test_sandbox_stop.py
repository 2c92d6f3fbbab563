"""An attempt that is stopped in the very moment in which it starts."""

import asyncio

import pytest

from runner.sandbox.job import AttemptLost
from runner.sandbox.pool import Attempt
from tests.process.sandboxes import Bench
from tests.waiting import eventually

STAY = "import time\ndef handler(event, context): time.sleep(1000)"


async def stopped_at_once(attempt: Attempt) -> None:
    await eventually(lambda: attempt.started_at is not None, what="it had started")
    attempt.stop()


async def test_a_worker_that_was_only_just_forked_is_ended_too(bench: Bench) -> None:
    # The guard reads "spawn" and "kill" together: its signal may come before the worker leads a group.
    for _ in range(20):
        attempt = bench.attempt(STAY)
        run = asyncio.ensure_future(attempt.run())
        await stopped_at_once(attempt)
        with pytest.raises(AttemptLost):
            async with asyncio.timeout(30):
                await run
