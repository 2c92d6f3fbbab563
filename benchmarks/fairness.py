"""Fairness: what a lone invocation of one function waits while another function has 100,000 on its queue."""

import json
import statistics
import time
from datetime import datetime

import uvloop

from benchmarks.broker import enqueue
from benchmarks.errors import give_up
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import NOOP_BACKGROUND, System, system
from benchmarks.web import Session

__all__ = ["measure"]

BACKLOGS = {"noop-background": 100_000, "second-background": 2_000}
SECOND = "import time\n\n\ndef handler(event, context):\n    time.sleep(1)\n"
LONE = "lone-background"
INVOCATIONS = 50
PAUSE_S = 0.2
DELAY_MS_MAX = 100


def measure(report: Report, *, runs: int) -> None:
    """The time from the POST to the end of the attempt, with the other queue empty and with a long one."""
    for run in range(1, runs + 1):
        for function, count in BACKLOGS.items():
            progress(f"fairness, {count:,} of {function}, run {run} of {runs}")
            with system() as running, watching_others(report):
                _measure(report, running, function, count)


def _measure(report: Report, running: System, function: str, count: int) -> None:
    running.write("second-background", SECOND)
    running.write(LONE, NOOP_BACKGROUND)
    port = running.start_gateway("hypercorn")
    running.start_runners(2)
    running.wait_for_runners(port)
    name = f"lone, beside {count:,} of {function}"
    with Session(port) as session:
        _finished_s(session)  # so that a worker is there
        alone_ms = [1000 * _finished_s(session) for _ in range(INVOCATIONS)]
        running.stop("runner")
        uvloop.run(enqueue(running.broker, function, count))
        running.start_runners(2)
        running.wait_for_runners(port)
        _finished_s(session)
        beside_ms = [1000 * _finished_s(session) for _ in range(INVOCATIONS)]
        left = _waiting(session, function)
    if not left:
        give_up("The other queue was empty before the measure was at its end.")
    report.add(f"{name}: alone", statistics.median(alone_ms), "ms")
    report.add(f"{name}: beside them", statistics.median(beside_ms), "ms")
    report.add(f"{name}: beside them, slowest", max(beside_ms), "ms")
    report.add(f"{name}: waiting at the end", left, "invocations")
    delay_ms = statistics.median(beside_ms) - statistics.median(alone_ms)
    report.add(f"{name}: delayed by", delay_ms, "ms", at_most=DELAY_MS_MAX)


def _finished_s(session: Session) -> float:
    """Seconds from the POST to the end of the attempt."""
    time.sleep(PAUSE_S)
    posted_at = time.time()
    answer, _ = session.ask("POST", f"/.netlify/functions/{LONE}", 202)
    status = json.loads(session.ask("GET", f"{answer.headers['location']}?wait=30")[1])
    if status["state"] != "succeeded":
        give_up(f"An invocation came to this: {status}")
    return datetime.fromisoformat(status["finished_at"]).timestamp() - posted_at


def _waiting(session: Session, function: str) -> float:
    page = session.ask("GET", "/metrics")[1].decode()
    line = f'quarterhour_waiting{{function="{function}"}} '
    return next(float(each.removeprefix(line)) for each in page.splitlines() if each.startswith(line))
