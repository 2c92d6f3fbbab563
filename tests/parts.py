"""Parts that a test needs and a machine may lack: it skips with a sentence, under CI=true it fails."""

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["missing", "need"]


def missing(sentence: str) -> NoReturn:
    """End the test here, which needs what the sentence says."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def need(command: str, *, package: str) -> str:
    """The path of a command; without it the test ends here. `package`: Debian's name of what has it."""
    path = shutil.which(command)
    if path is None:
        missing(f"This test needs the command {command}: apt-get install {package}")
    return path
