"""Whoever of runner, guard and worker dies, no worker is left that nobody guards."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.protection import CALLS_FILTERED
from runner.sandbox.job import AttemptLost, Finished
from tests.parts import need
from tests.process.sandboxes import Bench, adopting, alive, cancelled, open_bench, response
from tests.system import descendants
from tests.waiting import eventually, eventually_sync, whole_lines

LINUX = sys.platform == "linux"
REPOSITORY = Path(__file__).parent.parent.parent
OK = "def handler(event, context): return {'statusCode': 200}"
STAY = """
import os, signal, sys, time
def handler(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        print("child", os.getpid(), flush=True)
        time.sleep(1000)
        os._exit(0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print("daemon", os.getpid(), flush=True)
            time.sleep(1000)
        os._exit(0)
    print("worker", os.getpid(), flush=True)
    time.sleep(1000)
"""
LABELS = ("worker", "child", "daemon")


async def test_a_killed_guard_loses_its_attempts_and_another_takes_over(bench: Bench) -> None:
    first = bench.guard_pid
    running = [asyncio.create_task(bench.run(STAY)) for _ in range(2)]
    for label in LABELS:
        await bench.printed(label)
    os.kill(first, signal.SIGKILL)
    for task in running:
        with pytest.raises(AttemptLost) as lost:
            await task
        assert lost.value.reason == "guard"
    assert response(await bench.run(OK)).status == 200
    assert bench.guard_pid != first
    pids: dict[str, list[int]] = {label: [] for label in LABELS}
    for line in bench.lines:
        label, number = line.text.split()
        pids[label].append(int(number))
    found = pids["worker"] + pids["child"] + (pids["daemon"] if LINUX else [])
    await eventually(lambda: not any(map(exists, found)), what="what the first guard guarded was gone")


@pytest.mark.skipif(not LINUX, reason="elsewhere nobody finds what has left its group")
async def test_only_what_a_killed_guard_has_left_is_ended(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with sleeping() as started:
        async with open_bench(folder) as other:
            running = [asyncio.create_task(each.run(STAY)) for each in (bench, other)]
            daemons = [await each.printed_pid("daemon") for each in (bench, other)]
            os.kill(bench.guard_pid, signal.SIGKILL)
            with pytest.raises(AttemptLost):
                await running[0]
            await eventually(lambda: not exists(daemons[0]), what="what the guard had left was gone")
            assert alive(daemons[1]), "it has a guard"
            assert [process.poll() for process in started] == [None, None]
            await cancelled(running[1])


async def test_a_guard_killed_while_nothing_runs_is_replaced(bench: Bench) -> None:
    code = bench.function(OK)
    await bench.run(code)
    os.kill(bench.guard_pid, signal.SIGKILL)
    for _ in range(3):
        try:
            assert response(await bench.run(code)).status == 200
        except AttemptLost as lost:  # its idle worker died under it: that is handed back
            assert lost.reason == "guard"  # noqa: PT017 - either is right
    assert response(await bench.run(code)).status == 200


async def test_many_attempts_at_once_survive_the_change_of_guards(bench: Bench) -> None:
    os.kill(bench.guard_pid, signal.SIGKILL)
    results = await asyncio.gather(*(bench.run(OK) for _ in range(4)), return_exceptions=True)
    assert [result for result in results if not isinstance(result, Finished | AttemptLost)] == []
    assert response(await bench.run(OK)).status == 200


@contextmanager
def sleeping() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that this one has started: one with a session of its own, and one without."""
    started = [subprocess.Popen(["sleep", "1000"], start_new_session=own) for own in (True, False)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def exists(pid: int) -> bool:
    """Whether there is such a process, be it one that is only waited for."""
    return Path(f"/proc/{pid}").exists() if LINUX else alive(pid)


class RunnerProcess:
    """The process of sandbox_runner.py, and what its function has printed."""

    def __init__(self, folder: Path, lease_s: float, prefix: Sequence[str]) -> None:
        path = folder / "stay.py"
        path.write_text(STAY)
        program = Path(__file__).with_name("sandbox_runner.py")
        command = [*prefix, sys.executable, str(program), str(path), str(lease_s)]
        self.output = folder / "output"
        self.seen: set[int] = set()
        with self.output.open("wb") as output:
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            self.process = subprocess.Popen(command, stdout=output, env=environment)

    def pid(self, label: str) -> int:
        """The process id that was printed with this label."""

        def found() -> str | None:
            lines = [line.split() for line in whole_lines(self.output)]
            return next((words[1] for words in lines if words[0] == label), None)

        pid = int(eventually_sync(found, what=f"a line {label!r} was there") or 0)
        self.seen.add(pid)
        return pid

    def said(self) -> set[str]:
        """The labels that are there."""
        return {line.split()[0] for line in whole_lines(self.output)}


@contextmanager
def runner_process(
    folder: Path, lease_s: float = 0.0, *, prefix: Sequence[str] = ()
) -> Iterator[RunnerProcess]:
    with adopting():
        runner = RunnerProcess(folder, lease_s, prefix)
        try:
            yield runner
        finally:
            runner.process.kill()
            runner.process.wait()
            for pid in runner.seen & descendants(os.getpid()):
                os.kill(pid, signal.SIGKILL)


def test_when_the_runner_is_killed_nothing_of_its_sandbox_is_left(tmp_path: Path) -> None:
    with runner_process(tmp_path) as runner:
        pids = [runner.pid(label) for label in ("guard", *LABELS)]
        assert all(map(alive, pids))
        runner.process.kill()
        eventually_sync(lambda: not any(map(alive, pids)), deadline_s=20, what="all were gone")


def test_when_the_runner_ends_its_children_end_with_it(tmp_path: Path) -> None:
    with runner_process(tmp_path) as runner:
        pids = [runner.pid(label) for label in ("guard", *LABELS)]
        runner.process.send_signal(signal.SIGINT)
        eventually_sync(lambda: not any(map(alive, pids)), deadline_s=20, what="all were gone")


def test_a_stopped_runners_attempts_end_with_their_lease(tmp_path: Path) -> None:
    # A machine that stalls may be late with what is to run, or with what is to end, but not every time.
    in_time = (gone_by_the_end_of_its_lease(tmp_path, lease_s) for lease_s in (2.5, 6.0, 8.0))
    assert any(in_time), "gone by the end of the lease"


def gone_by_the_end_of_its_lease(folder: Path, lease_s: float) -> bool:
    """Whether all that a stopped runner runs is gone by then, having run at all; gone it has to be."""
    with runner_process(folder, lease_s) as runner:
        eventually_sync(
            lambda: runner.said() >= {"guard", *LABELS} or runner.process.poll() is not None, what="it runs"
        )
        if not runner.said() >= {"guard", *LABELS}:
            return False  # its lease was over before
        pids = [runner.pid(label) for label in LABELS]
        ends_before = time.monotonic() + lease_s  # it began before anything was printed
        runner.process.send_signal(signal.SIGSTOP)
        all_ran = all(map(alive, pids))
        eventually_sync(lambda: not any(map(alive, pids)), what="all were gone")
        in_time = time.monotonic() < ends_before
        if all_ran:
            assert alive(runner.pid("guard"))
        runner.process.send_signal(signal.SIGCONT)
        return all_ran and in_time


def test_when_runner_and_guard_are_killed_together_the_workers_end(tmp_path: Path) -> None:
    with runner_process(tmp_path) as runner:
        worker = runner.pid("worker")
        for label in LABELS:
            runner.pid(label)  # so that they are ended with the test
        runner.process.send_signal(signal.SIGSTOP)
        os.kill(runner.pid("guard"), signal.SIGKILL)
        runner.process.kill()
        eventually_sync(lambda: not alive(worker), deadline_s=20, what="the worker was gone")


@pytest.mark.skipif(
    not CALLS_FILTERED or "Seccomp_filters" not in Path("/proc/self/status").read_text(),
    reason="here such a runner cannot tell what a guard has left",
)
def test_a_runner_that_can_gain_no_rights_finds_what_a_killed_guard_has_left(tmp_path: Path) -> None:
    prefix = (str(need("setpriv", package="util-linux")), "--no-new-privs")
    with runner_process(tmp_path, prefix=prefix) as runner:
        pids = [runner.pid(label) for label in ("guard", *LABELS)]
        os.kill(pids[0], signal.SIGKILL)
        eventually_sync(lambda: not any(map(exists, pids)), what="all were gone")
