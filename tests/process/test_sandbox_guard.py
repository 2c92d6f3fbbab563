"""Whoever of runner, guard and worker dies, no worker is left that nobody guards."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.sandbox.job import AttemptLost, Finished
from tests.process.sandboxes import Bench, adopting, alive, response
from tests.system import descendants
from tests.waiting import eventually, eventually_sync

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
    guarded = pids["worker"] + pids["child"]
    await eventually(lambda: not any(map(alive, guarded)), what="what the first guard guarded was gone")
    for pid in pids["daemon"]:
        os.kill(pid, signal.SIGKILL)  # who left every group is found by a guard only, and that is dead


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


class RunnerProcess:
    """The process of sandbox_runner.py, and what its function has printed."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        path = folder / "stay.py"
        path.write_text(STAY)
        program = Path(__file__).with_name("sandbox_runner.py")
        command = [sys.executable, str(program), str(path), str(lease_s)]
        self.output = folder / "output"
        self.seen: set[int] = set()
        with self.output.open("wb") as output:
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            self.process = subprocess.Popen(command, stdout=output, env=environment)

    def pid(self, label: str) -> int:
        """The process id that was printed with this label."""

        def found() -> str | None:
            lines = [line.split() for line in self.output.read_text().splitlines()]
            return next((words[1] for words in lines if words[0] == label), None)

        pid = int(eventually_sync(found, what=f"a line {label!r} was there") or 0)
        self.seen.add(pid)
        return pid


@contextmanager
def runner_process(folder: Path, lease_s: float = 0.0) -> Iterator[RunnerProcess]:
    with adopting():
        runner = RunnerProcess(folder, lease_s)
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
        eventually_sync(lambda: not any(map(alive, pids)), deadline_s=2, what="all were gone")


def test_when_the_runner_ends_its_children_end_with_it(tmp_path: Path) -> None:
    with runner_process(tmp_path) as runner:
        pids = [runner.pid(label) for label in ("guard", *LABELS)]
        runner.process.send_signal(signal.SIGINT)
        eventually_sync(lambda: not any(map(alive, pids)), deadline_s=5, what="all were gone")


def test_a_stopped_runners_attempts_end_with_their_lease(tmp_path: Path) -> None:
    lease_s = 2.5
    with runner_process(tmp_path, lease_s) as runner:
        pids = [runner.pid(label) for label in LABELS]
        ends_before = time.monotonic() + lease_s  # it began before anything was printed
        runner.process.send_signal(signal.SIGSTOP)
        assert all(map(alive, pids))
        eventually_sync(lambda: not any(map(alive, pids)), deadline_s=5, what="all were gone")
        assert time.monotonic() < ends_before, "gone by the end of the lease"
        assert alive(runner.pid("guard"))
        runner.process.send_signal(signal.SIGCONT)


def test_when_runner_and_guard_are_killed_together_the_workers_end(tmp_path: Path) -> None:
    with runner_process(tmp_path) as runner:
        worker = runner.pid("worker")
        for label in LABELS:
            runner.pid(label)  # so that they are ended with the test
        runner.process.send_signal(signal.SIGSTOP)
        os.kill(runner.pid("guard"), signal.SIGKILL)
        runner.process.kill()
        eventually_sync(lambda: not alive(worker), deadline_s=2, what="the worker was gone")
