"""Records: how each event moves them on, and that they survive being stored."""

from dataclasses import replace

import pytest

from quarterhour.errors import EnvelopeError
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request, next_attempt
from quarterhour.lifecycle import IllegalTransition, State
from quarterhour.outcome import Cancelled, Error, Failed, Outcome, Succeeded, TimedOut
from quarterhour.record import (
    ATTEMPTS_MAX,
    LOGS_BYTES_MAX,
    RECORD_BYTES_MAX,
    RESULT_BYTES_MAX,
    Record,
    buried,
    cancelled,
    decode_record,
    delayed,
    due,
    encode_record,
    handed_back,
    is_settled,
    settled,
    started,
    waiting,
)
from quarterhour.retry import BuryReason, RetryPolicy, decide

ERROR = Error(type="ValueError", message="no", trace=("line 1",))
INVOCATION = Invocation(
    id="0192f0c1-0000-7000-8000-000000000001",
    function="report-background",
    mode=Mode.BACKGROUND,
    attempt=1,
    accepted_at=100.0,
    due_at=100.0,
    request=Request(method="POST", path="/"),
    body=None,
)
SECOND = next_attempt(INVOCATION, due_at=160.0, error=ERROR)


def after(record: Record, outcome: Outcome, *, logs: str = "", retries: int = 2) -> Record:
    disposition = decide(outcome, attempt=record.attempt, policy=RetryPolicy(retries=retries))
    return settled(record, outcome, disposition, started_at=101.0, finished_at=102.0, logs=logs, runner="r1")


def test_a_success_at_the_first_attempt() -> None:
    record = after(waiting(INVOCATION), Succeeded(value=b'{"sent":1}'), logs="hello\n")
    assert record.state is State.SUCCEEDED
    assert record.result == b'{"sent":1}'
    assert (record.started_at, record.finished_at) == (101, 102)
    (attempt,) = record.attempts
    assert (attempt.outcome, attempt.error, attempt.logs, attempt.runner) == (
        "succeeded",
        None,
        "hello\n",
        "r1",
    )
    assert is_settled(record, 1)


def test_a_failure_is_retried_and_then_dead() -> None:
    record = after(waiting(INVOCATION), Failed(error=ERROR))
    assert record.state is State.RETRYING
    assert record.next_attempt_at == 102 + 60
    assert record.finished_at is None
    assert is_settled(record, 1)
    assert not is_settled(record, 2)

    record = after(due(record, SECOND), TimedOut(limit_s=3))
    assert (record.state, record.attempt, record.next_attempt_at) == (State.RETRYING, 2, 102 + 120)

    record = after(due(record, replace(SECOND, attempt=3)), Failed(error=ERROR))
    assert (record.state, record.reason) == (State.DEAD, BuryReason.FAILED)
    assert [attempt.outcome for attempt in record.attempts] == ["failed", "timed_out", "failed"]
    assert all(is_settled(record, attempt) for attempt in (1, 2, 3))


def test_a_second_delivery_of_a_settled_attempt_stays_settled() -> None:
    record = after(waiting(INVOCATION), Failed(error=ERROR))
    assert due(record, INVOCATION) is record
    moved = due(record, SECOND)
    assert is_settled(moved, 1)
    assert due(moved, SECOND) is moved


def test_start_notes_open_and_are_cancelled_by_a_hand_back() -> None:
    record = waiting(INVOCATION)
    for number in range(3):
        record = started(record, runner=f"r{number}", now=200.0)
        assert record.state is State.RUNNING
    assert record.notes == ("r0", "r1", "r2")
    record = handed_back(record)
    assert (record.state, record.notes, record.started_at) == (State.WAITING, ("r0", "r1"), None)
    assert after(started(record, runner="r9", now=300.0), Succeeded()).notes == ()


def test_it_can_be_buried_without_an_attempt() -> None:
    record = buried(waiting(INVOCATION), BuryReason.EXPIRED, now=500.0)
    assert (record.state, record.reason, record.finished_at) == (State.DEAD, BuryReason.EXPIRED, 500)
    with pytest.raises(IllegalTransition):
        buried(record, BuryReason.EXPIRED, now=501.0)


@pytest.mark.parametrize(
    "record",
    [
        waiting(INVOCATION),
        delayed(INVOCATION),
        started(started(waiting(INVOCATION), runner="lost", now=1.0), runner="r", now=2.0),
        after(waiting(INVOCATION), Failed(error=ERROR)),
    ],
)
def test_whatever_has_not_ended_can_be_cancelled(record: Record) -> None:
    end = cancelled(record, now=500.0)
    assert (end.state, end.finished_at, end.next_attempt_at) == (State.CANCELLED, 500, None)
    assert (end.notes, end.reason, end.attempts) == ((), None, record.attempts)
    assert all(is_settled(end, attempt) for attempt in (1, 2, 3))


