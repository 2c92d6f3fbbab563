"""What a delivery calls for, by the record of its invocation. Pure: it neither asks nor does anything."""

from enum import Enum, auto

from quarterhour import record as records
from quarterhour.broker.port import Delivery
from quarterhour.function import Mode
from quarterhour.record import Record
from quarterhour.schedule import next_run

__all__ = ["Verdict", "is_missed", "verdict"]


class Verdict(Enum):
    """What a delivery calls for."""

    START = auto()
    START_WITH_NOTE = auto()  # not the first delivery: whoever had it before may have been lost with it
    START_ALONE = auto()  # a suspect: the same, but never beside another suspect
    ACKNOWLEDGE = auto()  # its attempt has its outcome already
    EXPIRE = auto()
    BURY_AS_LOST = auto()


def verdict(
    record: Record, *, attempt: int, deliveries: int, now: float, waiting_age_s: float, missed: bool = False
) -> Verdict:
    """What to do with delivery number `deliveries` of `attempt`, whose record is `record`.

    `missed`: it is a schedule's firing, nobody had it before, and the next one is due already.
    """
    if records.is_settled(record, attempt):
        return Verdict.ACKNOWLEDGE
    if len(record.notes) >= records.OPEN_NOTES_MAX:
        return Verdict.BURY_AS_LOST
    if not record.notes and (missed or now > record.due_at + waiting_age_s):
        return Verdict.EXPIRE
    if deliveries == 1 and not record.notes:
        return Verdict.START
    if len(record.notes) >= records.SUSPECT_NOTES:
        return Verdict.START_ALONE
    return Verdict.START_WITH_NOTE


def is_missed(delivery: Delivery, schedule: str | None, now: float) -> bool:
    """Whether it is a firing that nobody had before, and its schedule has fired again since."""
    invocation = delivery.invocation
    if invocation.mode is not Mode.SCHEDULED or schedule is None:
        return False
    if delivery.number > 1 or invocation.attempt > 1:
        return False
    following = next_run(schedule, invocation.due_at)
    return following is not None and following <= now
