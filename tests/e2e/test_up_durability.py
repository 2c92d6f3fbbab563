"""`quarterhour up` stopped, and killed, with work accepted: the next one sees every invocation to its end."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.notes import NOTE, notes
from tests.e2e.wire import PREFIX
from tests.up import Up
from tests.waiting import eventually

GATED = f"""{NOTE}
def handler(event, context):
    gate = pathlib.Path(__file__).parent.parent / "gate"
    while not gate.exists():
        time.sleep(0.01)
    note("ended", context)
"""
SHORT = f"""{NOTE}
config = {{"retry_delay": 0.1}}

def handler(event, context):
    time.sleep(0.1)
    note("ended", context)
    if context.attempt == 1 and int(event["body"]) % 5 == 0:
        raise ValueError("once more")
"""

LOST_LEASE_S = 3


@pytest.fixture
def ups(tmp_path: Path) -> Iterator[list[Up]]:
    (tmp_path / "functions").mkdir()
    started: list[Up] = []
    yield started
    for up in started:
        kill(up)


def kill(up: Up) -> None:
    """SIGKILL for every process of it."""
    family = up.family()
    for pid in (up.process.pid, *family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    up.wait()


async def started(tmp_path: Path, ups: list[Up], *arguments: str, lease_s: int = 6) -> str:
    """The URL of an `up` that is ready, and refuses nobody for being late.

    The lease is longer than a machine stands still for. What the last runner had waits for the end of one.
    """
    up = Up(tmp_path, "--port", "0", "--lateness-limit", "60", "--lease", str(lease_s), *arguments)
    ups.append(up)
    return await asyncio.to_thread(up.ready)


async def accepted(url: str, name: str, count: int) -> list[str]:
    """POST that often, 32 at a time, until all is done or nobody answers any more; the ids of the 202s."""
    ids: list[str] = []
    numbers = iter(range(count))

    async def post(client: httpx.AsyncClient) -> None:
        for number in numbers:
            try:
                answer = await client.post(
                    f"{url}{PREFIX}/{name}", content=str(number), headers={"content-type": "text/plain"}
                )
            except httpx.TransportError:
                return
            if answer.status_code == httpx.codes.ACCEPTED:
                ids.append(answer.headers["x-nf-request-id"])

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(post(client) for _ in range(32)))
    return ids


async def states(url: str, ids: list[str]) -> Counter[str]:
    """How many invocations are in which state."""
    numbers = iter(ids)
    found: Counter[str] = Counter()

    async def look(client: httpx.AsyncClient) -> None:
        for id in numbers:
            status: dict[str, Any] = (await client.get(f"{url}/v1/invocations/{id}?wait=60")).json()
            found[status["state"]] += 1

    async with httpx.AsyncClient(timeout=90) as client:
        await asyncio.gather(*(look(client) for _ in range(8)))
    return found


async def test_a_thousand_that_wait_when_it_is_stopped_run_once_after_the_next_start(
    tmp_path: Path, ups: list[Up]
) -> None:
    (tmp_path / "functions" / "gated-background.py").write_text(GATED)
    url = await started(tmp_path, ups, "--runners", "1", "--slots", "2", "--drain", "0")
    ids = await accepted(url, "gated-background", 1000)
    assert len(set(ids)) == 1000
    ups[0].process.terminate()
    assert await asyncio.to_thread(ups[0].wait) == 0
    assert notes(tmp_path) == []

    (tmp_path / "gate").touch()
    url = await started(tmp_path, ups)
    await eventually(lambda: len(notes(tmp_path)) >= 1000, deadline_s=120, what="all of them had run")
    assert Counter(note["id"] for note in notes(tmp_path)) == dict.fromkeys(ids, 1)
    assert await states(url, ids) == {"succeeded": 1000}
    assert len(notes(tmp_path)) == 1000


async def test_after_sigkill_of_everything_every_accepted_one_gets_its_end(
    tmp_path: Path, ups: list[Up]
) -> None:
    (tmp_path / "functions" / "short-background.py").write_text(SHORT)
    # So many slots that more is accepted than is run, and a lease whose end is waited for.
    url = await started(tmp_path, ups, "--slots", "1", lease_s=LOST_LEASE_S)
    posting = asyncio.ensure_future(accepted(url, "short-background", 1000))
    # In the midst of it all: accepting, running, failing, retrying.
    # Distinct ones: attempts that are repeated leave a note each. Of a few, the 202 is still on its way.
    await eventually(lambda: len({note["id"] for note in notes(tmp_path)}) >= 60, what="some had run")
    kill(ups[0])
    ids = await posting
    assert len(ids) >= 100
    ran_before = {note["id"] for note in notes(tmp_path)}

    url = await started(tmp_path, ups, "--runners", "1", lease_s=LOST_LEASE_S)
    assert await states(url, ids) == {"succeeded": len(ids)}
    ran = {note["id"] for note in notes(tmp_path)}
    assert set(ids) <= ran
    assert ran - ran_before, "nothing was left to do: the test proves nothing"
