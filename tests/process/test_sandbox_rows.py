"""A row of the table is its worker's alone: once that has ended, its attempt changes nothing there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from quarterhour.clock import boot_s
from quarterhour.outcome import Crashed, Succeeded, TimedOut
from runner.sandbox.job import Rest
from tests.process.sandboxes import WHOLE_AT_ONCE, Bench, Slow, cancelled
from tests.waiting import eventually

STAYS = """
    import time
    def handler(event, context):
        print("stays", flush=True)
        time.sleep(1000)
    """
LIMIT_S = 2.0
TIMED_OUT = TimedOut(limit_s=LIMIT_S)


async def test_a_response_that_is_taken_late_takes_no_limit_from_the_next_attempt(bench: Bench) -> None:
    sink = Slow()
    first = asyncio.create_task(bench.run(WHOLE_AT_ONCE, sink=sink))
    second = None
    try:
        await eventually(lambda: sink.chunks, what="the response has come")
        os.kill(await bench.printed_pid("pid"), signal.SIGKILL)
        await eventually(lambda: not bench.sandbox._workers, what="the worker has ended")
        second = asyncio.create_task(bench.run(STAYS, limit_s=LIMIT_S))
        await bench.printed("stays")
        sink.go_on.set()
        assert isinstance((await asyncio.wait_for(first, 10)).outcome, Succeeded)
        assert (await asyncio.wait_for(second, 10)).outcome == TIMED_OUT
    finally:
        await cancelled(first, second)


async def test_a_renewed_lease_is_not_that_of_the_next_attempt(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await go_on.wait()
        yield b"x"

    attempt = bench.attempt(STAYS, lease_s=30.0, body=b"", rest=Rest(size_bytes=1, read=body))
    first = asyncio.create_task(attempt.run())
    second = None
    try:
        await eventually(lambda: attempt.started_at is not None, what="a worker has it")
        (worker,) = bench.sandbox._workers.values()
        assert worker.guard is not None
        worker.guard.kill(worker.number)
        await eventually(lambda: not bench.sandbox._workers, what="the worker has ended")
        second = asyncio.create_task(bench.run(STAYS, limit_s=LIMIT_S))
        await bench.printed("stays")
        attempt.extend(boot_s())  # which would end it at once
        assert (await asyncio.wait_for(second, 10)).outcome == TIMED_OUT
        go_on.set()
        assert isinstance((await asyncio.wait_for(first, 10)).outcome, Crashed)
    finally:
        await cancelled(first, second)
