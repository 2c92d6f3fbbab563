"""What each delivery calls for."""

from dataclasses import replace
from typing import Any

import pytest

from quarterhour import record as records
from quarterhour.broker.port import Delivery
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request
from quarterhour.lifecycle import State
from quarterhour.record import OPEN_NOTES_MAX, Record
from runner.verdict import Verdict, is_missed, verdict

FRESH = Record(
    id="i",
    function="f",
    mode=Mode.BACKGROUND,
    state=State.WAITING,
    attempt=1,
    accepted_at=0.0,
    due_at=1000.0,
)
AGE_S = 3600.0


def noted(count: int) -> Record:
    record = FRESH
    for number in range(count):
        record = records.started(record, runner=f"r{number}", now=1000.0)
    return record


@pytest.mark.parametrize(
    ("record", "deliveries", "expected"),
    [
        (FRESH, 1, Verdict.EXPIRE),
        (noted(1), 1, Verdict.START_WITH_NOTE),  # it was started before the next one was due
        (replace(FRESH, state=State.SUCCEEDED), 1, Verdict.ACKNOWLEDGE),  # fired twice
    ],
)
def test_a_missed_firing_expires_if_nobody_has_begun_it(
    record: Record, deliveries: int, expected: Verdict
) -> None:
    what = verdict(record, attempt=1, deliveries=deliveries, now=1000.0, waiting_age_s=AGE_S, missed=True)
    assert what is expected


FIRING = Invocation(
    id="i",
    function="f",
    mode=Mode.SCHEDULED,
    attempt=1,
    accepted_at=1000.0,
    due_at=1000.0,
    request=Request(method="POST", path="/"),
    body=None,
)


def delivered(number: int = 1, *, doubtful: bool = False, **fields: Any) -> Delivery:
    return Delivery(
        invocation=replace(FIRING, **fields),
        envelope=b"",
        number=number,
        leased_until=0.0,
        doubtful=doubtful,
        token=None,
    )


@pytest.mark.parametrize(
    ("delivery", "schedule", "late_s", "expected"),
    [
        (delivered(), "*/10 * * * * *", 9.9, False),
        (delivered(), "*/10 * * * * *", 10.0, True),
        (delivered(), "@daily", 3600.0, False),
        (delivered(), None, 1e6, False),  # it has no schedule any more, so nothing follows
        (delivered(2), "*/10 * * * * *", 100.0, False),
        (delivered(attempt=2), "*/10 * * * * *", 100.0, False),
        (delivered(mode=Mode.BACKGROUND), "*/10 * * * * *", 100.0, False),
    ],
)
def test_when_a_firingis_missed(
    delivery: Delivery, schedule: str | None, late_s: float, expected: bool
) -> None:
    assert is_missed(delivery, schedule, FIRING.due_at + late_s) is expected


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        (delivered(mode=Mode.BACKGROUND), True),
        (delivered(2, mode=Mode.BACKGROUND), False),
        (delivered(attempt=2, mode=Mode.BACKGROUND), False),
        (delivered(doubtful=True, mode=Mode.BACKGROUND), False),
        (delivered(mode=Mode.BACKGROUND, due_at=FIRING.accepted_at + 1), False),  # a delay may fire twice
        (delivered(), False),
    ],
)
def test_when_there_can_be_no_record_yet(delivery: Delivery, expected: bool) -> None:
    assert delivery.is_new is expected


@pytest.mark.parametrize(
    ("record", "attempt", "deliveries", "now", "expected"),
    [
        (FRESH, 1, 1, 1000.0, Verdict.START),
        (FRESH, 1, 1, 1000.0 + AGE_S, Verdict.START),
        (FRESH, 1, 1, 1000.1 + AGE_S, Verdict.EXPIRE),
        (FRESH, 1, 2, 1000.0, Verdict.START_WITH_NOTE),
        (FRESH, 1, 3, 1000.1 + AGE_S, Verdict.EXPIRE),  # handed back, and then nobody came
        (noted(1), 1, 2, 1000.0, Verdict.START_WITH_NOTE),
        (noted(1), 1, 2, 1000.1 + AGE_S, Verdict.START_WITH_NOTE),  # it was started in time
        (noted(1), 1, 1, 1000.0, Verdict.START_WITH_NOTE),  # the broker forgot the count; the record did not
        (noted(2), 1, 3, 1000.0, Verdict.START_ALONE),
        (noted(4), 1, 1, 1000.0, Verdict.START_ALONE),
        (noted(OPEN_NOTES_MAX), 1, 6, 1000.0, Verdict.BURY_AS_LOST),
        (noted(OPEN_NOTES_MAX), 1, 6, 1000.1 + AGE_S, Verdict.BURY_AS_LOST),
        (replace(FRESH, state=State.SUCCEEDED), 1, 2, 1000.0, Verdict.ACKNOWLEDGE),
        (replace(FRESH, state=State.DEAD), 1, 1, 1000.0, Verdict.ACKNOWLEDGE),
        (replace(FRESH, state=State.RETRYING), 1, 2, 1000.0, Verdict.ACKNOWLEDGE),
        (replace(FRESH, attempt=2), 1, 2, 1000.0, Verdict.ACKNOWLEDGE),
        (replace(FRESH, attempt=2), 2, 1, 1000.0, Verdict.START),
    ],
)
def test_verdict(record: Record, attempt: int, deliveries: int, now: float, expected: Verdict) -> None:
    assert verdict(record, attempt=attempt, deliveries=deliveries, now=now, waiting_age_s=AGE_S) is expected
