"""A response that comes bit by bit, in the runner: it holds little more of it than was taken."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from quarterhour.outcome import Succeeded, TimedOut
from runner.sandbox.job import AttemptLost
from tests.process.sandboxes import WHOLE_AT_ONCE, Bench, HourLater, Slow, cancelled, open_bench
from tests.waiting import eventually

CHUNKS = 100
ON_THE_WAY_MAX = 20  # chunks of 64 KiB: in the socket, and what the runner reads at a time

SENDS = f"""
    from pathlib import Path
    def body():
        for number in range({CHUNKS}):
            yield bytes(65536)
            Path(__file__).with_name("sent").write_text(str(number + 1))
    def handler(event, context):
        return {{"statusCode": 200, "body": body()}}
    """


async def test_a_function_goes_no_faster_than_its_response_is_taken(tmp_path: Path) -> None:
    sink, sent = Slow(), tmp_path / "sent"

    def progress() -> int:
        return int(sent.read_text() or 0) if sent.exists() else 0

    async with open_bench(tmp_path) as bench:
        running = asyncio.create_task(bench.run(SENDS, sink=sink))
        try:
            await eventually(lambda: sink.chunks and progress(), what="it has begun to send")
            for _ in range(20):  # it had time for all of them, many times over
                await asyncio.sleep(0.02)
                assert progress() <= ON_THE_WAY_MAX
            sink.go_on.set()
            finished = await asyncio.wait_for(running, 30)
        finally:
            await cancelled(running)
    assert isinstance(finished.outcome, Succeeded)
    assert [len(chunk) for chunk in sink.chunks] == [65536] * CHUNKS


STAYS = """
    import time
    def body():
        yield b"one"
        time.sleep(1000)
    def handler(event, context):
        return {"statusCode": 200, "body": body()}
    """


async def test_a_client_that_takes_nothing_holds_no_function_beyond_its_limit(bench: Bench) -> None:
    finished = await asyncio.wait_for(bench.run(STAYS, sink=Slow(), limit_s=1), 30)
    assert finished.outcome == TimedOut(limit_s=1)


async def test_stop_ends_what_waits_for_its_client(bench: Bench) -> None:
    sink = Slow()
    attempt = bench.attempt(STAYS, sink=sink)
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: sink.chunks, what="the client is waited for")
    attempt.stop()
    with pytest.raises(AttemptLost, match="stopped"):
        await asyncio.wait_for(running, 30)


async def test_stop_ends_what_waits_for_its_client_when_its_worker_has_gone(bench: Bench) -> None:
    sink = Slow()
    attempt = bench.attempt(WHOLE_AT_ONCE, sink=sink)
    running = asyncio.create_task(attempt.run())
    await eventually(lambda: sink.chunks, what="the client is waited for")
    os.kill(await bench.printed_pid("pid"), signal.SIGKILL)
    await eventually(lambda: not bench.sandbox._workers, what="the worker has ended")
    assert not running.done()  # there is a whole response to deliver
    attempt.stop()
    with pytest.raises(AttemptLost, match="stopped"):
        await asyncio.wait_for(running, 30)


async def test_a_function_that_has_ended_in_time_is_not_late_for_its_client(bench: Bench) -> None:
    sink = Slow()
    running = asyncio.create_task(bench.run(WHOLE_AT_ONCE, sink=sink))
    try:
        await eventually(lambda: sink.chunks, what="the client is waited for")
        assert not any(bench.sandbox._table._moments)
        bench.sandbox.clock = HourLater()
        sink.go_on.set()
        finished = await asyncio.wait_for(running, 30)
    finally:
        await cancelled(running)
    assert isinstance(finished.outcome, Succeeded)
    assert sink.chunks == [b"one"]
