"""The record of work that nobody can read: it is set aside with its bytes, not lost and not in the way."""

from dataclasses import replace

from quarterhour.errors import EnvelopeError
from quarterhour.function import Mode
from quarterhour.lifecycle import State
from quarterhour.outcome import Error
from quarterhour.record import Attempt, Record
from quarterhour.retry import BuryReason

__all__ = ["unreadable"]


def unreadable(
    error: EnvelopeError,
    known: Record | None,
    *,
    function: str,
    invocation_id: str,
    attempt: int,
    now: float,
    runner: str,
) -> Record:
    """The record of an invocation whose envelope cannot be decoded: dead, with `error` as its evidence.

    Function, id and attempt are what the queue knows without the envelope, `known` is the record of
    its earlier attempts, if it had any. `now` is in Unix seconds.
    """
    ended = Attempt(
        attempt=attempt,
        started_at=now,
        finished_at=now,
        outcome="failed",
        error=Error(type="EnvelopeError", message=str(error)),
        logs="",
        runner=runner,
    )
    record = Record(
        id=invocation_id,
        function=function,
        mode=Mode.BACKGROUND,
        state=State.DEAD,
        attempt=attempt,
        accepted_at=now,
        due_at=now,
        finished_at=now,
        reason=BuryReason.FAILED,
        attempts=(ended,),
    )
    if known is None:
        return record
    return replace(
        record,
        mode=known.mode,
        accepted_at=known.accepted_at,
        attempts=(*known.attempts, ended),
        revision=known.revision,
    )
