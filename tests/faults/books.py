"""The books: whether what was accepted, what ran and what is recorded agree. Pure: no I/O, no clock.

Each check looks at all that was collected and yields a sentence for everything that is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from quarterhour.lifecycle import FINAL
from tests.faults.faults import Injected
from tests.faults.functions import FUNCTIONS, Function
from tests.faults.load import Accepted, Cancel

__all__ = ["CHECKS", "Books", "BrokerState", "Run", "figures", "read_ledger", "wrong"]

LOST_RUNNERS_MIN = 5  # whose start notes are open when an invocation is given up with them
PLACED_AHEAD_MAX = 50  # firings: 20 s ahead, and as much again where a clock was wrong
LATE_S = 1.0  # for a guard to kill on a machine that is busy
SETTLED_LEFT_MAX = 10  # of a function that fires all the time: those since the queue was trimmed last
FAULTS_OF_OURS = ("delivery_failed", "call_failed", "request_failed", "broker_adapter_failed", "Traceback")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a handler, as it wrote it down itself: from `began` to `last`, on the boot clock."""

    id: str
    function: str
    attempt: int
    guard: int
    pid: int
    began: float
    last: float
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerState:
    """What NATS holds: subjects by kind (`q`, `r`, `s.retry` …) and function, and the consumers.

    Of each consumer: how many are pending and how many are leased. `deliveries`: of all of them, ever.
    """

    subjects: Mapping[str, Mapping[str, int]]
    consumers: Mapping[str, tuple[int, int]]
    deliveries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that was collected. `statuses`: by id, of everything that was accepted, ran or is recorded.

    `gauges`: what each process says that waits, is delayed or runs. `calm`: what the counters of
    metrics rose by while a known number of invocations was made without any fault. `ends`: statuses of
    those that were seen at their end in the midst of the faults, and when (boot s). `events`: how often
    each fact was logged. `left`: processes that outlived everything. `answers`: how often each came, by
    `background 503` and the like. `cancels`: what was cancelled, or tried to be. After the last fault,
    `ready_after_s` every part knew every other again, and `rest_after_s` everything had ended.
    """

    accepted: Sequence[Accepted]
    not_known: int
    statuses: Mapping[str, Mapping[str, Any]]
    runs: Sequence[Run]
    faults: Sequence[Injected]
    broker: BrokerState
    gauges: Mapping[str, float] = field(default_factory=dict)
    calm: Mapping[str, float] = field(default_factory=dict)
    ends: Mapping[str, tuple[Mapping[str, Any], float]] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    left: Sequence[str] = ()
    answers: Mapping[str, int] = field(default_factory=dict)
    cancels: Mapping[str, Cancel] = field(default_factory=dict)
    lease_s: float = 0.0
    ready_after_s: float = 0.0
    rest_after_s: float = 0.0


def read_ledger(text: str) -> list[Run]:
    """The runs that a ledger tells of. A worker makes one run at a time, so lines need no other key."""
    open_runs: dict[int, list[Any]] = {}
    runs: list[list[Any]] = []
    for line in text.splitlines():
        what, function, id, attempt, guard, pid, at = line.split()
        if what == "begin":
            run = [id, function, int(attempt), int(guard), int(pid), float(at), float(at), False]
            runs.append(run)
            open_runs[int(pid)] = run
        else:
            run = open_runs[int(pid)]
            run[6], run[7] = float(at), what == "end"
    names = ("id", "function", "attempt", "guard", "pid", "began", "last", "ended")
    return [Run(**dict(zip(names, run, strict=True))) for run in runs]


# The checks


def every_202_has_one_final_state(books: Books) -> Iterator[str]:
    """Nothing lost, nothing accepted twice under one id, nothing left on its way."""
    for id, count in Counter(one.id for one in books.accepted).items():
        if count > 1:
            yield f"{id} was accepted {count} times"
    for one in books.accepted:
        status = books.statuses.get(one.id, {})
        if status.get("state") not in FINAL:
            yield f"{one.function} {one.id} was accepted, and is {status.get('state', 'not known')}"


def an_end_stays(books: Books) -> Iterator[str]:
    """What was seen at its end in the midst of the faults is now what it was then."""
    for id, (seen, _) in books.ends.items():
        if _end_of(seen) != _end_of(books.statuses.get(id, {})):
            yield f"{seen['function']} {id} was {seen['state']}, and is something else now"


def _end_of(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stays of a status: to one that is cancelled, the attempt that was ended for it is added."""
    if status.get("state") != "cancelled":
        return status
    return {name: status[name] for name in ("state", "attempt", "finished_at", "result")}


