"""Children of `up`: kept running, stopped, killed, and gone when their parent is."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from quarterhour.cli import die_with_parent
from quarterhour.cli.children import BACKOFF_MAX_S, Child, Program, backoff_s, ended, lifeline
from tests.waiting import eventually, eventually_sync, whole_lines

# Writes its pid into a file, one line for each start, and runs on.
NOTE = "import os,sys,time; open(sys.argv[1],'a').write(f'{os.getpid()}\\n'); time.sleep(600)"

# A parent with one child that watches its lifeline.
PARENT = """
import os, subprocess, sys
reading, writing = os.pipe()
command = [argument.replace("LIFELINE", str(reading)) for argument in sys.argv[1:]]
environment = {**os.environ, "QUARTERHOUR_LIFELINE": str(reading)}
child = subprocess.Popen(command, pass_fds=(reading,), env=environment, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""
WATCHER = "import asyncio; from quarterhour.processes import parent_gone; asyncio.run(parent_gone())"
WATCH = (
    "import sys; from quarterhour.cli import die_with_parent as shim; "
    "sys.exit(shim._watch(int(sys.argv[1]), sys.argv[2:]))"
)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(file: Path) -> list[int]:
    return [int(line) for line in whole_lines(file)]


@pytest.fixture
def descriptor() -> Iterator[int]:
    with lifeline() as reading:
        yield reading


@asynccontextmanager
async def running(program: Program, descriptor: int) -> AsyncIterator[Child]:
    child = Child(program, descriptor)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.run())
        yield child
        child.kill()


def python(code: str, *arguments: object) -> Program:
    return Program(name="test", arguments=(sys.executable, "-c", code, *map(str, arguments)))


async def test_a_child_that_dies_is_started_again(tmp_path: Path, descriptor: int) -> None:
    notes = tmp_path / "notes"
    async with running(python(NOTE, notes), descriptor) as child:
        for starts in (1, 2):
            await eventually(lambda starts=starts: len(pids(notes)) == starts)  # type: ignore[misc]
            os.kill(pids(notes)[-1], signal.SIGKILL)
        await eventually(lambda: len(pids(notes)) == 3)
        assert child.failures == 2
        child.stop()
        assert await ended([child], 30)
    assert len(pids(notes)) == 3
    assert not any(map(alive, pids(notes)))


async def test_what_cannot_be_started_is_tried_again_until_it_is_stopped(descriptor: int) -> None:
    async with running(Program(name="test", arguments=("/no/such/program",)), descriptor) as child:
        await eventually(lambda: child.failures == 2)
        child.stop()
        assert await ended([child], 30)


async def test_a_child_that_does_not_stop_is_killed_with_its_group(tmp_path: Path, descriptor: int) -> None:
    notes = tmp_path / "notes"
    stubborn = (
        "import signal,subprocess,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"subprocess.run([sys.executable, '-c', {NOTE!r}, sys.argv[1]])"
    )
    async with running(python(stubborn, notes), descriptor) as child:
        await eventually(lambda: pids(notes))
        child.stop()
        assert not await ended([child], 0.2)
        child.kill()
        assert await ended([child], 30)
        await eventually(lambda: not alive(pids(notes)[0]))


async def test_a_child_is_told_of_nothing_but_its_own(descriptor: int, tmp_path: Path) -> None:
    code = (
        "import json,os,sys; json.dump([os.environ['A'], os.getpid() == os.getsid(0),"
        " sorted(int(fd) for fd in os.listdir('/proc/self/fd'))], open(sys.argv[1], 'w'));"
        "os.replace(sys.argv[1], sys.argv[2]); import time; time.sleep(600)"
    )
    program = Program(
        name="test",
        arguments=(sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b")),
        environment={"A": "1"},
    )
    async with running(program, descriptor):
        await eventually((tmp_path / "b").exists)
        value, own_session, descriptors = __import__("json").loads((tmp_path / "b").read_text())
    assert value == "1"
    assert own_session
    # Standard streams, the lifeline, the file that is written and the folder that is listed.
    assert {0, 1, 2, descriptor} <= set(descriptors)
    assert len(descriptors) <= 6


def test_the_pauses_grow_to_a_limit() -> None:
    pauses = [backoff_s(failures) for failures in range(1, 100)]
    assert pauses[0] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX_S


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "-c", WATCHER], id="a process that watches its lifeline"),
        pytest.param(
            [sys.executable, "-I", "-S", die_with_parent.__file__, "LIFELINE", "/bin/sleep", "600"],
            id="a program that the kernel kills",
            marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux kills it"),
        ),
        pytest.param(
            [sys.executable, "-c", WATCH, "LIFELINE", "/bin/sleep", "600"],
            id="a program that is watched",
        ),
    ],
)
def test_a_child_ends_when_its_parent_is_killed(command: list[str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout:
        child = int(parent.stdout.readline())
    eventually_sync(lambda: alive(child) and b"-I" not in Path(f"/proc/{child}/cmdline").read_bytes())
    group = child
    parent.kill()
    parent.wait()
    eventually_sync(lambda: not alive(child), what="the child ended")
    eventually_sync(lambda: not _group_lives(group), what="its own children ended")


def test_a_watched_program_is_stopped_by_sigterm() -> None:
    reading, writing = os.pipe()
    shim = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(reading), "/bin/sleep", "600"],
        pass_fds=(reading,),
        start_new_session=True,
    )
    eventually_sync(lambda: _group_lives(shim.pid, at_least=2), what="the program started")
    shim.terminate()
    shim.wait()
    eventually_sync(lambda: not _group_lives(shim.pid), what="the program ended")
    os.close(reading)
    os.close(writing)


def _group_lives(group: int, at_least: int = 1) -> bool:
    """Whether that many processes of the group are alive."""
    members = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        members += fields[2] == str(group) and fields[0] not in "ZX"
    return members >= at_least
