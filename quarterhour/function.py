"""The function: its name and its manifest, what a runner announces and a gateway knows about it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from quarterhour.retry import RetryPolicy
from quarterhour.schedule import is_schedule

__all__ = [
    "BACKGROUND_SUFFIX",
    "NAME_LENGTH_MAX",
    "PREFIX",
    "Manifest",
    "Mode",
    "default_route",
    "is_function_name",
]

NAME_LENGTH_MAX = 128
BACKGROUND_SUFFIX = "-background"
PREFIX = "/.netlify/functions"

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_LENGTH_MAX}}}")


class Mode(StrEnum):
    """How an invocation came about; a label of the metrics."""

    SYNCHRONOUS = "synchronous"
    BACKGROUND = "background"
    SCHEDULED = "scheduled"


def is_function_name(name: str) -> bool:
    """Whether `name` may name a function: 1 to 128 of A-Z a-z 0-9 _ - (Netlify's rule, bounded).

    What passes is safe as a file name and as one token of a broker's subject.
    """
    return _NAME.fullmatch(name) is not None


def default_route(name: str) -> str:
    """Where the function is reached if it says nothing else."""
    return f"{PREFIX}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a function says about itself, with the operator's limits already applied.

    `timeout_s` is the limit of one attempt; `concurrency` bounds its background attempts over all
    runners (None: unlimited); `memory_mib` bounds a worker. `error` says why the function cannot
    run (a syntax error, a bad value): it is announced all the same, so that calling it tells why.
    `path` holds its routes of its own, which replace the default one, but for those requests that match
    `excluded_path`; `method` what methods it takes, on whatever route (empty: all).
    """

    name: str
    runtime: str
    background: bool
    timeout_s: float
    retry: RetryPolicy
    schedule: str | None = None
    path: tuple[str, ...] = ()
    excluded_path: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    concurrency: int | None = None
    memory_mib: int = 512
    returned_status: Literal["fail", "ignore"] = "fail"
    error: str | None = None

    @property
    def mode(self) -> Mode:
        """How a request to the function's address is invoked."""
        return Mode.BACKGROUND if self.background else Mode.SYNCHRONOUS

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the function is reached: its own paths, or else the default route."""
        return self.path or (default_route(self.name),)

    @property
    def has_queue(self) -> bool:
        """Whether invocations of it can wait on a queue: it runs in the background, or by schedule."""
        return self.background or self.schedule is not None

    def takes(self, method: str) -> bool:
        """Whether the function is for requests with this method."""
        return not self.method or method in self.method

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values, the way it is announced."""
        return {
            "name": self.name,
            "runtime": self.runtime,
            "background": self.background,
            "timeout_s": self.timeout_s,
            "retries": self.retry.retries,
            "retry_delays_s": list(self.retry.delays_s),
            "schedule": self.schedule,
            "path": list(self.path),
            "excluded_path": list(self.excluded_path),
            "method": list(self.method),
            "concurrency": self.concurrency,
            "memory_mib": self.memory_mib,
            "returned_status": self.returned_status,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Manifest":
        """The manifest that `to_json` wrote; unknown keys of a newer version are passed over.

        Raises `KeyError`, `TypeError`, `ValueError`.
        """
        if data["schedule"] is not None and not is_schedule(data["schedule"]):
            message = f"{data['schedule']!r} is no schedule."
            raise ValueError(message)
        return cls(
            name=data["name"],
            runtime=data["runtime"],
            background=data["background"],
            timeout_s=data["timeout_s"],
            retry=RetryPolicy(retries=data["retries"], delays_s=tuple(data["retry_delays_s"])),
            schedule=data["schedule"],
            path=tuple(data["path"]),
            excluded_path=tuple(data.get("excluded_path", ())),
            method=tuple(data["method"]),
            concurrency=data["concurrency"],
            memory_mib=data["memory_mib"],
            returned_status=data["returned_status"],
            error=data["error"],
        )
