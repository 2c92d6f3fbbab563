"""What guards that died have left: the runner ends it, as they would have done.

The workers of a guard die with it, but not what they have started and what hides from their group. The
runner is a child subreaper, as guards and workers are, so that it becomes the parent of those. It tells
them from what it has started itself by the bars of a worker, which nobody who has them gets rid of.
Elsewhere than on Linux there is nothing like it.
"""

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from runner.sandbox.guarding.confinement import prctl

__all__ = ["adopt_orphans", "end_orphans"]

PR_SET_CHILD_SUBREAPER = 36
END_S = 1.0
PAUSE_S = 0.001
BARS = ("NoNewPrivs", "Seccomp_filters")  # this process may have some of them, too, but a worker has more


def adopt_orphans() -> None:
    """From now on, what guards and workers of this process leave behind becomes a child of it."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_orphans(guards: Collection[int]) -> None:
    """Kill and reap what dead guards have left, but none of these guards. Takes a second at most.

    Whoever dies leaves its own children to this process; so it is looked for until there is none.
    """
    ends_at = time.monotonic() + END_S
    while (found := _orphans(guards)) and time.monotonic() < ends_at:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(PAUSE_S)


def _orphans(guards: Collection[int]) -> list[int]:
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return []
    own = _bars(os.getpid())
    return [pid for pid in map(int, children) if pid not in guards and _was_left(pid, own)]


def _was_left(child: int, own: list[int]) -> bool:
    try:
        # What a guard has started can't join the session of this process.
        return os.getsid(child) != os.getsid(0) and any(
            theirs > ours for theirs, ours in zip(_bars(child), own, strict=True)
        )
    except (OSError, ValueError):  # it is gone by now
        return False


def _bars(pid: int) -> list[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return [int(facts.get(name, 0)) for name in BARS]
