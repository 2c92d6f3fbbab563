"""The two headers that put a background invocation off, read and checked. Pure: no clock, no I/O."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import isodate

from gateway.problems import Code, Problem
from gateway.request import Head
from quarterhour.function import Manifest

__all__ = ["AHEAD_S_MAX", "due_at_of"]

AHEAD_S_MAX = 30 * 24 * 3600.0
LENGTH_MAX = 64

_SECONDS = re.compile(r"\d{1,12}(\.\d{1,12})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,12})?(Z|[+-]\d\d:\d\d)")  # RFC 3339


def due_at_of(head: Head, manifest: Manifest, *, now: float) -> float | Problem | None:
    """When the request asks its invocation to run (Unix s, maybe past); None: it does not ask.

    The problem if it asks for what cannot be: a time that is none, both headers, more than 30 days, or
    any of that of a synchronous function.
    """
    if not head.delay and not head.at:
        return None
    if not manifest.background:
        return _problem(f"{manifest.name} is a synchronous function: it runs while its caller waits.")
    if len(head.delay) + len(head.at) > 1:
        return _problem("Send X-Quarterhour-Delay or X-Quarterhour-At, and just one of them, once.")
    if head.delay:
        due_at = _read(head.delay, lambda text: now + _seconds(text, now))
        allowed = "X-Quarterhour-Delay must be a number of seconds, or a duration such as PT90S or P1D"
    else:
        due_at = _read(head.at, _moment)
        allowed = "X-Quarterhour-At must be a time with its zone, such as 2030-01-31T08:00:00Z"
    if due_at is None or due_at > now + AHEAD_S_MAX:
        return _problem(f"{allowed}, at most 30 days ahead.")
    return due_at


def _problem(detail: str) -> Problem:
    return Problem(code=Code.BAD_DELAY, detail=detail)


def _read(values: Sequence[bytes], read: Callable[[str], float]) -> float | None:
    """The moment that the one value says, None if it says none."""
    text = values[0].decode("latin-1").strip().upper()
    if len(text) > LENGTH_MAX:
        return None
    try:
        return read(text)
    except (ValueError, OverflowError, isodate.ISO8601Error):
        return None


def _seconds(text: str, now: float) -> float:
    if _SECONDS.fullmatch(text):
        return float(text)
    if text.endswith("T"):  # which isodate lets pass
        raise ValueError
    duration = isodate.parse_duration(text)
    if not isinstance(duration, timedelta):  # it has months or years, which are as long as the calendar says
        duration = duration.totimedelta(start=datetime.fromtimestamp(now, UTC))
    seconds: float = duration.total_seconds()
    if seconds < 0:
        raise ValueError
    return seconds


def _moment(text: str) -> float:
    if not _TIME.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text).timestamp()
