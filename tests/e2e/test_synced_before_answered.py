"""Never a 202 before the sync that holds it: what the kernel was asked, and in which order."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.parts import need
from tests.strace import STRACE, Journal, calls, read_journal
from tests.up import Up, leaving_nothing
from tests.waiting import eventually

ALONE = 5
TOGETHER = 100

NOTE = "def handler(event, context):\n    pass\n"


@pytest.fixture
def strace() -> str:
    """The program, where it is allowed to look."""
    path = need("strace", package="strace")
    tried = subprocess.run(
        [path, "--seccomp-bpf", "-f", "-o", os.devnull, "true"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        sentence = f"This test needs to be allowed to trace processes: {tried.stderr.decode().strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return path


async def test_what_is_answered_and_acknowledged_is_on_the_disk(tmp_path: Path, strace: str) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "note-background.py").write_text(NOTE)
    trace = tmp_path / "trace"
    with leaving_nothing() as ups:
        flags = (
            "--port",
            "0",
            "--runners",
            "1",
            "--lateness-limit",
            "60",
        )  # it is late with strace, and may be
        up = Up(tmp_path, *flags, under=(strace, *STRACE, str(trace)))
        ups.append(up)
        url = await asyncio.to_thread(up.ready)
        accepted = await accept(url)
        (pid,) = [pid for pid in up.kin("quarterhour up") if pid != up.process.pid]
        os.kill(pid, signal.SIGTERM)
        await asyncio.to_thread(up.wait, 60)
    with trace.open() as lines:
        journal = read_journal(calls(lines), "quarterhour")
    assert set(journal.answered) == accepted
    assert list(journal.too_early()) == []
    kinds = {journal.subjects[sequence].split(".")[1] for sequence in journal.acknowledged}
    assert kinds == {"c", "q", "k", "s", "r"}  # the server's start, accepted, with a key, delayed, settled
    batched = {count for _, count in journal.acknowledged.values()}
    assert 1 in batched
    assert max(batched) > 1  # with a key in any case; what else shares a batch depends on the machine


async def accept(url: str) -> set[str]:
    """POST one at a time, many at once, with a key, and for later; the ids of the 202s, all of it settled."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def post(**headers: str) -> str:
            answer = await client.post("/.netlify/functions/note-background", headers=headers)
            assert answer.status_code == 202
            return str(answer.headers["x-nf-request-id"])

        alone = [await post() for _ in range(ALONE)]
        together = await asyncio.gather(*(post() for _ in range(TOGETHER)))
        keyed = await post(**{"idempotency-key": '"a note"'})  # a batch on its own: key and work
        later = await post(**{"x-quarterhour-delay": "3600"})

        async def settled() -> bool:
            answers = await asyncio.gather(
                *(client.get(f"/v1/invocations/{each}") for each in [*together, keyed])
            )
            return {answer.json()["state"] for answer in answers} == {"succeeded"}

        await eventually(settled, deadline_s=60, what="everything had run")
        return {*alone, *together, keyed, later}


# The proof itself can fail


BLOCK = "7</data/streams/quarterhour/msgs/1.blk>"
ID = "01890000-0000-7000-8000-000000000000"


def wrote(pid: int, call: str, file: str, data: bytes) -> str:
    text = "".join(f"\\x{byte:02x}" for byte in data)
    return f'{pid} {call}({file}, "{text}", {len(data)}) = {len(data)}'


def record(sequence: int, subject: bytes) -> bytes:
    head = (22 + len(subject)).to_bytes(4, "little") + sequence.to_bytes(8, "little") + bytes(8)
    return head + len(subject).to_bytes(2, "little") + subject


WRITE = wrote(10, "pwrite64", BLOCK, record(1, f"quarterhour.q.note.{ID}.1".encode()))
SYNC = [f"11 fsync({BLOCK} <unfinished ...>", "11 <... fsync resumed>) = 0"]
ACK = wrote(10, "writev", "9<socket:[1]>", b'MSG x 1 32\r\n{"stream":"quarterhour","seq":1}\r\n')
ANSWER = wrote(20, "write", "9<socket:[2]>", f"HTTP/1.1 202 \r\nx-nf-request-id: {ID}\r\n".encode())


def journal_of(*lines: str) -> Journal:
    return read_journal(calls(lines), "quarterhour")


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ([WRITE, *SYNC, ACK, ANSWER], 0),
        ([WRITE, SYNC[0], ACK, ANSWER, SYNC[1]], 2),  # the sync has not ended
        ([WRITE, SYNC[0], ACK, SYNC[1], ANSWER], 1),
        ([SYNC[0], WRITE, SYNC[1], ACK, ANSWER], 2),  # the sync began before the write
        ([WRITE, ACK, ANSWER], 2),
        ([ANSWER], 1),
    ],
)
def test_what_comes_too_early_is_found(lines: list[str], early: int) -> None:
    assert len(list(journal_of(*lines).too_early())) == early
