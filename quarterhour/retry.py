"""What is to be done about an outcome. Pure: no clock, no broker."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from quarterhour.outcome import Cancelled, Crashed, Failed, Outcome, Succeeded, TimedOut

__all__ = ["Bury", "BuryReason", "Complete", "Disposition", "Retry", "RetryPolicy", "decide"]


class BuryReason(StrEnum):
    """Why an invocation became a dead letter; a label of the metrics."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    EXPIRED = "expired"
    RUNNER_LOST = "runner_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a background function is tried again.

    `retries` counts the attempts after the first; `delays_s` are the seconds before each, the last
    one repeating. The default is Netlify's: after 1 minute, then 2 minutes after that.
    """

    retries: int = 2
    delays_s: tuple[float, ...] = (60.0, 120.0)

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after `attempt` (1 is the first) has failed."""
        return self.delays_s[min(attempt, len(self.delays_s)) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """The invocation has succeeded, or was cancelled: nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Set the invocation aside with its evidence."""

    reason: BuryReason


Disposition = Complete | Retry | Bury


def decide(outcome: Outcome, *, attempt: int, policy: RetryPolicy) -> Disposition:
    """What to do about the `outcome` of `attempt` (1 is the first)."""
    match outcome:
        case Succeeded() | Cancelled():
            return Complete()
        case Failed(retry=False):
            return Bury(reason=BuryReason.FAILED)
        case Failed(retry_after_s=float(delay_s)):
            return _retry_or_bury(BuryReason.FAILED, attempt, policy, delay_s)
        case Failed():
            return _retry_or_bury(BuryReason.FAILED, attempt, policy)
        case TimedOut():
            return _retry_or_bury(BuryReason.TIMED_OUT, attempt, policy)
        case Crashed():
            return _retry_or_bury(BuryReason.CRASHED, attempt, policy)
        case _:
            assert_never(outcome)


def _retry_or_bury(
    reason: BuryReason, attempt: int, policy: RetryPolicy, delay_s: float | None = None
) -> Disposition:
    if attempt > policy.retries:
        return Bury(reason=reason)
    return Retry(delay_s=policy.delay_s(attempt) if delay_s is None else delay_s)