def what_has_ended_does_not_run(books: Books) -> Iterator[str]:
    """A delivery that comes after the end is acknowledged, not run."""
    for run in books.runs:
        if run.id in books.cancels:
            continue  # a runner that is cut off cannot know: the next checks bound that
        if run.id in books.ends and run.began > books.ends[run.id][1]:
            late_s = run.began - books.ends[run.id][1]
            yield f"{run.function} {run.id} began {late_s:.2f} s after it was seen at its end"


def what_was_cancelled_stays_so(books: Books) -> Iterator[str]:
    """The answer to a cancel is the end; and nothing is cancelled that nobody wanted to be."""
    for id, cancel in books.cancels.items():
        state = books.statuses.get(id, {}).get("state", "not known")
        if cancel.status and (cancel.status == 200) != (state == "cancelled"):
            yield f"{id} is {state}; whoever cancelled it was answered {cancel.status}"
    for id, status in books.statuses.items():
        if status["state"] == "cancelled" and id not in books.cancels:
            yield f"{status['function']} {id} is cancelled, and nobody has asked for that"


def what_was_cancelled_ends(books: Books) -> Iterator[str]:
    """What runs ends at once, and where its runner is cut off with the lease."""
    for run in books.runs:
        cancel = books.cancels.get(run.id)
        if cancel is None or cancel.status != 200 or run.last <= cancel.at + books.lease_s + LATE_S:
            continue
        if not _was_stopped(run.guard, books.faults, run.began, run.last):
            yield f"{run.function} {run.id} still ran {run.last - cancel.at:.2f} s after it was cancelled"


def what_ran_is_recorded(books: Books) -> Iterator[str]:
    """Whatever ran in the background, accepted in front of our eyes or not, has its end on record."""
    for run in _background(books):
        status = books.statuses.get(run.id, {})
        if status.get("state") not in FINAL:
            yield f"{run.function} {run.id} ran, and is {status.get('state', 'not known')}"


def successes_ran_to_their_end(books: Books) -> Iterator[str]:
    """A success on record has a begin and an end of that attempt in the ledger."""
    finished = {(run.id, run.attempt) for run in books.runs if run.ended}
    for id, status in books.statuses.items():
        if status["state"] == "succeeded" and (id, status["attempt"]) not in finished:
            yield f"{status['function']} {id} succeeded with attempt {status['attempt']}, which never ended"


def attempts_agree(books: Books) -> Iterator[str]:
    """Attempts are numbered from 1, each on record once; what began is on record."""
    begun = defaultdict(set)
    for run in _background(books):
        begun[run.id].add(run.attempt)
    for id, status in books.statuses.items():
        recorded = [each["attempt"] for each in status["attempts"]]
        name = f"{status['function']} {id}"
        if status["state"] in FINAL and recorded != list(range(1, len(recorded) + 1)):
            yield f"{name} has the attempts {recorded} on record"
        if status["state"] == "succeeded" and status["attempt"] != len(recorded):
            yield f"{name} succeeded with attempt {status['attempt']} of {len(recorded)}"
        # An invocation that is given up with its runners has begun an attempt that never had an outcome, and
        # one that is cancelled may have been ended together with its runner.
        unrecorded = begun[id] - set(recorded)
        given_up = status["reason"] in {"runner_lost", "expired"} or status["state"] == "cancelled"
        if unrecorded and not given_up:
            yield f"{name} began the attempts {sorted(unrecorded)}, which are not on record"


def outcomes_have_a_cause(books: Books) -> Iterator[str]:
    """An attempt fails because its function does; it crashes for that, or because its worker was hurt."""
    hurt = {pid for one in books.faults if one.kind.startswith("worker") for pid in one.pids}
    by_attempt = defaultdict(list)
    for run in books.runs:
        by_attempt[run.id, run.attempt].append(run.pid)
    for id, status in books.statuses.items():
        function = FUNCTIONS[status["function"]]
        for each in status["attempts"]:
            own = function.outcome if each["attempt"] <= function.bad_attempts else "succeeded"
            pids = by_attempt[id, each["attempt"]]
            by_us = each["outcome"] == "crashed" and hurt and (not pids or hurt.intersection(pids))
            wanted = each["outcome"] == "cancelled" and status["state"] == "cancelled"
            if each["outcome"] != own and not by_us and not wanted:
                what = f"attempt {each['attempt']} {each['outcome']}: {each['error']}"
                yield f"{function.name} {id}, {what}"


def the_dead_died_lawfully(books: Books) -> Iterator[str]:
    """Out of attempts; or five runners were lost with it; or a schedule that was missed."""
    for id, status in books.statuses.items():
        if status["state"] == "dead" and (why := _unlawful(FUNCTIONS[status["function"]], status, books)):
            yield f"{status['function']} {id} is dead ({status['reason']}): {why}"


