"""A sandbox for tests: functions written on the spot, attempts made in real workers, nothing left behind.

    async with open_bench(tmp_path) as bench:
        finished = await bench.run("def handler(event, context): return {'statusCode': 200}")

Whoever leaves it waits until no process of the sandbox lives; what escaped fails the test.
"""

import asyncio
import ctypes
import itertools
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quarterhour.clock import SystemClock, boot_s
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request, encode_invocation
from quarterhour.outcome import Error, Failed, Response, Succeeded
from runner.sandbox.job import Code, Finished, Job, LogLine, Sink
from runner.sandbox.pool import Attempt, Sandbox, SandboxSettings
from tests.system import descendants
from tests.waiting import eventually

__all__ = [
    "RAW",
    "WHOLE_AT_ONCE",
    "Bench",
    "Collected",
    "HourLater",
    "Slow",
    "adopting",
    "alive",
    "cancelled",
    "error",
    "open_bench",
    "response",
    "settings",
    "value",
]

PR_SET_CHILD_SUBREAPER = 36
LIMIT_S = 30.0
# As a worker would that is not ours: frames of its own making, on the channel that it has.
RAW = """
import json, os, socket
def frame(header, body):
    text = json.dumps(header).encode()
    data = len(text).to_bytes(4, "big") + text + body
    return len(data).to_bytes(4, "big") + data
def send(data):
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"  # one of them is the list itself, and gone
        if name not in "012" and os.path.exists(path) and "socket" in os.readlink(path):
            while data:
                data = data[os.write(int(name), data):]
def handler(event, context):
"""
# A response that comes bit by bit, all of whose bits are there as soon as the first is.
WHOLE_AT_ONCE = (
    RAW
    + """
    head = frame({"kind": "streaming", "statusCode": 200}, b"")
    send(head + frame({"kind": "chunk"}, b"one") + frame({"kind": "returned", "shape": "streamed"}, b""))
    print("pid", os.getpid(), flush=True)
    import time; time.sleep(1000)
"""
)


def settings(
    *,
    workers_max: int = 4,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    held_bytes_max: int = 4 * 1024 * 1024,
) -> SandboxSettings:
    """Settings with a small environment and a response limit of 1 MiB, all of which is held."""
    return SandboxSettings(
        workers_max=workers_max,
        python=Path(python),
        environment={"PATH": os.environ["PATH"], "TZ": "UTC"} if environment is None else environment,
        response_bytes_max=1024 * 1024,
        held_bytes_max=held_bytes_max,
    )


@dataclass
class Bench:
    """A sandbox, a folder of functions, and the lines that they have printed."""

    sandbox: Sandbox
    folder: Path
    lines: list[LogLine]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def function(self, source: str, *, name: str = "", suffix: str = ".py", **more: Any) -> Code:
        """Write a function's file."""
        name = name or f"function{next(self._numbers)}"
        path = self.folder / f"{name}{suffix}"
        text = textwrap.dedent(source)
        path.write_text(text, encoding="utf-8")
        return Code(function=name, path=path, folder=self.folder, source=text.encode(), **more)

    def attempt(
        self,
        code: Code | str,
        *,
        id: str = "",
        mode: Mode = Mode.SYNCHRONOUS,
        limit_s: float = LIMIT_S,
        lease_s: float | None = None,
        body: bytes | None = None,
        attempt: int = 1,
        errors: tuple[Error, ...] = (),
        returned_status: Literal["fail", "ignore"] = "fail",
        request: Request | None = None,
        sink: Sink | None = None,
        **large: Any,
    ) -> Attempt:
        """An attempt of a function, or of a source that becomes one. `large`: a job's `rest` and `keep`."""
        code = self.function(code) if isinstance(code, str) else code
        invocation = Invocation(
            id=id or f"invocation{next(self._numbers)}",
            function=code.function,
            mode=mode,
            attempt=attempt,
            accepted_at=0,
            due_at=0,
            request=request or Request(method="POST", path=f"/.netlify/functions/{code.function}"),
            body=body,
            errors=errors,
        )
        return self.sandbox.attempt(
            Job(
                code=code,
                invocation=invocation.id,
                mode=mode,
                returned_status=returned_status,
                envelope=encode_invocation(invocation),
                limit_s=limit_s,
                leased_until=None if lease_s is None else boot_s() + lease_s,
                sink=sink,
                **large,
            )
        )

    async def run(self, code: Code | str, **options: Any) -> Finished:
        """Make an attempt."""
        return await self.attempt(code, **options).run()

    async def text(self, code: Code | str, **options: Any) -> str:
        """The body of the response that an attempt comes to."""
        return response(await self.run(code, **options)).body.decode()

    async def printed(self, text: str) -> LogLine:
        """Wait for a line that begins with `text`: so a handler says how far it is."""

        def found() -> LogLine | None:
            return next((line for line in self.lines if line.text.startswith(text)), None)

        line = await eventually(found, what=f"{text!r} was printed")
        assert line is not None
        return line

    async def printed_pid(self, label: str) -> int:
        """Wait for a line `<label> <process id>`."""
        return int((await self.printed(f"{label} ")).text.removeprefix(f"{label} "))

    @property
    def guard_pid(self) -> int:
        """The process id of the guard."""
        return self.sandbox._guards._guards[self.sandbox.settings.python]._process.pid


class HourLater(SystemClock):
    """What a runner that was kept from its work for an hour sees on its clock."""

    def boot(self) -> float:
        return super().boot() + 3600


class Collected:
    """Takes a response as it comes."""

    def __init__(self) -> None:
        self.head: Response | None = None
        self.chunks: list[bytes] = []

    async def begin(self, head: Response) -> None:
        self.head = head

    async def send(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


class Slow(Collected):
    """Takes one chunk, and no more until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def send(self, chunk: bytes) -> None:
        await super().send(chunk)
        await self.go_on.wait()


@asynccontextmanager
async def open_bench(folder: Path, using: SandboxSettings | None = None) -> AsyncIterator[Bench]:
    """A bench whose processes are all gone when it is left."""
    lines: list[LogLine] = []
    before = descendants(os.getpid())
    with adopting():
        async with Sandbox(using or settings(), clock=SystemClock(), on_line=lines.append) as sandbox:
            yield Bench(sandbox=sandbox, folder=folder, lines=lines)
        try:
            await eventually(lambda: not _added(before), what="no process was left")
        finally:
            for pid in _added(before):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _added(before: set[int]) -> set[int]:
    """The processes below this one that are new, but for those that others have started meanwhile."""
    added = descendants(os.getpid()) - before
    for pid in before if added else ():
        added -= descendants(pid)
    return added


@contextmanager
def adopting() -> Iterator[None]:
    """While it lasts, a process that escapes from everybody becomes a child of this one, and is seen."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def response(finished: Finished) -> Response:
    """The response of an attempt that succeeded."""
    assert isinstance(finished.outcome, Succeeded), finished
    return finished.outcome.response


def value(finished: Finished) -> bytes | None:
    """What a background function returned, as JSON."""
    assert isinstance(finished.outcome, Succeeded), finished
    return finished.outcome.value


def error(finished: Finished) -> Error:
    """The error of an attempt that failed."""
    assert isinstance(finished.outcome, Failed), finished
    return finished.outcome.error


async def cancelled(*tasks: asyncio.Task[Any] | None) -> None:
    """End tasks that a test has no further use for."""
    for task in tasks:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
