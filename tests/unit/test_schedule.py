"""Schedules: which moments fit, and what is placed when, whoever looks and however seldom."""

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterhour.ids import firing_id, is_invocation_id
from quarterhour.schedule import HORIZON_S, Plan, is_schedule, last_run, next_run, plan

START = datetime(2030, 1, 31, 8, 0, 0, tzinfo=UTC).timestamp()
SCHEDULES = (
    "* * * * * *",
    "*/2 * * * * *",
    "7 * * * * *",
    "10,11,50 */2 * * * *",
    "* * * * *",
    "*/5 8-9 * * *",
    "@hourly",
    "@daily",
    "0 0 29 2 *",
)

schedules = st.sampled_from(SCHEDULES)
moments = st.floats(START - 5, START + 400 * 24 * 3600)


def fitting(schedule: str, after: float, until: float) -> list[float]:
    """Every moment in (after, until]."""
    found = []
    while (moment := next_run(schedule, after)) is not None and moment <= until:
        found.append(moment)
        after = moment
    return found


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("@hourly", "2030-01-31T08:00:00", "2030-01-31T09:00:00"),
        ("@hourly", "2030-01-31T08:59:59.999", "2030-01-31T09:00:00"),
        ("@daily", "2030-01-31T08:00:00", "2030-02-01T00:00:00"),
        ("@weekly", "2030-01-31T08:00:00", "2030-02-03T00:00:00"),
        ("@monthly", "2030-01-31T08:00:00", "2030-02-01T00:00:00"),
        ("@yearly", "2030-01-31T08:00:00", "2031-01-01T00:00:00"),
        ("*/2 * * * * *", "2030-01-31T08:00:00", "2030-01-31T08:00:02"),
        ("*/2 * * * * *", "2030-01-31T08:00:01.5", "2030-01-31T08:00:02"),
        ("30 8 * * mon", "2030-01-31T08:00:00", "2030-02-04T08:30:00"),
    ],
)
def test_the_next_run(schedule: str, after: str, expected: str) -> None:
    moment = next_run(schedule, datetime.fromisoformat(after + "+00:00").timestamp())
    assert moment == datetime.fromisoformat(expected + "+00:00").timestamp()


@pytest.mark.parametrize("schedule", ["0 0 31 2 *", "0 0 */31 2 MON#5", "@often", "* * *", "", "* " * 200])
def test_what_no_moment_fits_is_no_schedule(schedule: str) -> None:
    assert not is_schedule(schedule)


@given(schedules, moments)
def test_the_last_run_is_the_one_before_the_next(schedule: str, now: float) -> None:
    last = last_run(schedule, now)
    assert last is not None
    assert last <= now
    assert next_run(schedule, last) == next_run(schedule, now)
    assert last_run(schedule, last) == last


def test_a_new_schedule_has_missed_nothing() -> None:
    assert plan("@hourly", placed_until=None, now=START + 0.5) == Plan(
        firings=(START + 3600,), placed_until=START + 3600
    )


def test_more_is_placed_when_less_than_half_is_left() -> None:
    assert plan("* * * * * *", placed_until=START + HORIZON_S / 2 + 0.1, now=START) is None
    more = plan("* * * * * *", placed_until=START + HORIZON_S / 2, now=START)
    assert more is not None
    assert more.firings == tuple(START + 11 + number for number in range(10))


def test_the_last_of_those_that_were_missed_is_made_up_for() -> None:
    late = plan("@hourly", placed_until=START, now=START + 5 * 3600 + 60)
    assert late == Plan(firings=(START + 5 * 3600, START + 6 * 3600), placed_until=START + 6 * 3600)
    none = plan("@hourly", placed_until=START, now=START + 60)
    assert none == Plan(firings=(START + 3600,), placed_until=START + 3600)


@given(schedules, moments, st.none() | st.floats(-1e5, 1e5))
def test_a_plan_is_bounded_and_goes_on_where_the_last_one_ended(
    schedule: str, now: float, since_s: float | None
) -> None:
    placed_until = None if since_s is None else last_run(schedule, now + since_s)
    found = plan(schedule, placed_until=placed_until, now=now)
    if found is None:
        assert placed_until is not None
        assert placed_until > now + HORIZON_S / 2
        return
    assert list(found.firings) == sorted(set(found.firings))
    assert found.placed_until == found.firings[-1]
    assert found.firings[0] > (now if placed_until is None else placed_until)
    assert len(found.firings) <= HORIZON_S + 2
    late = [moment for moment in found.firings if moment <= now]
    assert late in ([], [last_run(schedule, now)])
    # What comes next is always placed, and nothing between is left out.
    start = now if placed_until is None else max(now, placed_until)
    assert [moment for moment in found.firings if moment > now] == fitting(
        schedule, start, found.placed_until
    )
    following = next_run(schedule, found.placed_until)
    assert following is None or following > now + HORIZON_S


@given(schedules, moments, st.lists(st.floats(0.0, 120.0), min_size=1, max_size=40))
def test_whenever_it_is_looked_none_is_placed_twice_and_none_is_skipped_that_could_run(
    schedule: str, start: float, gaps: list[float]
) -> None:
    """Looks at random distances: a firing is skipped only if the next one was due at that look as well."""
    placed: list[float] = []
    placed_until: float | None = None
    now, looks = start, [start]
    for gap in [0.0, *gaps]:
        now += gap
        looks.append(now)
        found = plan(schedule, placed_until=placed_until, now=now)
        if found is not None:
            placed += found.firings
            placed_until = found.placed_until
    assert placed == sorted(set(placed))
    assert placed_until is not None
    skipped = set(fitting(schedule, start, placed_until)) - set(placed)
    assert not set(placed) - set(fitting(schedule, start, placed_until))
    for moment in skipped:
        look = min(look for look in looks if look >= moment)
        following = next_run(schedule, moment)
        assert following is not None
        assert following <= look


@given(st.text(min_size=1, max_size=20), st.integers(0, 2**37))
def test_the_id_of_a_firing_is_a_uuid_of_its_moment(function: str, second: int) -> None:
    id = firing_id(function, float(second))
    assert is_invocation_id(id)
    assert uuid.UUID(id).version == 7
    assert uuid.UUID(id).variant == uuid.RFC_4122
    assert int(id.replace("-", "")[:12], 16) == second * 1000
    assert firing_id(function, float(second)) == id
    assert firing_id(function + "x", float(second)) != id
    assert firing_id(function, second + 1.0) != id
