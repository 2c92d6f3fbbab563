"""A row of the table is its worker's alone: once that has ended, its attempt changes nothing there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from quarterhour.clock import boot_s
from quarterhour.outcome import Crashed, Succeeded, TimedOut
from runner.sandbox.job import Finished, Rest
from runner.sandbox.pool import Attempt
from tests.process.sandboxes import WHOLE_AT_ONCE, Bench, Slow, cancelled
from tests.waiting import eventually

STAYS = """
    import time
    def handler(event, context):
        print("stays", flush=True)
        time.sleep(1000)
    """
LIMIT_S = 60.0


async def reaches_its_limit(bench: Bench, attempt: Attempt, running: "asyncio.Task[Finished]") -> None:
    """Assert that its limit, and no lease, is in the table, and that the guard keeps what is there."""
    worker = attempt._worker
    assert worker is not None
    limit_at, leased_until = bench.sandbox._table._moments[2 * worker.row : 2 * worker.row + 2]
    assert boot_s() < limit_at < boot_s() + LIMIT_S
    assert leased_until == 0
    bench.sandbox.keep_moments(worker, limit_at=boot_s(), leased_until=None)
    assert (await asyncio.wait_for(running, 30)).outcome == TimedOut(limit_s=LIMIT_S)


async def test_a_response_that_is_taken_late_takes_no_limit_from_the_next_attempt(bench: Bench) -> None:
    sink = Slow()
    first = asyncio.create_task(bench.run(WHOLE_AT_ONCE, sink=sink))
    second = None
    try:
        await eventually(lambda: sink.chunks, what="the response has come")
        os.kill(await bench.printed_pid("pid"), signal.SIGKILL)
        await eventually(lambda: not bench.sandbox._workers, what="the worker has ended")
        attempt = bench.attempt(STAYS, limit_s=LIMIT_S)
        second = asyncio.create_task(attempt.run())
        await bench.printed("stays")
        sink.go_on.set()
        assert isinstance((await asyncio.wait_for(first, 30)).outcome, Succeeded)
        await reaches_its_limit(bench, attempt, second)
    finally:
        await cancelled(first, second)


async def test_a_renewed_lease_is_not_that_of_the_next_attempt(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await go_on.wait()
        yield b"x"

    attempt = bench.attempt(STAYS, lease_s=60.0, body=b"", rest=Rest(size_bytes=1, read=body))
    first = asyncio.create_task(attempt.run())
    second = None
    try:
        await eventually(lambda: attempt.started_at is not None, what="a worker has it")
        (worker,) = bench.sandbox._workers.values()
        assert worker.guard is not None
        worker.guard.kill(worker.number)
        await eventually(lambda: not bench.sandbox._workers, what="the worker has ended")
        next_one = bench.attempt(STAYS, limit_s=LIMIT_S)
        second = asyncio.create_task(next_one.run())
        await bench.printed("stays")
        attempt.extend(boot_s())  # which would end it at once
        await reaches_its_limit(bench, next_one, second)
        go_on.set()
        assert isinstance((await asyncio.wait_for(first, 30)).outcome, Crashed)
    finally:
        await cancelled(first, second)
