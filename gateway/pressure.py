"""Pressure: how much this gateway has on its hands, and whether it therefore refuses new work.

A gateway that is asked for more than its processor gives would otherwise take all of it on, and be late
with all of it. What it measures is how long it takes to get through its own event loop as often as a request
has to: that is what requests wait, whoever uses the processor. A pause or a burst is no overload: it has to
be late for a while, as in CoDel (RFC 8289). From then on a share of the requests is refused, which grows for
as long as it is later than it may be, and sinks for as long as it is not, as in PIE (RFC 8033); and nobody
while only few are under way, which would not be late for long. It knows nothing of requests, and refuses
nobody by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

__all__ = ["Pressure"]

PAUSE_S = 0.005  # between two measurements
TURNS = 10  # of the event loop: about as many as a request needs from its first byte to its answer
LOOKS = 3  # that have to agree that it is late
FEW = 16  # requests under way are soon done, however late everything is: with so few nobody is refused
PATIENCE_S = 0.25  # it is late for so long before anybody is refused: in that time a burst is worked off

# The share of those that are refused. Found by trying: with less it follows too slowly, with more it swings.
FIRST_SHARE = 0.5
SHARE_MAX = 0.9  # refusing costs the processor as well: whoever refused everybody would do nothing else
GROWTH = 20.0  # a second, for each second that it is too late
LEAP = 3.0  # at once, for each second that it is later than it was
HALF_LIFE_S = 0.3  # while it is not late at all
CALM_S = 1.0  # after nobody was refused for so long, it is as patient again as at first


class Pressure:
    """What is under way, and how late everything is.

    `most`: how many requests may be under way. `late_max_s`: how late everything may be; while some are
    refused, it is as late as that.
    """

    def __init__(self, most: int, late_max_s: float, now: Callable[[], float] = monotonic) -> None:
        self.under_way = 0
        self.late_s = 0.0
        self.is_overloaded = False
        self.most = most
        self.late_max_s = late_max_s
        self._now = now
        self._lately: deque[float] = deque(maxlen=LOOKS)
        self._looked_at = self._in_time_at = self._refused_at = now()
        self._share = 0.0
        self._owed = 0.0
        self._arrived = False
        self._measuring = False

    @property
    def is_full(self) -> bool:
        """Whether more requests are under way than may be."""
        return self.under_way > self.most

    def arrival(self) -> None:
        """Take note that a request has arrived: only while some do anything is measured."""
        self._arrived = True
        if not self._measuring:
            self._measuring = True
            self._looked_at = self._in_time_at = self._now()
            self._wait()

    def refuses(self) -> bool:
        """Whether to refuse one more request, so that the others are not late."""
        if self.under_way < FEW:
            return False
        # Spread evenly: of three requests at a share of one third, one is refused.
        self._owed += self._share
        if self._owed < 1:
            return False
        self._owed -= 1
        return True

    def _wait(self) -> None:
        asyncio.get_running_loop().call_later(PAUSE_S, self._turn, self._now() + PAUSE_S, TURNS)

    def _turn(self, began: float, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._turn, began, left - 1)
            return
        self.look(self._now() - began)
        if self._arrived or self.is_overloaded:
            self._arrived = False
            self._wait()
        else:  # an idle gateway sleeps, and is late for nobody
            self._measuring = False
            self._lately.clear()
            self.late_s = 0.0

    def look(self, late_s: float) -> None:
        """Take note of how long it took to get through the event loop."""
        now = self._now()
        passed_s, self._looked_at = now - self._looked_at, now
        before_s = self._lately[-1] if self._lately else 0.0
        self._lately.append(max(0.0, late_s))
        self.late_s = min(self._lately) if len(self._lately) == LOOKS else 0.0
        if self.is_overloaded:
            self._adjust(late_s - before_s, passed_s)
            if self._share:
                self._refused_at = now
            self.is_overloaded = now - self._refused_at < CALM_S
            self._in_time_at = now
        elif self.late_s <= self.late_max_s:
            self._in_time_at = now
        elif now - self._in_time_at >= PATIENCE_S:
            self.is_overloaded = True
            self._refused_at = now
            self._share = FIRST_SHARE

    def _adjust(self, later_s: float, passed_s: float) -> None:
        share = self._share + GROWTH * (self._lately[-1] - self.late_max_s) * passed_s + LEAP * later_s
        if self.late_s < self.late_max_s / 4:
            share *= 0.5 ** (passed_s / HALF_LIFE_S)
        self._share = min(SHARE_MAX, share) if share > 0.01 else 0.0
