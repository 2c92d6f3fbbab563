"""Admission: whether a request to a function is taken on. Pure: what is known is handed in."""

from dataclasses import dataclass

from gateway.problems import Code, Problem
from quarterhour.function import Manifest

__all__ = ["NOT_READ", "Admitted", "Decision", "Unknown", "admit"]

NOT_READ = "The gateway has not read yet which functions there are."
STORE_FULL = "The broker's store is nearly full; the rest of it is for what was accepted already."


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The request is taken on, for this function. `full`: why only if it is a repeat of an earlier one."""

    manifest: Manifest
    full: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """There is no such function."""


Decision = Admitted | Unknown | Problem


def admit(
    manifest: Manifest | None,
    *,
    connected: bool,
    ready: bool,
    waiting: int,
    waiting_max: int,
    left_bytes: int | None,
    call_scheduled: bool,
) -> Decision:
    """Whether to take a request on for the function of `manifest` (None: nobody announced it).

    `ready`: the functions have been read at least once. `waiting` counts the function's background
    invocations that wait or are delayed, and `left_bytes` is what the broker's store takes (None: anything),
    both as far as the gateway can tell. While the broker is away
    nothing is called unknown, since whoever announced it may not have been heard. A function with a
    schedule is as good as unknown unless `call_scheduled`.
    """
    if not connected:
        detail = "The gateway has no connection to its broker: nothing was started or queued."
        return Problem(code=Code.BROKER_UNAVAILABLE, detail=detail)
    if not ready:
        return Problem(code=Code.NOT_READY, detail=NOT_READ)
    if manifest is None or (manifest.schedule is not None and not call_scheduled):
        return Unknown()
    if manifest.background and waiting >= waiting_max:
        detail = f"{waiting} invocations of {manifest.name} wait or are delayed already; {waiting_max} may."
        return Admitted(manifest=manifest, full=Problem(code=Code.TOO_MANY_WAITING, detail=detail))
    if manifest.background and left_bytes is not None and left_bytes <= 0:
        return Admitted(manifest=manifest, full=Problem(code=Code.STORE_FULL, detail=STORE_FULL))
    return Admitted(manifest=manifest)
