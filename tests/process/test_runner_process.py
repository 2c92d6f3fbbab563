"""The runner as a process that is ended before it has begun: while it waits for a broker that is away."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.nats_server import free_port
from tests.system import REPOSITORY


@asynccontextmanager
async def waiting_for_its_broker(folder: Path, lifeline: int | None = None) -> AsyncIterator[Process]:
    pipe = () if lifeline is None else (lifeline,)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runner", "--broker", f"nats://127.0.0.1:{free_port()}"),
        *("--functions", str(folder)),
        cwd=REPOSITORY,
        env={**os.environ, **({} if lifeline is None else {"QUARTERHOUR_LIFELINE": str(lifeline)})},
        pass_fds=pipe,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert b"waiting_for_broker" in line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_broker_that_is_not_there_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    async with waiting_for_its_broker(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b"")


async def test_it_ends_with_its_parent_though_its_broker_is_not_there(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    async with waiting_for_its_broker(tmp_path, lifeline=reading) as process:
        os.close(reading)
        os.close(writing)
        await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
