"""Whether a source can be parsed: asks Node, which parses it and does not run it."""

import subprocess
from pathlib import Path

from runner.sandbox.node.find import find_node
from runner.sandbox.runtime import Missing, NotValid

__all__ = ["check_syntax"]

_CHECK = Path(__file__).with_name("check.mjs")
_CHECK_S = 20.0


def check_syntax(source: bytes) -> None:
    """Raises `NotValid` if Node can make nothing of it. Without Node, there is nothing to find out."""
    try:
        command = [str(find_node()), "--disable-warning=ExperimentalWarning", str(_CHECK)]
        run = subprocess.run(
            command, input=source, capture_output=True, timeout=_CHECK_S, check=False, env={}
        )
    except (Missing, OSError, subprocess.TimeoutExpired):
        return
    line, _, complaint = run.stdout.decode("utf-8", "replace").strip().partition(" ")
    if complaint:
        message = f", line {line}, is not valid JavaScript or TypeScript: {complaint}."
        raise NotValid(message)
