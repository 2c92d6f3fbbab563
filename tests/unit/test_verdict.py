"""What each delivery calls for."""

from dataclasses import replace

import pytest

from quarterhour import record as records
from quarterhour.function import Mode
from quarterhour.lifecycle import State
from quarterhour.record import OPEN_NOTES_MAX, Record
from runner.attempt import Verdict, verdict

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