@pytest.mark.parametrize(
    "record",
    [
        after(waiting(INVOCATION), Succeeded()),
        buried(waiting(INVOCATION), BuryReason.EXPIRED, now=1.0),
        cancelled(waiting(INVOCATION), now=1.0),
    ],
)
def test_what_has_ended_cannot_be_cancelled(record: Record) -> None:
    with pytest.raises(IllegalTransition):
        cancelled(record, now=500.0)


def test_the_attempt_that_was_ended_for_it_is_added_and_nothing_else() -> None:
    record = cancelled(started(waiting(INVOCATION), runner="r", now=1.0), now=101.0)
    end = after(record, Cancelled(), logs="half\n")
    assert (end.state, end.finished_at, end.result) == (State.CANCELLED, 101, None)
    assert [(one.outcome, one.logs) for one in end.attempts] == [("cancelled", "half\n")]
    for outcome in (Succeeded(), Failed(error=ERROR), TimedOut(limit_s=3)):
        with pytest.raises(IllegalTransition):
            after(record, outcome)


def test_a_final_record_takes_no_further_outcome() -> None:
    record = after(waiting(INVOCATION), Succeeded())
    with pytest.raises(IllegalTransition):
        after(record, Failed(error=ERROR))


@pytest.mark.parametrize(
    "record",
    [
        waiting(INVOCATION),
        started(waiting(INVOCATION), runner="r", now=1.0),
        after(waiting(INVOCATION), Succeeded(value=b"[1]"), logs="a\nb"),
        after(waiting(INVOCATION), Failed(error=ERROR)),
        buried(waiting(INVOCATION), BuryReason.RUNNER_LOST, now=2.0),
    ],
)
def test_a_record_survives_being_stored(record: Record) -> None:
    assert decode_record(encode_record(record), revision=7) == replace(record, revision=7)


def test_whatever_was_printed_a_record_fits_a_message() -> None:
    worst = "\x00" * LOGS_BYTES_MAX  # each becomes six bytes of JSON
    record = waiting(INVOCATION)
    for attempt in range(1, 4):
        record = after(due(record, replace(SECOND, attempt=attempt)), Failed(error=ERROR), logs=worst)
    data = encode_record(record)
    assert len(data) <= RECORD_BYTES_MAX
    kept = decode_record(data, revision=1)
    assert [attempt.outcome for attempt in kept.attempts] == ["failed"] * 3
    assert kept.attempts[-1].logs == worst


@pytest.mark.parametrize("character", ["x", "\x00", "\U0001f600"])
@pytest.mark.parametrize("last", [Failed, Succeeded])
def test_whatever_was_raised_a_record_fits_a_message(character: str, last: type[Failed | Succeeded]) -> None:
    # The most that an attempt can come to, for as many attempts as there can be.
    worst = Error(type=character * 256, message=character * 8192, trace=(character * 1024,) * 50)
    record = waiting(INVOCATION)
    for attempt in range(1, ATTEMPTS_MAX + 3):
        record = after(
            due(record, replace(SECOND, attempt=attempt)), Failed(error=worst), logs="a\nb", retries=999
        )
    final = (
        Failed(error=worst, retry=False) if last is Failed else Succeeded(value=b"\x00" * RESULT_BYTES_MAX)
    )
    record = after(due(record, replace(SECOND, attempt=ATTEMPTS_MAX + 3)), final, logs="the end")
    data = encode_record(record)
    assert len(data) <= RECORD_BYTES_MAX
    kept = decode_record(data, revision=1)
    assert replace(kept, attempts=()) == replace(record, attempts=(), revision=1)
    assert (kept.attempts[0].attempt, kept.attempts[-1].attempt) == (1, ATTEMPTS_MAX + 3)
    assert [each.outcome for each in kept.attempts[:-1]] == ["failed"] * (len(kept.attempts) - 1)


def test_of_what_was_raised_the_oldest_traces_go_first() -> None:
    error = Error(type="E", message="m", trace=("x" * 1024,) * 50)
    record = waiting(INVOCATION)
    for attempt in range(1, 21):
        record = after(
            due(record, replace(SECOND, attempt=attempt)), Failed(error=error), logs="said", retries=999
        )
    kept = decode_record(encode_record(record), revision=1)
    assert [each.error and each.error.message for each in kept.attempts] == ["m"] * 20
    traced = [bool(each.error and each.error.trace) for each in kept.attempts]
    assert traced == sorted(traced)
    assert 8 <= sum(traced) <= 11


def test_a_result_that_was_cut_within_a_character_can_be_kept() -> None:
    record = after(waiting(INVOCATION), Succeeded(value='"ä'.encode()[:-1]))
    assert decode_record(encode_record(record), revision=1).result == '"\ufffd'.encode()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"state": "odd"}', b"\xff"])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_record(data, revision=1)
