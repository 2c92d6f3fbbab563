"""Become another program that ends when its parent does, even if the parent is killed.

    python -I -S die_with_parent.py LIFELINE PROGRAM [ARGUMENT...]

For programs that are not ours and so do not watch a lifeline (`quarterhour.processes`) themselves.
On Linux the kernel is asked to see to it, and this process becomes the program. Elsewhere it starts
the program, watches the lifeline for it and passes SIGTERM on; only if this process itself is killed
together with the parent does the program outlive them. Standard library only; it starts in 20 ms.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the program that the arguments name."""
    lifeline, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        _exec(lifeline, program)
    sys.exit(_watch(lifeline, program))


def _exec(lifeline: int, program: list[str]) -> None:
    # SIGKILL: nothing can be lost that was promised, and nothing can be left.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([lifeline], [], [], 0)[0]:  # the parent went before the kernel was asked
        sys.exit(1)
    # As the gateway and the runners do, for the reason given there (`quarterhour.entry`).
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


def _watch(lifeline: int, program: list[str]) -> int:
    stopped = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def stop(*_: object) -> None:
        stopped.set()
        for process in started:
            process.terminate()

    def kill_at_end() -> None:
        os.read(lifeline, 1)
        process.kill()

    # Before the program starts, or a signal in between would leave it without anybody who watches it.
    signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(program)
    started.append(process)
    if stopped.is_set():
        process.terminate()
    threading.Thread(target=kill_at_end, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    main()
