"""Pressure: a share of requests is refused while everything is late; none because of a pause or a burst."""

import asyncio
import itertools

import pytest

from gateway.pressure import CALM_S, FEW, FIRST_SHARE, LOOKS, PATIENCE_S, SHARE_MAX, TURNS, Pressure
from tests.waiting import eventually

LATE_S = 0.02


class Watched(Pressure):
    """Whose clock is the test's."""

    def __init__(self) -> None:
        self.time = 1000.0
        super().__init__(10, LATE_S, now=lambda: self.time)
        self._measuring = True  # no event loop is asked
        self.under_way = FEW

    def late(self, late_s: float, *, for_s: float) -> "Watched":
        """Everything is so late for so long, looked at as often as it then is."""
        until = self.time + for_s
        while self.time < until:
            self.time += 0.005 + late_s
            self.look(late_s)
        return self

    def refused(self, of: int = 100) -> int:
        return sum(self.refuses() for _ in range(of))


def test_who_is_in_time_refuses_nobody() -> None:
    pressure = Watched().late(LATE_S, for_s=60)
    assert not pressure.is_overloaded
    assert pressure.refused() == 0


def test_a_burst_is_no_overload() -> None:
    pressure = Watched().late(0.001, for_s=1)
    for _ in range(20):
        pressure.late(0.1, for_s=PATIENCE_S - 0.11).late(0.001, for_s=0.02)
        assert not pressure.is_overloaded
    assert pressure.refused() == 0


def test_a_pause_is_no_overload() -> None:
    pressure = Watched().late(0.001, for_s=1)
    for _ in range(LOOKS - 1):
        pressure.time += 1
        pressure.look(1.0)
        assert pressure.refused() == 0
    pressure.time += 1
    pressure.look(1.0)
    assert pressure.refused() == 100 * FIRST_SHARE


def test_a_share_is_refused_once_it_was_late_for_a_while() -> None:
    pressure = Watched().late(2 * LATE_S, for_s=PATIENCE_S + 0.2)
    assert pressure.is_overloaded
    assert 100 * FIRST_SHARE <= pressure.refused() < 100 * SHARE_MAX


def test_the_share_grows_while_it_is_too_late_and_never_is_everybody() -> None:
    pressure = Watched().late(1.5 * LATE_S, for_s=PATIENCE_S + 0.2)
    before = pressure.refused()
    pressure.late(1.5 * LATE_S, for_s=1)
    assert before < pressure.refused()
    pressure.late(100, for_s=1000)
    assert abs(pressure.refused() - 100 * SHARE_MAX) <= 1


def test_the_share_stays_while_it_is_as_late_as_it_may_be() -> None:
    pressure = Watched().late(2 * LATE_S, for_s=PATIENCE_S + 0.2).late(LATE_S, for_s=0.1)
    before = pressure.refused()
    pressure.late(LATE_S, for_s=10)
    assert abs(pressure.refused() - before) <= 1


def test_the_share_follows_what_there_is_too_much_of() -> None:
    # A gateway that is asked for twice what it can do is later the longer it goes on.
    pressure = Watched()
    late_s = 0.0
    for _ in range(2000):
        accepted = 1 - pressure._share
        passed_s = 0.005 + late_s
        late_s = max(0.0, late_s + (2 * accepted - 1) * passed_s)
        pressure.late(late_s, for_s=0.001)
    assert 40 <= pressure.refused() <= 60
    assert late_s < 3 * LATE_S


def test_soon_after_the_load_has_ended_nobody_is_refused() -> None:
    pressure = Watched().late(10, for_s=100)
    assert pressure.refused() >= 100 * SHARE_MAX - 1
    pressure.late(0.0, for_s=0.5)
    assert pressure.refused() == 0
    assert pressure.is_overloaded  # and not yet patient again
    pressure.late(0.0, for_s=CALM_S)
    assert not pressure.is_overloaded
    pressure.late(0.1, for_s=PATIENCE_S - 0.11)
    assert pressure.refused() == 0


def test_the_share_sinks_quickly_while_nothing_is_late() -> None:
    pressure = Watched().late(2 * LATE_S, for_s=10).late(0.0, for_s=0.02)
    pressure._share = SHARE_MAX
    pressure.late(0.0, for_s=0.3)
    assert pressure.refused() < 40


def test_nobody_is_refused_while_few_are_under_way() -> None:
    pressure = Watched().late(10, for_s=100)
    pressure.under_way = FEW - 1
    assert pressure.refused() == 0
    pressure.under_way = FEW
    assert pressure.refused() >= 100 * SHARE_MAX - 1


def test_no_more_requests_are_under_way_than_may_be() -> None:
    pressure = Pressure(2, LATE_S)
    pressure.under_way = 2
    assert not pressure.is_full
    pressure.under_way = 3
    assert pressure.is_full


class Looking(Pressure):
    """Which looks by itself, at a clock that goes on by 20 ms with each look and is else the test's."""

    def __init__(self) -> None:
        self.time = 1000.0
        super().__init__(10, LATE_S, now=lambda: self.time)

    def look(self, late_s: float) -> None:
        self.time += 0.02
        super().look(late_s)


async def test_it_looks_by_itself_while_there_are_requests_and_then_sleeps() -> None:
    pressure = Looking()
    async with asyncio.timeout(20):
        while not pressure.is_overloaded:  # an event loop that has no time for anything
            pressure.arrival()
            pressure.time += 3 * LATE_S / TURNS
            await asyncio.sleep(0)
    assert pressure.late_s > LATE_S
    pressure.under_way = FEW
    assert pressure.refuses() or pressure.refuses() or pressure.refuses()
    await eventually(lambda: not pressure._measuring, what="it slept")
    assert not pressure.is_overloaded
    assert pressure.late_s == 0.0


def test_one_that_sleeps_is_late_for_nobody() -> None:
    pressure = Watched().late(2 * LATE_S, for_s=0.2)
    assert pressure.late_s == 2 * LATE_S
    pressure._turn(pressure.time - LATE_S, 0)  # nobody has arrived since the last look
    assert not pressure._measuring
    assert pressure.late_s == 0.0


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_refused_are_spread_evenly(share: float) -> None:
    pressure = Watched()
    pressure._share = share
    row = [pressure.refuses() for _ in range(100)]
    assert sum(row) == 100 * share
    apart = [at for at, refused in enumerate(row) if refused]
    assert {b - a for a, b in itertools.pairwise(apart)} == {round(1 / share)}
