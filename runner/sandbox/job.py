"""What the sandbox is given and what it gives back."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from quarterhour.body import Claim
from quarterhour.errors import QuarterhourError
from quarterhour.function import Mode
from quarterhour.outcome import Outcome, Response
from runner.sandbox.runtime import Launch

__all__ = ["AttemptLost", "Code", "Finished", "Job", "LogLine", "LossReason", "Program", "Rest", "Sink"]

FORKED = Launch()  # from the sandbox's own guard

LossReason = Literal["lease", "guard", "stopped", "body", "worker", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a worker is before it is told which function it serves."""

    launch: Launch
    memory_mib: int
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What is to be run.

    `path` is the file with the handler and `source` what stood there when it was read: that is what
    runs, whatever is saved meanwhile. `folder` goes first on the module path; `generation` grows
    whenever a module that functions may share has changed. `environment` is what the function's own
    configuration adds; `launch` says how its workers are started.
    """

    function: str
    path: Path
    folder: Path
    source: bytes
    generation: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    memory_mib: int = 512
    launch: Launch = FORKED

    @property
    def program(self) -> Program:
        """What can serve it."""
        return Program(launch=self.launch, memory_mib=self.memory_mib, environment=self.environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The large body that belongs behind an envelope. `read` raises `BodyLost`, `BrokerUnavailable`."""

    size_bytes: int
    read: Callable[[], AsyncIterator[bytes]]


class Sink(Protocol):
    """Where a response goes that comes bit by bit."""

    async def begin(self, head: Response) -> None:
        """Its status and headers."""
        ...

    async def send(self, chunk: bytes) -> None:
        """The next bytes of its body; waits while nobody takes them. Raises `StreamClosed`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt to be made.

    `rest`: what the worker is sent behind the envelope. `sink`: where a response goes that comes bit by bit;
    None if nobody waits for one; `keep`: where the body of a large one goes. `limit_s` counts from the
    moment in which a worker gets the job; `leased_until` is a moment of the boot clock, None for a
    synchronous call, which has no lease.
    """

    code: Code
    invocation: str
    mode: Mode
    returned_status: Literal["fail", "ignore"]
    envelope: bytes
    limit_s: float
    leased_until: float | None
    rest: Rest | None = None
    sink: Sink | None = None
    keep: Callable[[AsyncIterator[bytes]], Awaitable[Claim]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt that has its outcome. Times are Unix seconds; `logs` are its last lines."""

    outcome: Outcome
    started_at: float
    finished_at: float
    logs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a function printed; `stream` is stdout or stderr."""

    function: str
    invocation: str
    stream: str
    text: str


class AttemptLost(QuarterhourError):  # noqa: N818 - nobody's error
    """The attempt was ended without an outcome, and not by its own fault."""

    code = "attempt_lost"

    def __init__(self, *, reason: LossReason) -> None:
        """`reason`: its lease ended, its guard died, it was stopped or cancelled, its body cannot be read.

        Or `worker`: no more can be opened, for want of descriptors.
        """
        super().__init__(f"The attempt was ended without an outcome ({reason}).")
        self.reason = reason
