"""`quarterhour up` for tests: a process that starts others, seen from outside."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tests.waiting import eventually_sync, whole_lines

__all__ = ["READY_S", "Up", "children", "leaving_nothing", "living"]

READY_S = 120.0


class Up:
    """One `quarterhour up` and what it wrote. `under`: the program that starts it, if another does."""

    def __init__(self, folder: Path, *arguments: str, under: tuple[str, ...] = ()) -> None:
        self.under = under
        self.folder = folder
        self.output = folder / "stdout"
        self.log = folder / "stderr"
        self.seen: dict[int, str] = {}  # so that a test that fails leaves nothing behind either
        with self.output.open("w") as output, self.log.open("a") as log:
            self.process = self._start(arguments, output, log)

    def _start(self, arguments: tuple[str, ...], output: IO[str], log: IO[str]) -> subprocess.Popen[bytes]:
        command = [*self.under, sys.executable, "-P", "-m", "quarterhour", "up", *arguments]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("QUARTERHOUR_")
        }
        return subprocess.Popen(
            command, cwd=self.folder, stdout=output, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )

    def ready(self) -> str:
        """The URL, once it is ready."""

        def url() -> str | None:
            assert self.process.poll() is None, self.log.read_text()
            lines = whole_lines(self.output)
            return lines[-1].removeprefix("ready ") if lines and lines[-1].startswith("ready ") else None

        try:
            return eventually_sync(url, deadline_s=READY_S, what="up was ready") or ""
        except AssertionError as error:
            error.add_note(self.log.read_text())
            raise

    def family(self) -> dict[int, str]:
        """The living descendants with their command lines."""
        family = _descendants(self.process.pid)
        self.seen |= family
        return family

    def kin(self, words: str) -> list[int]:
        """The descendants that say `words` in their command lines."""
        return [pid for pid, command in self.family().items() if words in command]

    def wait(self, timeout_s: float = 25) -> int:
        return self.process.wait(timeout_s)


def _processes() -> Iterator[tuple[int, int, str]]:
    """Pid, parent and command line of every process that lives."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            yield int(folder.name), int(fields[1]), command


def _descendants(root: int) -> dict[int, str]:
    processes = list(_processes())
    found: dict[int, str] = {}
    parents = {root}
    while parents:
        children = {pid: command for pid, parent, command in processes if parent in parents}
        found |= children
        parents = set(children)
    return found


def children(pid: int, words: str) -> list[int]:
    """The living children of a process that say `words` in their command lines."""
    return [child for child, parent, command in _processes() if parent == pid and words in command]


def living(pids: dict[int, str]) -> dict[int, str]:
    return {pid: command for pid, _, command in _processes() if pids.get(pid) == command}


@contextlib.contextmanager
def leaving_nothing() -> Iterator[list[Up]]:
    """A list for those that are started: none of their processes is left at the end."""
    ups: list[Up] = []
    try:
        yield ups
    finally:
        for up in ups:
            up.family()
            if up.process.poll() is None:
                up.process.kill()
                up.process.wait()
            for pid in living(up.seen):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
