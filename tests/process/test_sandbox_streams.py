"""A response that comes bit by bit, in the runner: it holds little more of it than was taken."""

import asyncio
from pathlib import Path

from quarterhour.outcome import Succeeded
from tests.process.sandboxes import Slow, cancelled, open_bench
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
            finished = await asyncio.wait_for(running, 10)
        finally:
            await cancelled(running)
    assert isinstance(finished.outcome, Succeeded)
    assert [len(chunk) for chunk in sink.chunks] == [65536] * CHUNKS
