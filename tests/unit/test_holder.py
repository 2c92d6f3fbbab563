"""Who had a delivery before: asked, and waited for where he may be unable to answer."""

import time
from typing import Any, cast

import pytest

from quarterhour.broker.port import Delivery, Run
from quarterhour.clock import SystemClock, boot_s
from runner.attempt import Attempts
from tests.broker.worlds import invocation

WAIT_S = 0.2
LONG_S = 60.0  # for who is not to wait
SOMEBODY = Run(runner="somebody", attempt=1, started_at=0.0)


class Work:
    """Answers the question who runs it with one after the other of `answers`."""

    def __init__(self, *answers: Run | None) -> None:
        self.answers = list(answers)

    async def who_runs(self, _: str) -> Run | None:
        return self.answers.pop(0)


def attempts(work: Work) -> Attempts:
    others: dict[str, Any] = dict.fromkeys(
        ("kept", "bodies", "sandbox", "find", "leases", "settlements", "metrics")
    )
    return Attempts(runner="own", work=cast("Any", work), clock=SystemClock(), waiting_age_s=1.0, **others)


def delivery(number: int, broker: str, lease_s: float) -> Delivery:
    return Delivery(
        invocation=invocation(),
        envelope=b"",
        number=number,
        leased_until=boot_s() + lease_s,
        doubtful=broker in {"doubtful", "recovering"},
        recovering=broker == "recovering",
        token=None,
    )


@pytest.mark.parametrize(
    ("number", "broker", "answers", "holder", "waits"),
    [
        (1, "sure", [], None, False),
        (2, "sure", [SOMEBODY], SOMEBODY, False),
        (2, "sure", [None], None, False),
        (1, "doubtful", [SOMEBODY], SOMEBODY, False),
        (1, "doubtful", [None], None, False),
        (2, "doubtful", [SOMEBODY], SOMEBODY, False),
        (2, "doubtful", [None], None, False),
        (1, "recovering", [None], None, False),
        (2, "recovering", [SOMEBODY], SOMEBODY, False),
        (2, "recovering", [None, None], None, True),
        (2, "recovering", [None, SOMEBODY], SOMEBODY, True),
    ],
)
async def test_who_had_it_before_is_asked(
    number: int, broker: str, answers: list[Run | None], holder: Run | None, waits: bool
) -> None:
    work = Work(*answers)
    began = time.monotonic()
    lease_s = WAIT_S if waits else LONG_S
    assert await attempts(work)._holder(delivery(number, broker, lease_s)) == holder
    assert (time.monotonic() - began >= lease_s * 0.9) is waits
    assert work.answers == []


async def test_a_drain_ends_the_waiting() -> None:
    own = attempts(Work(None, None))
    own.draining = True
    began = time.monotonic()
    await own._holder(delivery(2, "recovering", LONG_S))
    assert time.monotonic() - began < LONG_S / 2
