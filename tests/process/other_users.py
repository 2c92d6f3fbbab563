"""Interpreters for users that are not root: the tests run as root, functions should not have to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.sandbox.guard import ZYGOTE
from tests.parts import missing, need

__all__ = ["USER", "python_as", "python_for"]

USER = 54_321  # nobody's


def python_for(uid: int) -> Path:
    """An interpreter that this user can run. Skips the test if there is none."""
    if os.geteuid() != 0:
        pytest.skip("only root can run functions as somebody else")
    known = (Path(sys.executable), Path("/usr/bin/python3"))
    python = next((each for each in known if _runs(each, uid)), None)
    return python or missing(f"user {uid} can run no Python here, or cannot read {ZYGOTE}")


def python_as(uid: int, folder: Path) -> Path:
    """A program that is Python run by this user, with nothing of root's: the guard of an ordinary user."""
    python, change = python_for(uid), need("setpriv", package="util-linux")
    program = folder / f"python-as-{uid}"
    program.write_text(f'#!/bin/sh\nexec {change} --reuid {uid} --regid {uid} --clear-groups {python} "$@"\n')
    program.chmod(0o755)
    return program


def _runs(python: Path, uid: int) -> bool:
    # As the guard does it: in isolation, and with modules that are imported when they are needed.
    code = f"import asyncio, sys; open({str(ZYGOTE)!r}); sys.exit(sys.version_info < (3, 11))"
    try:
        done = subprocess.run(
            [python, "-I", "-c", code], user=uid, group=uid, extra_groups=[], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0
