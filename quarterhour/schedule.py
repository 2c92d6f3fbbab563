"""Schedules: cron expressions in UTC, and which firings of them are to be placed. Pure.

A firing is placed ahead of its moment, so that the broker fires it whoever is up then; a cursor says
up to which moment that has been done. Nothing here places anything. Moments are Unix seconds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

__all__ = ["ALIASES", "HORIZON_S", "Plan", "is_schedule", "last_run", "next_run", "plan"]

LENGTH_MAX = 256
HORIZON_S = 20.0  # what falls into it is placed ahead; two firings of a schedule are at least 1 s apart

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The firings to place now, the earliest first, and up to which moment all are placed then."""

    firings: tuple[float, ...]
    placed_until: float


@lru_cache(maxsize=4096)
def is_schedule(text: str) -> bool:
    """Whether `text` is one of the words, or a cron expression that some moment to come fits.

    Five fields as Debian's cron reads them; six begin with the seconds.
    """
    if len(text) > LENGTH_MAX:
        return False
    try:
        return next_run(text, datetime.now(UTC).timestamp()) is not None
    except CronSimError:
        return False


def next_run(schedule: str, after: float) -> float | None:
    """The first moment after `after` that fits; None if there is none within fifty years."""
    return next(_runs(schedule, after), None)


def last_run(schedule: str, until: float) -> float | None:
    """The last moment that fits, `until` included."""
    # Backwards, too, cronsim begins beside the second that it is given.
    start = datetime.fromtimestamp(math.floor(until) + 1, UTC)
    found = next(CronSim(_cron(schedule), start, reverse=True), None)
    return found.timestamp() if found is not None else None


def plan(schedule: str, *, placed_until: float | None, now: float) -> Plan | None:
    """What is to be placed at `now`; None while enough is.

    The next firing is always placed, and so is every other one within `HORIZON_S`; more are placed
    when less than half of that is left. Of those that were missed, because nobody was there to place
    them, only the last one is made up for: it is less than one period late. `placed_until`: None for
    a schedule that is new, which has missed nothing.
    """
    if placed_until is not None and placed_until > now + HORIZON_S / 2:
        return None
    missed = _missed(schedule, placed_until, now) if placed_until is not None else ()
    start = now if placed_until is None else max(placed_until, now)
    firings = missed + _ahead(schedule, start, now + HORIZON_S)
    return Plan(firings=firings, placed_until=firings[-1]) if firings else None


def _missed(schedule: str, placed_until: float, now: float) -> tuple[float, ...]:
    if placed_until >= now:
        return ()
    last = last_run(schedule, now)
    return (last,) if last is not None and last > placed_until else ()


def _ahead(schedule: str, start: float, until: float) -> tuple[float, ...]:
    """The next moment after `start`, and every further one up to `until`."""
    found: list[float] = []
    for moment in _runs(schedule, start):
        if found and moment > until:
            break
        found.append(moment)
    return tuple(found)


def _runs(schedule: str, after: float) -> Iterator[float]:
    start = datetime.fromtimestamp(math.floor(after), UTC)
    return (moment.timestamp() for moment in CronSim(_cron(schedule), start))


def _cron(schedule: str) -> str:
    return ALIASES.get(schedule, schedule)
