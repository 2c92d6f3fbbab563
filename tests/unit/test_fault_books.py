"""The books of the fault harness: each check passes what is right, and finds what is wrong."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import books as checks
from tests.faults.books import CHECKS, Books, BrokerState, figures, read_ledger, wrong
from tests.faults.faults import KINDS, Injected, Planned, plan, victim_of
from tests.faults.load import Accepted, Cancel

TRAITS = frozenset({"single", "disk"})
GUARD, WORKER, OTHER_GUARD, OTHER_WORKER = 10, 11, 20, 21


def ledger(id: str, *, function: str = "quick-background", attempt: int = 1, at: float = 100.0) -> str:
    """A run of a second from `at` on."""
    who = f"{function} {id} {attempt} {GUARD} {WORKER}"
    return f"begin {who} {at}\nbeat {who} {at + 0.5}\nend {who} {at + 1}\n"


def attempt(number: int, outcome: str) -> dict[str, Any]:
    return {"attempt": number, "outcome": outcome, "error": None}


def status(function: str = "quick-background", **more: Any) -> dict[str, Any]:
    succeeded = {"state": "succeeded", "attempt": 1, "reason": None, "attempts": [attempt(1, "succeeded")]}
    return succeeded | {"function": function} | more


def hopeless(outcomes: str = "failed failed failed", **more: Any) -> dict[str, Any]:
    attempts = [attempt(number, outcome) for number, outcome in enumerate(outcomes.split(), start=1)]
    dead = {"state": "dead", "reason": "failed", "attempt": len(attempts), "attempts": attempts}
    return status("hopeless-background", **dead | more)


def accepted(id: str, function: str = "quick-background") -> Accepted:
    return Accepted(id=id, function=function, at=100.0)


def runs(*texts: str) -> list[checks.Run]:
    return read_ledger("".join(texts))


GOOD = Books(
    accepted=[accepted("a"), accepted("b", "hopeless-background")],
    not_known=1,
    statuses={"a": status(), "b": hopeless()},
    runs=runs(
        ledger("a"),
        *(ledger("b", function="hopeless-background", attempt=k, at=110.0 + 2 * k) for k in (1, 2, 3)),
    ),
    faults=[],
    broker=BrokerState(
        subjects={
            "q": {"tick": 3},
            "r": {"quick-background": 1, "hopeless-background": 1},
            "d": {"hopeless-background": 1},
            "c": {"tick": 1},
            "s.cron": {"tick": 10},
        },
        consumers={"fn-quick-background": (0, 0), "fn-tick": (0, 1), "delay-later-background": (0, 0)},
    ),
    gauges={"quarterhour_waiting of gateway-0": 0.0},
    ends={"a": (status(), 101.5)},
    answers={"background 202": 2, "synchronous 502": 1, "synchronous not connected": 3},
    calm={"made": 3, "accepted": 3, "succeeded": 2, "dead": 1},
)


def statuses(**changed: Any) -> dict[str, Any]:
    return {"statuses": {**GOOD.statuses, **changed}}


def ran(*texts: str) -> dict[str, Any]:
    return {"runs": [*GOOD.runs, *runs(*texts)]}


def broker(kind: str, **counts: int) -> dict[str, Any]:
    return {"broker": replace(GOOD.broker, subjects={**GOOD.broker.subjects, kind: counts})}


def consumers(**found: tuple[int, int]) -> dict[str, Any]:
    named = {name.replace("_", "-"): counts for name, counts in found.items()}
    return {"broker": replace(GOOD.broker, consumers=named)}


def fault(kind: str, *pids: int, at: float = 100.0) -> Injected:
    return Injected(kind=kind, victim="somebody", began=at, ended=at + 1.0, pids=pids)


def second_run(*, guard: int = OTHER_GUARD, at: float = 100.7) -> str:
    """Another run of `a`, which begins before the first has ended."""
    return ledger("a", at=at).replace(f"{GUARD} {WORKER}", f"{guard} {OTHER_WORKER}")


CANCELLED = status(state="cancelled", attempts=[], finished_at="100.5", result=None)

WRONG: list[tuple[Callable[[Books], Iterator[str]], dict[str, Any]]] = [
    (checks.every_202_has_one_final_state, {"accepted": [*GOOD.accepted, accepted("lost")]}),
    (checks.every_202_has_one_final_state, {"accepted": [accepted("a"), accepted("a")]}),
    (checks.every_202_has_one_final_state, statuses(a=status(state="waiting", attempts=[]))),
    (checks.an_end_stays, statuses(a=status(result="another"))),
    (checks.what_has_ended_does_not_run, ran(ledger("a", at=102.0))),
    (checks.what_was_cancelled_stays_so, {"cancels": {"a": Cancel(status=200, at=100.5)}}),
    (checks.what_was_cancelled_stays_so, statuses(a=CANCELLED)),
    (
        checks.what_was_cancelled_stays_so,
        statuses(a=CANCELLED) | {"cancels": {"a": Cancel(status=409, at=100.5)}},
    ),
    (
        checks.what_was_cancelled_ends,
        statuses(a=CANCELLED) | {"ends": {}, "lease_s": 2.0, "cancels": {"a": Cancel(status=200, at=97.9)}},
    ),
    (checks.an_end_stays, statuses(a=CANCELLED) | {"ends": {"a": (CANCELLED | {"attempt": 2}, 101.5)}}),
    (checks.what_ran_is_recorded, ran(ledger("unknown"))),
    (checks.what_ran_is_recorded, statuses(a=status(state="retrying"))),
    (checks.successes_ran_to_their_end, {"runs": runs(ledger("a").partition("end")[0])}),
    (
        checks.successes_ran_to_their_end,
        statuses(a=status(attempt=2, attempts=[attempt(1, "crashed"), attempt(2, "succeeded")])),
    ),
    (checks.attempts_agree, statuses(a=status(attempts=[attempt(1, "succeeded"), attempt(1, "succeeded")]))),
    (checks.attempts_agree, statuses(a=status(attempt=2))),
    (checks.attempts_agree, ran(ledger("a", attempt=2, at=105.0))),
    (checks.outcomes_have_a_cause, statuses(a=status(attempts=[attempt(1, "failed")]))),
    (checks.outcomes_have_a_cause, statuses(a=status(attempts=[attempt(1, "crashed")]))),
    (
        checks.outcomes_have_a_cause,
        statuses(a=status(attempts=[attempt(1, "crashed")])) | {"faults": [fault("worker SIGKILL", 99)]},
    ),
    (checks.the_dead_died_lawfully, statuses(b=hopeless("failed failed"))),
    (checks.the_dead_died_lawfully, statuses(b=hopeless(reason="expired"))),
    (
        checks.the_dead_died_lawfully,
        statuses(b=hopeless(reason="runner_lost")) | {"faults": [fault("runner SIGKILL")] * 4},
    ),
    (checks.runs_do_not_overlap, ran(second_run())),
    (checks.runs_do_not_overlap, ran(second_run()) | {"faults": [fault("guard SIGSTOP", OTHER_GUARD)]}),
    (checks.runs_do_not_overlap, ran(second_run()) | {"faults": [fault("guard SIGSTOP", GUARD, at=101.0)]}),
    (checks.calls_run_once, ran(ledger("call", function="echo"), ledger("call", function="echo", at=105))),
    (checks.answers_are_honest, {"answers": {"background 404": 1}}),
    (checks.answers_are_honest, {"answers": {"synchronous 500": 1}}),
    (checks.half_sent_requests_do_not_run, statuses(half=status("unsent-background"))),
    (checks.accepted_equals_ended, statuses(c=status(), d=status())),
    (checks.accepted_equals_ended, {"gauges": {"quarterhour_running of runner-0": 1.0}}),
    (checks.metrics_balance, {"calm": {"made": 3, "accepted": 3, "succeeded": 2}}),
    (checks.metrics_balance, {"calm": {"made": 3, "accepted": 2, "succeeded": 3}}),
    (checks.nothing_is_leased, consumers(fn_x=(0, 1))),
    (checks.nothing_is_leased, consumers(fn_x=(1, 0))),
    (checks.nothing_is_leased, consumers(fn_tick=(0, 2))),
    (checks.nothing_grows, broker("q", **{"quick-background": 1})),
    (checks.nothing_grows, broker("q", tick=11)),
    (checks.nothing_grows, broker("r", **{"quick-background": 2})),
    (checks.nothing_grows, broker("d", **{"quick-background": 1})),
    (checks.nothing_grows, broker("s.cron", tick=51)),
    (checks.nothing_grows, {"broker": replace(GOOD.broker, subjects={"s.retry": {"": 1}})}),
    (checks.nothing_grows, broker("s.delay", **{"later-background": 1})),
    (checks.nothing_grows, consumers(whose=(0, 0))),
    (checks.no_fault_of_ours, {"events": {"delivery_failed": 1}}),
    (checks.no_process_is_left, {"left": ["123: quarterhour guard"]}),
]


def test_books_that_balance() -> None:
    assert wrong(GOOD) == {}


@pytest.mark.parametrize(("check", "change"), WRONG)
def test_each_check_finds_what_is_wrong(
    check: Callable[[Books], Iterator[str]], change: dict[str, Any]
) -> None:
    assert list(check(replace(GOOD, **change)))


def test_each_check_has_a_case() -> None:
    assert {check for check, _ in WRONG} == set(CHECKS)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        (
            checks.an_end_stays,
            statuses(a=CANCELLED | {"attempts": [attempt(1, "cancelled")]})
            | {"ends": {"a": (CANCELLED, 101.5)}},
        ),
        *(
            (check, statuses(a=CANCELLED) | {"ends": {}, "lease_s": 2.0, "cancels": {"a": cancel}})
            for check in CHECKS
            for cancel in (Cancel(status=200, at=98.1), Cancel(status=0, at=math.inf))
        ),
        (
            checks.what_was_cancelled_ends,
            statuses(a=CANCELLED)
            | {"cancels": {"a": Cancel(status=200, at=90.0)}, "faults": [fault("guard SIGSTOP", GUARD)]},
        ),
        (
            checks.outcomes_have_a_cause,
            statuses(a=CANCELLED | {"attempts": [attempt(1, "cancelled")]}),
        ),
        (checks.what_was_cancelled_stays_so, {"cancels": {"a": Cancel(status=409, at=101.0)}}),
        (checks.accepted_equals_ended, statuses(c=status())),  # a 503 that was stored after all
        (checks.runs_do_not_overlap, ran(second_run(at=101.1))),
        (checks.runs_do_not_overlap, ran(second_run()) | {"faults": [fault("guard SIGSTOP", GUARD)]}),
        (
            checks.outcomes_have_a_cause,
            statuses(a=status(attempts=[attempt(1, "crashed")]))
            | {"faults": [fault("worker SIGKILL", WORKER)]},
        ),
        (
            checks.the_dead_died_lawfully,
            statuses(b=hopeless(reason="runner_lost")) | {"faults": [fault("runner SIGKILL")] * 5},
        ),
    ],
)
def test_what_is_lawful_is_let_pass(check: Callable[[Books], Iterator[str]], change: dict[str, Any]) -> None:
    assert not list(check(replace(GOOD, **change)))


def test_the_figures_of_a_run() -> None:
    found = figures(replace(GOOD, **ran(second_run(), ledger("a", at=103.0))))
    assert (found["accepted"], found["runs"], found["duplicates run"], found["overlaps"]) == (2, 6, 2, 1)


def planned(seed: int, **more: Any) -> list[Planned]:
    options: dict[str, Any] = {"seconds": 600.0, "lease_s": 3.0, "every_s": 0.5, "traits": TRAITS} | more
    return plan(random.Random(seed), **options)


def test_a_seed_gives_one_plan_with_every_kind_that_there_can_be() -> None:
    assert planned(1) == planned(1) != planned(2)
    assert {one.kind for one in planned(1)} == {
        name for name, kind in KINDS.items() if kind.only != "cluster"
    }
    assert "NATS leader SIGKILL" in {one.kind for one in planned(1, traits=frozenset({"cluster"}))}


def test_nobody_is_hurt_twice_at_a_time_and_all_is_over_in_time() -> None:
    free_at: dict[tuple[str, int, str], float] = {}
    for one in planned(3, traits=frozenset({"cluster"})):
        victim = victim_of(one.kind, one.number)
        assert one.at_s >= free_at.get(victim, 0.0)
        free_at[victim] = one.at_s + one.for_s
        assert free_at[victim] <= 600.0