def _unlawful(function: Function, status: Mapping[str, Any], books: Books) -> str:
    match status["reason"]:
        case "expired":
            return "" if function.schedule else "it had not waited for long"
        case "runner_lost":
            lethal = [one for one in books.faults if not one.kind.startswith(("gateway", "worker"))]
            return "" if len(lethal) >= LOST_RUNNERS_MIN else f"only {len(lethal)} faults could be why"
        case _:
            made, allowed = len(status["attempts"]), function.retries + 1
            return "" if made == allowed else f"after {made} of {allowed} attempts"


def runs_do_not_overlap(books: Books) -> Iterator[str]:
    """No invocation runs twice at a time. Where a guard itself was stopped nobody could have seen to it."""
    for first, second in _overlapping(books.runs):
        if not _was_stopped(first.guard, books.faults, first.began, second.began):
            by_s = min(first.last, second.last) - second.began
            yield (
                f"{first.function} {first.id}: attempt {first.attempt} (pid {first.pid}) was running "
                f"when attempt {second.attempt} (pid {second.pid}) began, for {by_s:.2f} s"
            )


def _overlapping(runs: Iterable[Run]) -> Iterator[tuple[Run, Run]]:
    by_id = defaultdict(list)
    for run in runs:
        by_id[run.id].append(run)
    for of_one in by_id.values():
        in_order = sorted(of_one, key=lambda run: run.began)
        yield from ((first, second) for first, second in pairwise(in_order) if first.last > second.began)


def _was_stopped(guard: int, faults: Iterable[Injected], began: float, ended: float) -> bool:
    return any(guard in one.pids and one.began < ended and began < one.ended for one in faults)


def calls_run_once(books: Books) -> Iterator[str]:
    """A synchronous call is never run again, whoever is lost."""
    counts = Counter((run.function, run.id) for run in books.runs if not FUNCTIONS[run.function].has_queue)
    for (function, id), count in counts.items():
        if count > 1:
            yield f"the call {id} of {function} ran {count} times"


def answers_are_honest(books: Books) -> Iterator[str]:
    """With parts away the answer is "not now" or "not known", never that there is no such function."""
    workers_hurt = any(one.kind.startswith(("worker", "guard", "runner")) for one in books.faults)
    lawful = {"202", "503", "200", "502", "409"} | ({"500"} if workers_hurt else set())
    for answer, count in books.answers.items():
        status = answer.rpartition(" ")[2]
        if status.isdecimal() and status not in lawful:
            yield f"{count} requests were answered {answer}"


def half_sent_requests_do_not_run(books: Books) -> Iterator[str]:
    """What a client did not send to its end was never accepted."""
    for id, status in books.statuses.items():
        if status["function"] == "unsent-background":
            yield f"{id} was sent by half, and is {status['state']}"


def accepted_equals_ended(books: Books) -> Iterator[str]:
    """Promise 7 at rest: what is on record is what was accepted, and what may have been."""
    recorded = sum(1 for status in books.statuses.values() if FUNCTIONS[status["function"]].background)
    accepted = len(books.accepted)
    if not accepted <= recorded <= accepted + books.not_known:
        yield f"{recorded} are on record; {accepted} were accepted, and {books.not_known} may have been"
    for gauge, value in books.gauges.items():
        if value:
            yield f"{gauge} is {value:g} at rest"


def metrics_balance(books: Books) -> Iterator[str]:
    """Promise 7 as the metrics say it, for what was made while nobody was hurt."""
    calm = books.calm
    ended = calm.get("succeeded", 0) + calm.get("dead", 0)
    if not calm.get("made", 0) == calm.get("accepted", 0) == ended:
        yield f"the metrics do not balance: {dict(calm)}"


def nothing_is_leased(books: Books) -> Iterator[str]:
    """No lease is left, and nothing waits."""
    for name, (pending, leased) in books.broker.consumers.items():
        own = FUNCTIONS.get(name.partition("-")[2])
        allowed = 1 if own is not None and own.schedule else 0
        if leased > allowed or pending > allowed:
            yield f"the consumer {name} has {pending} pending and {leased} leased"


