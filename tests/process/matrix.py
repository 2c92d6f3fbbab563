"""A system for the crash matrix, whose functions write what they do to a file, line by line.

A line says who ran, when, and which attempt.
"""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.system import Process, System
from tests.waiting import eventually, whole_lines

__all__ = ["Line", "Matrix"]

# `work` does what its body says: whether to go on until the test ends it, and how often to fail first.
WORK = """
    import json, os, time

    config = {"retry_delay": 0.2}

    def say(what, context):
        line = json.dumps({"what": what, "id": context.aws_request_id, "attempt": context.attempt,
                           "pid": os.getpid(), "at": time.time()})
        file = os.open(os.environ["BOOK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

    def handler(event, context):
        task = json.loads(event["body"] or "{}")
        say("begin", context)
        while task.get("waits") and not os.path.exists(os.environ["BOOK"] + "-end"):
            time.sleep(0.02)
            say("alive", context)
        if context.attempt <= task.get("failures", 0):
            raise ValueError("as asked")
        say("end", context)
"""

# Runs until its neighbours may end; poison never does.
NEIGHBOUR = (
    WORK.partition("def handler")[0]
    + """
    def handler(event, context):
        say("begin", context)
        while "poison" in os.path.basename(__file__) or not os.path.exists(os.environ["BOOK"] + "-end"):
            time.sleep(0.02)
        say("end", context)
"""
)


FUNCTIONS = {"work-background": WORK, "poison-background": NEIGHBOUR, "neighbour-background": NEIGHBOUR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the book."""

    what: str
    id: str
    attempt: int
    pid: int
    at: float


class Matrix(System):
    """A system whose functions write into a book."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        super().__init__(folder, FUNCTIONS, lease_s=lease_s)
        self.book_path = folder / "book"
        os.environ["BOOK"] = str(self.book_path)

    def book(self, *what: str) -> list[Line]:
        """The lines so far, of these kinds."""
        lines = [Line(**json.loads(line)) for line in whole_lines(self.book_path)]
        return [line for line in lines if line.what in what]

    def only(self, name: str) -> tuple[str, str]:
        """The flags of a runner that serves just one function, which all others will serve too."""
        folder = self.folder / f"only-{name}"
        folder.mkdir()
        self.write(name, WORK)
        shutil.copy(self.functions / f"{name}.py", folder)
        return "--functions", str(folder)

    async def runner(self, *flags: str, point: str | None = None) -> Process:
        """Start a runner, one that is hindered at `point` if that is given."""
        script = ("-m", "tests.process.crashing", point) if point else ("-m", "quarterhour")
        return await self.start_runner("--function-environment", "BOOK", *flags, script=script)

    def end_what_waits(self) -> None:
        """From now on work that waits, and the neighbours of a poison, end as soon as they run."""
        Path(f"{self.book_path}-end").touch()

    async def announce(self) -> None:
        """Make the functions known, without anybody there to run them."""
        runner = await self.runner()
        runner.send(signal.SIGTERM)
        assert await runner.ended() == 0

    async def work(self, **task: int) -> str:
        """Accept an invocation of `work`."""
        return await self.enqueue("work-background", json=task)

    async def begun(self, count: int = 1) -> list[Line]:
        """Wait until the handler has begun so often."""
        return await eventually(
            lambda: begun if len(begun := self.book("begin")) >= count else None,
            what=f"the handler had begun {count} times",
        )

    async def succeeded(self, invocation: str, *, attempts: int = 1) -> None:
        """Wait for its success, after so many attempts, each recorded once."""
        status = await self.in_state(invocation, "succeeded", "dead", deadline_s=30)
        outcomes = [attempt["outcome"] for attempt in status["attempts"]]
        assert outcomes == ["failed"] * (attempts - 1) + ["succeeded"], status
        assert [attempt["attempt"] for attempt in status["attempts"]] == list(range(1, attempts + 1))
