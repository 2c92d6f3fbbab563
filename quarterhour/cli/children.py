"""Child processes that are kept running until they are told to stop, and that end with this process.

It knows nothing of what the children do.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from quarterhour.processes import LIFELINE

__all__ = ["Child", "Program", "backoff_s", "ended", "lifeline"]

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0  # a process that lived this long has shown that it can

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run. `last_words` gives, after its end, what it said about why it ended, if anything."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    last_words: Callable[[], str | None] = lambda: None


def backoff_s(failures: int) -> float:
    """Seconds to wait before starting again what has ended `failures` times in a row (1 or more)."""
    return float(min(BACKOFF_FIRST_S * 2 ** min(failures - 1, 10), BACKOFF_MAX_S))


@contextmanager
def lifeline() -> Iterator[int]:
    """The reading end of a pipe whose writing end is this process's alone, until the end of the block."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


class Child:
    """One program, started again whenever it ends, until `stop` or `kill`."""

    def __init__(self, program: Program, lifeline: int) -> None:
        """`lifeline`: the descriptor whose end tells the child that this process is gone."""
        self.program = program
        self._lifeline = lifeline
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.ended = asyncio.Event()
        self.failures = 0  # ends in a row that nobody asked for
        self.how = ""  # the last of them

    async def run(self) -> None:
        """Keep the program running; return when it has been stopped and has ended."""
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                self.how = await self._run_once()
                if self._stopping.is_set():
                    break
                self.failures = 1 if time.monotonic() - began >= STEADY_S else self.failures + 1
                await self._pause(backoff_s(self.failures))
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Ask the program to end, and start it no more."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the program and its process group at once, and start it no more."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def why(self) -> str:
        """Why it ended the last time, as far as that is known."""
        return self.program.last_words() or self.how

    async def _run_once(self) -> str:
        """Start the program and wait for its end; returns how it ended."""
        try:
            self._process = await self._start()
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        if self._stopping.is_set():  # stopped between the two
            self._process.terminate()
        try:
            return _how(await self._process.wait())
        except asyncio.CancelledError:
            self.kill()
            await self._process.wait()
            raise

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.program.arguments,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # standard output is the parent's own
            env={**os.environ, **self.program.environment, LIFELINE: str(self._lifeline)},
            pass_fds=(self._lifeline,),
            start_new_session=True,  # Ctrl-C reaches the parent, which ends its children in order
        )

    async def _pause(self, delay_s: float) -> None:
        log.error("process_ended", name=self.program.name, why=self.why, starts_again_in_s=delay_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()


async def ended(children: Collection[Child], timeout_s: float) -> bool:
    """Whether all children end within `timeout_s`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(timeout_s, 0)):
            for child in children:
                await child.ended.wait()
    return all(child.ended.is_set() for child in children)


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"
