"""Clockwork: a runner knows when its functions' schedules fire, and looks at their queues just then.

Bells would tell it up to a second later. It only looks: what is fired, and when, is the broker's doing.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

from quarterhour.clock import Clock
from quarterhour.function import Manifest
from quarterhour.schedule import next_run

__all__ = ["Clockwork"]

NAP_S_MAX = 1.0  # the clock may be set meanwhile, or there may be other functions


class Clockwork:
    """Rings for the functions whose schedule fires now. `ring` is what a bell does."""

    def __init__(self, ring: Callable[[Collection[str]], None], clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._next: dict[str, tuple[float, str]] = {}  # by function: the moment, of which schedule

    def serve(self, functions: Iterable[Manifest]) -> None:
        """From now on look at just these functions."""
        now = self._clock.now()
        self._next = {}
        for function in functions:
            if function.schedule is not None:
                self._wind(function.name, function.schedule, now)

    def _wind(self, name: str, schedule: str, now: float) -> None:
        moment = next_run(schedule, now)
        if moment is None:
            self._next.pop(name, None)
        else:
            self._next[name] = moment, schedule

    async def run(self) -> None:
        """Ring at every moment that comes, until cancelled."""
        while True:
            pause_s = self.tick()
            await asyncio.sleep(pause_s)

    def tick(self) -> float:
        """Ring for what fires by now; gives the seconds until it is worth looking again."""
        now = self._clock.now()
        due = {name: schedule for name, (moment, schedule) in self._next.items() if moment <= now}
        for name, schedule in due.items():
            self._wind(name, schedule, now)
        if due:
            self._ring(due.keys())
        soonest = min((moment for moment, _ in self._next.values()), default=now + NAP_S_MAX)
        return min(max(soonest - now, 0.0), NAP_S_MAX)
