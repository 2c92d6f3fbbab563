"""The record: what the broker keeps about a background invocation, and how it moves on.

Pure: every function takes a record and gives the next one. Writing it is a compare-and-set on its
revision, so of two writers one learns that it came second.
"""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from quarterhour.errors import EnvelopeError
from quarterhour.function import Mode
from quarterhour.invocation import Invocation
from quarterhour.lifecycle import FINAL, Event, State, advance
from quarterhour.outcome import Cancelled, Error, Outcome, Succeeded, error_of
from quarterhour.retry import Bury, BuryReason, Complete, Disposition, Retry

__all__ = [
    "ATTEMPTS_MAX",
    "LOGS_BYTES_MAX",
    "OPEN_NOTES_MAX",
    "RECORD_BYTES_MAX",
    "RESULT_BYTES_MAX",
    "SUSPECT_NOTES",
    "Attempt",
    "Record",
    "buried",
    "cancelled",
    "decode_record",
    "delayed",
    "due",
    "encode_record",
    "handed_back",
    "is_settled",
    "settled",
    "started",
    "waiting",
]

OPEN_NOTES_MAX = 5  # runners lost with an invocation before it is buried
SUSPECT_NOTES = 2  # from here on it runs alone among suspects
RESULT_BYTES_MAX = 64 * 1024
LOGS_BYTES_MAX = 64 * 1024
RECORD_BYTES_MAX = (
    512 * 1024
)  # whatever a function printed or raised, the record stays within a broker's message
ATTEMPTS_MAX = 100  # the first and the latest are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that has ended. Times are Unix seconds; `logs` are its last lines."""

    attempt: int
    started_at: float
    finished_at: float
    outcome: str
    error: Error | None
    logs: str
    runner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known about an invocation. Times are Unix seconds.

    `attempt` is the current or last attempt; `notes` are the start notes of this attempt that are
    still open: the runners that were lost with it, and the one that runs it now. `revision` is the
    broker's, for the compare-and-set: 0 while nothing is stored.
    """

    id: str
    function: str
    mode: Mode
    state: State
    attempt: int
    accepted_at: float
    due_at: float
    started_at: float | None = None
    finished_at: float | None = None
    next_attempt_at: float | None = None
    reason: BuryReason | None = None
    result: bytes | None = None
    notes: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    revision: int = 0


def waiting(invocation: Invocation) -> Record:
    """The record of an invocation about which the broker has none yet."""
    return Record(
        id=invocation.id,
        function=invocation.function,
        mode=invocation.mode,
        state=State.WAITING,
        attempt=invocation.attempt,
        accepted_at=invocation.accepted_at,
        due_at=invocation.due_at,
    )


def delayed(invocation: Invocation) -> Record:
    """The record of an invocation that is not due yet; the broker has none about it."""
    return replace(waiting(invocation), state=State.DELAYED)


def due(record: Record, invocation: Invocation) -> Record:
    """The record once `invocation`, the next attempt that it waits for, has been delivered."""
    if record.state in {State.RETRYING, State.DELAYED} and record.attempt < invocation.attempt:
        return replace(
            record,
            state=advance(record.state, Event.DUE),
            attempt=invocation.attempt,
            due_at=invocation.due_at,
            next_attempt_at=None,
            notes=(),
        )
    return record


def is_settled(record: Record, attempt: int) -> bool:
    """Whether `attempt` has its outcome already: a delivery of it is acknowledged, not run."""
    if record.state in FINAL or record.attempt > attempt:
        return True
    return record.attempt == attempt and record.state is State.RETRYING


def started(record: Record, *, runner: str, now: float) -> Record:
    """The record with one more open start note, written before the handler of a second delivery."""
    return replace(
        record,
        state=advance(record.state, Event.STARTED),
        started_at=now,
        notes=(*record.notes, runner),
    )


def handed_back(record: Record) -> Record:
    """The record with the latest start note cancelled: nobody was lost, the runner gave it back."""
    return replace(
        record,
        state=advance(record.state, Event.HANDED_BACK),
        started_at=None,
        notes=record.notes[:-1],
    )


def settled(
    record: Record,
    outcome: Outcome,
    disposition: Disposition,
    *,
    started_at: float,
    finished_at: float,
    logs: str,
    runner: str,
) -> Record:
    """The record with the outcome of its current attempt, and what was decided about it.

    One that is cancelled stays as it is: the attempt that was ended for that is added.
    """
    if record.state is State.WAITING:  # a first delivery has no start note
        record = replace(record, state=advance(record.state, Event.STARTED))
    attempt = Attempt(
        attempt=record.attempt,
        started_at=started_at,
        finished_at=finished_at,
        outcome=outcome.result,
        error=error_of(outcome),
        logs=logs,
        runner=runner,
    )
    attempts = (*record.attempts, attempt)
    if len(attempts) > ATTEMPTS_MAX:
        attempts = (attempts[0], *attempts[-ATTEMPTS_MAX + 1 :])
    record = replace(record, started_at=started_at, notes=(), attempts=attempts)
    if record.state is State.CANCELLED and isinstance(outcome, Cancelled):
        return record
    event, next_attempt_at, reason = _what_follows(outcome, disposition, finished_at)
    return replace(
        record,
        state=advance(record.state, event),
        finished_at=None if event is Event.RETRIED else finished_at,
        next_attempt_at=next_attempt_at,
        reason=reason,
        result=outcome.value if isinstance(outcome, Succeeded) else None,
    )


def buried(record: Record, reason: BuryReason, *, now: float) -> Record:
    """The record of an invocation that is set aside without another attempt."""
    return replace(
        record,
        state=advance(record.state, Event.BURIED),
        finished_at=now,
        next_attempt_at=None,
        reason=reason,
        notes=(),
    )


def cancelled(record: Record, *, now: float) -> Record:
    """The record of an invocation that nobody wants any more, whatever it waits for; it may be running."""
    return replace(
        record,
        state=advance(record.state, Event.CANCELLED),
        finished_at=now,
        next_attempt_at=None,
        notes=(),
    )


def _what_follows(
    outcome: Outcome, disposition: Disposition, finished_at: float
) -> tuple[Event, float | None, BuryReason | None]:
    match disposition:
        case Complete():
            event = Event.SUCCEEDED if isinstance(outcome, Succeeded) else Event.CANCELLED
            return event, None, None
        case Retry(delay_s=delay_s):
            return Event.RETRIED, finished_at + delay_s, None
        case Bury(reason=reason):
            return Event.BURIED, None, reason


def encode_record(record: Record) -> bytes:
    """The record as JSON of at most `RECORD_BYTES_MAX`.

    If it is more, logs go first, then traces, the oldest ones in each case, then the attempts between
    the first and the latest.
    """
    data = _dump(record)
    if len(data) > RECORD_BYTES_MAX:
        return _dump(replace(record, attempts=_fewer(record.attempts, len(data) - RECORD_BYTES_MAX)))
    return data


def _fewer(attempts: tuple[Attempt, ...], excess: int) -> tuple[Attempt, ...]:
    """The attempts without what takes `excess` bytes of JSON."""
    kept = list(attempts)
    for lesser in (_without_logs, _without_trace):
        for index, attempt in enumerate(kept):
            if excess <= 0:
                break
            kept[index] = lesser(attempt)
            excess -= _size(attempt) - _size(kept[index])
    while excess > 0 and len(kept) > 2:
        excess -= _size(kept.pop(1))
    return tuple(kept)


def _without_logs(attempt: Attempt) -> Attempt:
    return replace(attempt, logs="")


def _without_trace(attempt: Attempt) -> Attempt:
    return attempt if attempt.error is None else replace(attempt, error=replace(attempt.error, trace=()))


def _size(attempt: Attempt) -> int:
    return len(orjson.dumps(_fields(attempt)))


def _dump(record: Record) -> bytes:
    return orjson.dumps(
        {
            "v": 1,
            "id": record.id,
            "function": record.function,
            "mode": record.mode,
            "state": record.state,
            "attempt": record.attempt,
            "accepted_at": record.accepted_at,
            "due_at": record.due_at,
            "started_at": record.started_at,
            "finished_at": record.finished_at,
            "next_attempt_at": record.next_attempt_at,
            "reason": record.reason,
            # One that was cut at its limit may end within a character.
            "result": None if record.result is None else record.result.decode(errors="replace"),
            "notes": record.notes,
            "attempts": [_fields(attempt) for attempt in record.attempts],
        }
    )


def _fields(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "outcome": attempt.outcome,
        "error": attempt.error.to_json() if attempt.error else None,
        "logs": attempt.logs,
        "runner": attempt.runner,
    }


def decode_record(data: bytes, *, revision: int) -> Record:
    """The record in `data`, stored as `revision`. Raises `EnvelopeError`."""
    try:
        fields: dict[str, Any] = orjson.loads(data)
        return Record(
            id=fields["id"],
            function=fields["function"],
            mode=Mode(fields["mode"]),
            state=State(fields["state"]),
            attempt=fields["attempt"],
            accepted_at=fields["accepted_at"],
            due_at=fields["due_at"],
            started_at=fields["started_at"],
            finished_at=fields["finished_at"],
            next_attempt_at=fields["next_attempt_at"],
            reason=BuryReason(fields["reason"]) if fields["reason"] else None,
            result=None if fields["result"] is None else fields["result"].encode(),
            notes=tuple(fields["notes"]),
            attempts=tuple(_attempt(attempt) for attempt in fields["attempts"]),
            revision=revision,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"A record lacks or garbles {error}."
        raise EnvelopeError(message) from None


def _attempt(fields: dict[str, Any]) -> Attempt:
    error = fields["error"]
    return Attempt(
        attempt=fields["attempt"],
        started_at=fields["started_at"],
        finished_at=fields["finished_at"],
        outcome=fields["outcome"],
        error=Error.from_json(error) if error else None,
        logs=fields["logs"],
        runner=fields["runner"],
    )
