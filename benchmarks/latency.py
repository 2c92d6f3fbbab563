"""Latencies that one caller alone sees: a background invocation's whole way, and a function's first call."""

import json
import statistics
import time
from datetime import datetime

from benchmarks.errors import give_up
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import NOOP, system
from benchmarks.web import Session

__all__ = ["measure_background", "measure_cold_start"]

INVOCATIONS = 40
PAUSE_S = 0.1  # a gateway rings for work at most every 50 ms: alone is who comes later than that
FUNCTIONS = 10  # of each run
WARM_CALLS = 9
COLD_MS_MAX = 50


def measure_background(report: Report, *, runs: int) -> None:
    """From sending the POST to the end of the handler, and to the client's hearing of it."""
    with system() as running:
        port = running.start_gateway("hypercorn")
        running.start_runners(2)
        running.wait_for_runners(port)
        with Session(port) as session:
            _background(session)  # so that workers are there
            for run in range(1, runs + 1):
                progress(f"lone background invocations, run {run} of {runs}")
                with watching_others(report):
                    found = [_background(session) for _ in range(INVOCATIONS)]
                accepted, finished, heard = (
                    statistics.median(column) * 1000 for column in zip(*found, strict=True)
                )
                report.add("background alone, POST to 202", accepted, "ms")
                report.add("background alone, POST to finished", finished, "ms")
                report.add("background alone, POST to ?wait= answered", heard, "ms")


def _background(session: Session) -> tuple[float, float, float]:
    """Seconds from the POST to the 202, to the end of the attempt, and to the answer that says so."""
    time.sleep(PAUSE_S)
    posted_at, began = time.time(), time.perf_counter()
    answer, _ = session.ask("POST", "/.netlify/functions/noop-background", 202)
    accepted_s = time.perf_counter() - began
    status = json.loads(session.ask("GET", f"{answer.headers['location']}?wait=30")[1])
    heard_s = time.perf_counter() - began
    if status["state"] != "succeeded":
        give_up(f"An invocation came to this: {status}")
    finished_at = datetime.fromisoformat(status["finished_at"]).timestamp()
    return accepted_s, finished_at - posted_at, heard_s


def measure_cold_start(report: Report, *, runs: int) -> None:
    """The first call of a function less its later ones. It imports nothing: nothing is deducted for that."""
    with system() as running:
        names = [[f"cold-{run}-{number}" for number in range(FUNCTIONS)] for run in range(runs)]
        for functions in names:
            for name in functions:
                running.write(name, NOOP)
        port = running.start_gateway("hypercorn")
        running.start_runners(1, slots=FUNCTIONS * runs + 1)  # one, so that the second call is a warm one
        running.wait_for_runners(port)
        with Session(port) as session:
            session.ask("GET", "/.netlify/functions/noop")
            for run, functions in enumerate(names, start=1):
                progress(f"cold starts, run {run} of {runs}")
                with watching_others(report):
                    colds_s = [_cold(session, f"/.netlify/functions/{name}") for name in functions]
                report.add("cold start", statistics.median(colds_s) * 1000, "ms", at_most=COLD_MS_MAX)
                report.add("cold start, slowest", max(colds_s) * 1000, "ms")


def _cold(session: Session, path: str) -> float:
    first_s = session.timed(path)
    return first_s - statistics.median(session.timed(path) for _ in range(WARM_CALLS))
