"""Finding a Python of another version, as functions may have one of their own."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["another_python"]

VERSIONS = ("3.14", "3.13", "3.12", "3.11")


def another_python() -> tuple[str, str]:
    """Path and version ("3.12") of an interpreter that is not ours; without one the test is skipped."""
    ours = "{}.{}".format(*sys.version_info)
    for version in VERSIONS:
        for path in _candidates(version):
            if version != ours and _version(path) == version:
                return path, version
    sentence = (
        "No other Python from 3.11 on was found; install one, for example with `uv python install 3.13`."
    )
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def _candidates(version: str) -> list[str]:
    name = f"python{version}"
    found = [path] if (path := shutil.which(name)) else []
    roots = (
        Path(sys.base_prefix).parent,
        Path.home() / ".pyenv/versions",
        Path.home() / ".local/share/uv/python",
    )
    places = itertools.chain.from_iterable(root.glob(f"*/bin/{name}") for root in roots)
    return [*found, *map(str, places)]


def _version(path: str) -> str:
    command = [path, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
