"""What the runner makes sure of, and what it says, about how well its functions are kept apart.

It starts no worker and closes no bar: that is the guard's (`runner/sandbox/guarding/`).
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import quarterhour
from quarterhour.errors import SettingsError
from quarterhour.users import Users
from runner.sandbox.guarding.confinement import SCOPES_SINCE, call_filter

__all__ = ["check_readable", "missing_protections"]

LOOK_S = 20.0
FILES_MAX = 1000
SANDBOX = Path(__file__).parent / "sandbox"
AUTHORS_PACKAGE = Path(quarterhour.__file__).parent
# Says which of the paths this user cannot read; a folder has to be entered as well.
LOOK = """
import os, sys
for path in sys.argv[1:]:
    if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
        sys.exit(path)
"""
CALLS_FILTERED = call_filter() is not None


def missing_protections(
    users: Users | None, *, landlock: int, root: bool, filtered: bool = CALLS_FILTERED
) -> list[str]:
    """A sentence about each part of the sandbox that is not there.

    `landlock`: its version, 0 for none. `filtered`: whether there is a filter of system calls.
    """
    sentences = []
    if root and users is None:
        sentences.append(
            "Functions run as root, and so can do whatever this machine allows; "
            "name a user for them with --function-user."
        )
    if users is not None and not users.is_one:
        if landlock < SCOPES_SINCE:  # what else it divides, users who have nothing in common are without it
            sentences.append(
                "There is no Landlock of Linux 6.12 or newer here: functions can reach each other's abstract "
                "sockets, although each has a user of its own."
            )
        return sentences
    if landlock == 0:
        sentences.append(
            "There is no Landlock here (Linux 5.19 or newer, if it is not turned off): functions can look "
            "into processes of their user, each other's among them, signal them, and reach abstract sockets."
        )
    elif landlock < SCOPES_SINCE:
        sentences.append(
            "Landlock is older than Linux 6.12: functions can signal processes of their user, "
            "and reach everybody's abstract sockets."
        )
    if not filtered:
        sentences.append(
            "System calls are not filtered here (that takes Linux 4.17 or newer with seccomp, on x86_64 or "
            "aarch64): functions can set limits and priorities of processes of their user, and so end them."
        )
    return sentences


def check_readable(users: Users | None, python: Path, functions: Path, cache: Path) -> None:
    """Refuse users who cannot run the interpreter, or read the functions. Raises `SettingsError`."""
    if users is None:
        return
    files = sorted(path for path in functions.iterdir() if not path.name.startswith("."))[:FILES_MAX]
    paths = [AUTHORS_PACKAGE, SANDBOX, functions, *files, *([cache] if cache.exists() else [])]
    unreadable = _first_unreadable(users, python, paths)
    if unreadable is not None:
        message = (
            f"{unreadable} cannot be read by user {users.first}, as whom functions are to run; "
            "let others read it and the folders that it is in, or leave --function-user out."
        )
        raise SettingsError(message)


def _first_unreadable(users: Users, python: Path, paths: Sequence[Path]) -> str | None:
    uid, gid = users.of(0)
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", LOOK, *paths],
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOOK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return str(python)
    if done.returncode == 0:
        return None
    said = done.stderr.strip()
    return said if said in map(str, paths) else str(python)
