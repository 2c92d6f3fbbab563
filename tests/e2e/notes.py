"""What functions note down about their runs, in a file that many of them append to at once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import whole_lines

__all__ = ["NOTE", "Run", "notes", "runs_by_id"]

# Put at the head of a function: note("began", context, anything="more").
NOTE = """
import json, os, pathlib, time

def note(what, context, **more):
    path = pathlib.Path(__file__).parent.parent / "notes"
    line = {"what": what, "id": context.awsRequestId, "attempt": context.attempt, "pid": os.getpid(),
            "at": time.monotonic(), "now": time.time(), **more}
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(line).encode() + b"\\n")
    os.close(file)
"""


def notes(folder: Path, what: str | None = None) -> list[dict[str, Any]]:
    """All notes so far, in the order in which they were written."""
    found = [json.loads(line) for line in whole_lines(folder / "notes")]
    return [note for note in found if what in (None, note["what"])]


@dataclass
class Run:
    """One run of an invocation; `ended` is None if it never came to its end. Monotonic seconds."""

    pid: int
    began: float
    ended: float | None = None


def runs_by_id(folder: Path) -> dict[str, list[Run]]:
    """The runs of each invocation, from the notes `began` and `ended`."""
    found: dict[str, list[Run]] = {}
    for note in notes(folder):
        runs = found.setdefault(note["id"], [])
        if note["what"] == "began":
            runs.append(Run(pid=note["pid"], began=note["at"]))
        else:
            (run,) = [run for run in runs if run.pid == note["pid"] and run.ended is None]
            run.ended = note["at"]
    return found
