"""Schedules: every gateway sees to it that the next firings of all functions are placed.

A firing is an ordinary invocation whose id is made of its moment; the broker puts it on its queue,
whether or not a gateway is up by then. Any number of gateways do this at once: the cursor lets one of
them place, and the others see that at their next look. Nobody here runs anything.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson
import structlog

from gateway.api.shapes import iso_time
from gateway.directory import Functions
from quarterhour import schedule as schedules
from quarterhour.broker import port
from quarterhour.broker.port import Cursor, Directory
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, Conflict
from quarterhour.function import Manifest, Mode
from quarterhour.ids import firing_id
from quarterhour.invocation import Invocation, Request

__all__ = ["Placement", "Schedules", "firing", "placements", "unwanted"]

EVERY_S = 1.0
REREAD_S = 10.0  # after which the cursors are read although there is nothing to do
AT_ONCE = 50  # so many share a write, and so many at most are tried in vain beside another gateway

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What is to be stored in one step for one function."""

    cursor: Cursor
    firings: tuple[Invocation, ...]


def unwanted(functions: Mapping[str, Manifest], cursors: Mapping[str, Cursor]) -> list[Cursor]:
    """The cursors of functions that are gone, or have another schedule by now, or none."""
    return [
        cursor
        for name, cursor in cursors.items()
        if name not in functions or functions[name].schedule != cursor.schedule
    ]


def placements(
    functions: Iterable[Manifest], cursors: Mapping[str, Cursor], *, now: float
) -> list[Placement]:
    """What is to be placed at `now` (Unix s). An unwanted cursor has to go first."""
    return [placement for one in functions if (placement := _placement(one, cursors.get(one.name), now))]


def _placement(function: Manifest, cursor: Cursor | None, now: float) -> Placement | None:
    schedule = function.schedule
    if schedule is None or (cursor is not None and cursor.schedule != schedule):
        return None
    plan = schedules.plan(schedule, placed_until=cursor.placed_until if cursor else None, now=now)
    if plan is None:
        return None
    return Placement(
        cursor=Cursor(
            function=function.name,
            schedule=schedule,
            placed_until=plan.placed_until,
            revision=cursor.revision if cursor else 0,
        ),
        firings=tuple(firing(function.name, schedule, moment) for moment in plan.firings),
    )


def firing(function: str, schedule: str, moment: float) -> Invocation:
    """The firing of a function's schedule at `moment` (Unix s); the same whoever makes it."""
    identity = firing_id(function, moment)
    return Invocation(
        id=identity,
        function=function,
        mode=Mode.SCHEDULED,
        attempt=1,
        accepted_at=moment,
        due_at=moment,
        request=Request(
            method="POST",
            path=f"/.netlify/functions/{function}",
            headers=(
                ("host", "localhost"),
                ("content-type", "application/json"),
                ("user-agent", "Netlify Clockwork"),
                ("x-nf-event", "schedule"),
                ("x-nf-request-id", identity),
            ),
        ),
        body=orjson.dumps({"next_run": iso_time(schedules.next_run(schedule, moment))}),
    )


class SchedulesBroker(port.Schedules, Directory, Protocol):
    """What schedules need of the broker."""


class Schedules:
    """The gateway's share in placing firings."""

    def __init__(self, broker: SchedulesBroker, functions: Functions, clock: Clock) -> None:
        self._broker = broker
        self._functions = functions
        self._clock = clock
        self._cursors: Mapping[str, Cursor] | None = None  # as last read or written; None: to be read
        self._reread_at = 0.0

    async def run(self) -> None:
        """Look about once a second, for as long as the gateway lives."""
        while True:
            try:
                await self.look()
            except Conflict:
                log.debug("another_gateway_places")
            except BrokerUnavailable as error:
                log.warning("schedules_not_looked_after", why=str(error))
            # Not to the beat: two gateways in step would get into each other's way every time.
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def look(self) -> None:
        """Place what is to be placed, and remove what nobody wants any more.

        Raises `Conflict` if another gateway is at it, and `BrokerUnavailable`.
        """
        if not self._functions.ready or self._is_done():
            return
        self._cursors = None  # whatever happens now, what is known is old
        cursors = dict(await self._broker.cursors())
        functions = self._functions.by_name
        if unwanted(functions, cursors):
            functions = await self._broker.functions()  # what was announced may not have been heard yet
        for cursor in unwanted(functions, cursors):
            await self._broker.unplace(cursor)
            del cursors[cursor.function]
            log.info("schedule_ended", function=cursor.function, schedule=cursor.schedule)
        await self._place(functions.values(), cursors)
        self._cursors, self._reread_at = cursors, self._clock.boot() + REREAD_S

    def _is_done(self) -> bool:
        """Whether, by what is known, there is nothing to do."""
        cursors, functions = self._cursors, self._functions.by_name
        if cursors is None or self._clock.boot() >= self._reread_at or unwanted(functions, cursors):
            return False
        return not placements(functions.values(), cursors, now=self._clock.now())

    async def _place(self, functions: Iterable[Manifest], cursors: dict[str, Cursor]) -> None:
        todo = placements(functions, cursors, now=self._clock.now())
        for start in range(0, len(todo), AT_ONCE):
            results = await asyncio.gather(
                *(self._broker.place(one.cursor, one.firings) for one in todo[start : start + AT_ONCE]),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                cursors[result.function] = result