def nothing_grows(books: Books) -> Iterator[str]:
    """In the broker there is what has to be there, and nothing else."""
    records = Counter(status["function"] for status in books.statuses.values())
    dead = Counter(status["function"] for status in books.statuses.values() if status["state"] == "dead")
    for kind, counts in books.broker.subjects.items():
        for function, count in counts.items():
            at_most = _at_most(kind, FUNCTIONS.get(function), records[function], dead[function])
            if at_most is not None and count > at_most:
                yield f"{count} subjects of {kind} for {function}, at most {at_most} have a reason"
    names = {f"fn-{each.name}" for each in FUNCTIONS.values() if each.has_queue}
    names |= {f"delay-{each.name}" for each in FUNCTIONS.values() if each.delay_s_max}
    if unknown := set(books.broker.consumers) - names:
        yield f"the consumers {sorted(unknown)} are nobody's"


def _at_most(kind: str, function: Function | None, records: int, dead: int) -> int | None:
    """How many subjects of a kind a function may have at rest; None: there is no bound to check."""
    fires = function is not None and function.schedule is not None
    slack = SETTLED_LEFT_MAX if fires else 0
    bounds = {
        "q": slack,
        "s.retry": 0,
        "s.delay": 0,
        "s.cron": PLACED_AHEAD_MAX if fires else 0,
        "c": 1 if fires else 0,
        "r": records + slack,
        "d": dead + slack,
    }
    return bounds.get(kind)


def no_fault_of_ours(books: Books) -> Iterator[str]:
    """Faults from outside are no reason for an exception that nobody expected."""
    for event in FAULTS_OF_OURS:
        if count := books.events.get(event):
            yield f"{event} is in the logs {count} times"


def no_process_is_left(books: Books) -> Iterator[str]:
    """After SIGTERM to all gateways and runners nothing of theirs lives."""
    yield from books.left


CHECKS: tuple[Callable[[Books], Iterator[str]], ...] = (
    every_202_has_one_final_state,
    an_end_stays,
    what_has_ended_does_not_run,
    what_was_cancelled_stays_so,
    what_was_cancelled_ends,
    what_ran_is_recorded,
    successes_ran_to_their_end,
    attempts_agree,
    outcomes_have_a_cause,
    the_dead_died_lawfully,
    runs_do_not_overlap,
    calls_run_once,
    answers_are_honest,
    half_sent_requests_do_not_run,
    accepted_equals_ended,
    metrics_balance,
    nothing_is_leased,
    nothing_grows,
    no_fault_of_ours,
    no_process_is_left,
)


def wrong(books: Books) -> dict[str, list[str]]:
    """What is wrong, by the name of the check; empty if the books balance."""
    found = {check.__name__: list(check(books)) for check in CHECKS}
    return {name: sentences for name, sentences in found.items() if sentences}


def figures(books: Books) -> dict[str, Any]:
    """What to put on the page."""
    again = Counter((run.id, run.attempt) for run in _background(books))
    excused = sum(1 for _ in _overlapping(books.runs)) - sum(1 for _ in runs_do_not_overlap(books))
    attempts = sum(
        len(status["attempts"]) if status["state"] == "cancelled" else status["attempt"]
        for status in books.statuses.values()
    )
    states = Counter(status["state"] for status in books.statuses.values())
    return {
        "accepted": len(books.accepted),
        "not known": books.not_known,
        "faults": len(books.faults),
        "faults by kind": dict(sorted(Counter(one.kind for one in books.faults).items())),
        "runs": len(books.runs),
        "ended": dict(sorted(states.items())),
        "dead by reason": dict(sorted(Counter(_reasons(books)).items())),
        "redeliveries": books.broker.deliveries - attempts,
        "duplicates run": sum(count - 1 for count in again.values()),
        "lost": sum(1 for _ in every_202_has_one_final_state(books)),
        "double": sum(
            1 for check in (an_end_stays, attempts_agree, what_was_cancelled_stays_so) for _ in check(books)
        ),
        "overlaps": sum(1 for _ in runs_do_not_overlap(books)),
        "overlaps while a guard was stopped": excused,
        "outcomes refused": books.events.get("outcome_refused", 0),
        "attempts lost": books.events.get("attempt_lost", 0),
        "deliveries let go": books.events.get("delivery_let_go", 0),
        "ready again after s": round(books.ready_after_s, 1),
        "at rest after s": round(books.rest_after_s, 1),
        "longest without a 202 s": round(_longest_gap(books), 1),
        "answers": dict(sorted(books.answers.items())),
    }


def _longest_gap(books: Books) -> float:
    """The longest time between two 202s while requests were made."""
    under_load = books.accepted[: len(books.accepted) - int(books.calm.get("made", 0))]
    return max((after.at - before.at for before, after in pairwise(under_load)), default=0.0)


def _reasons(books: Books) -> Iterator[str]:
    return (status["reason"] for status in books.statuses.values() if status["state"] == "dead")


def _background(books: Books) -> Iterator[Run]:
    return (run for run in books.runs if FUNCTIONS[run.function].has_queue)
