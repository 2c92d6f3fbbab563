"""What is decided about each outcome."""

import pytest

from quarterhour.outcome import Cancelled, Crashed, Error, Failed, Outcome, Succeeded, TimedOut
from quarterhour.retry import Bury, BuryReason, Complete, Disposition, Retry, RetryPolicy, decide

ERROR = Error(type="ValueError", message="no")
NETLIFY = RetryPolicy()


@pytest.mark.parametrize(
    ("outcome", "attempt", "disposition"),
    [
        (Succeeded(), 1, Complete()),
        (Cancelled(), 1, Complete()),
        (Failed(error=ERROR), 1, Retry(delay_s=60)),
        (Failed(error=ERROR), 2, Retry(delay_s=120)),
        (Failed(error=ERROR), 3, Bury(reason=BuryReason.FAILED)),
        (Failed(error=ERROR, retry=False), 1, Bury(reason=BuryReason.FAILED)),
        (Failed(error=ERROR, retry_after_s=7.0), 1, Retry(delay_s=7)),
        (Failed(error=ERROR, retry_after_s=0.0), 1, Retry(delay_s=0)),
        (Failed(error=ERROR, retry_after_s=7.0), 3, Bury(reason=BuryReason.FAILED)),
        (TimedOut(limit_s=3), 1, Retry(delay_s=60)),
        (TimedOut(limit_s=3), 3, Bury(reason=BuryReason.TIMED_OUT)),
        (Crashed(signal="SIGKILL"), 2, Retry(delay_s=120)),
        (Crashed(exit_status=3), 3, Bury(reason=BuryReason.CRASHED)),
    ],
)
def test_netlifys_policy(outcome: Outcome, attempt: int, disposition: Disposition) -> None:
    assert decide(outcome, attempt=attempt, policy=NETLIFY) == disposition


def test_without_retries_the_first_failure_is_the_end() -> None:
    policy = RetryPolicy(retries=0)
    assert decide(Failed(error=ERROR), attempt=1, policy=policy) == Bury(reason=BuryReason.FAILED)


def test_the_last_delay_repeats() -> None:
    policy = RetryPolicy(retries=5, delays_s=(1.0, 2.0))
    assert [policy.delay_s(attempt) for attempt in range(1, 6)] == [1, 2, 2, 2, 2]
