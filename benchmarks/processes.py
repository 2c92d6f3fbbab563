"""Child processes that are measured: what they have used of the processors, and what memory they hold.

Reads `/proc`, so it needs Linux. It never signals a process that it did not start.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from quarterhour.processes import LIFELINE

__all__ = ["Child", "busy_s", "children_of", "cpu_s", "lifeline", "memory_kib", "start", "stop"]

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_S = 20.0

Child = subprocess.Popen[bytes]


@contextmanager
def lifeline() -> Iterator[int]:
    """A pipe's reading end for children: they end when this process does, however it goes."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def start(command: Sequence[str], environment: Mapping[str, str], log_path: Path, lifeline_fd: int) -> Child:
    """Start a child that writes to `log_path` and ends with this process."""
    with log_path.open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment, LIFELINE: str(lifeline_fd)},
            pass_fds=(lifeline_fd,),
            cwd=log_path.parent,
        )


def stop(child: Child) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds of processor time that these processes have used so far, all their threads together."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            ticks += sum(_stat(pid)[11:13])
    return ticks / TICKS_PER_S


def busy_s(pid: int) -> tuple[float, float]:
    """Seconds that all processors were busy since boot, and those of `pid` and all its descendants."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    ticks, family = 0, [pid]
    while family:
        member = family.pop()
        with suppress(FileNotFoundError, ProcessLookupError):
            ticks += sum(_stat(member)[11:15])
        family += children_of(member)
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S, ticks / TICKS_PER_S


def _stat(pid: int) -> list[int]:
    """The fields of `stat` after the name, the state (a letter) as 0."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]


def memory_kib(pid: int) -> dict[str, int]:
    """The lines of `smaps_rollup` (KiB): `Rss` counts shared pages whole, `Pss` by share."""
    found: dict[str, int] = {}
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        message = "Gateways and runners are closed to other processes of their user: run this as root."
        raise SystemExit(message) from None
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0])
    return found
