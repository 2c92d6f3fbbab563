"""Overload: what is asked for beyond what there is, is refused; what is accepted is not slower for it.

Capacity is the highest rate of many users at which nearly everything is done in time; then they come at 0.8
and at 1.5 times that.
"""

import time
from dataclasses import dataclass

from benchmarks.load import apply_load
from benchmarks.others import watching_others
from benchmarks.processes import memory_kib
from benchmarks.report import Report, progress
from benchmarks.system import Role, Server, System, system
from benchmarks.users import apply_users
from benchmarks.web import Session

__all__ = ["measure"]

SLOWER_MAX = 3.0
RECOVERY_S_MAX = 5.0
CONNECTIONS = 32
LONGER = 4  # since all users come at once: the first of each are slow, and fewer than one in a hundred
OVER = 1.5
STEPS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WAITS_S = 0.1
WAITS = f"""\
import time


def handler(event, context):
    time.sleep({WAITS_S})
    return {{"statusCode": 200, "body": "ok"}}
"""
GROWING: tuple[Role, ...] = ("gateway", "runner", "nats")
KIB_IN_MIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A function that is asked too much of; `capacity_per_s` where it is known beforehand."""

    name: str
    path: str
    capacity_per_s: float | None = None


def measure(report: Report, server: Server, *, runs: int, duration_s: int) -> None:
    """Measure short calls (which the processors limit), waiting ones (the slots), and background work."""
    with system() as running:
        running.write("waits", WAITS)
        port = running.start_gateway(server, refuses=True)
        running.start_runners(2)
        running.wait_for_runners(port)
        cases = (
            _Case(name="short", path="noop"),
            _Case(name="waiting", path="waits", capacity_per_s=2 * 16 / WAITS_S),
            _Case(name="background", path="noop-background"),
        )
        for case in cases:
            for run in range(1, runs + 1):
                progress(f"overload, {server}, {case.name}, run {run} of {runs}")
                with watching_others(report):
                    name = f"overload {server} {case.name}"
                    _measure(report, running, case, port=port, name=name, duration_s=duration_s)


def _measure(report: Report, running: System, case: _Case, *, port: int, name: str, duration_s: int) -> None:
    path = f"/.netlify/functions/{case.path}"
    capacity_per_s = case.capacity_per_s or _capacity_per_s(port, path, duration_s)
    report.add(f"{name} capacity", capacity_per_s, "requests/s")
    usual = apply_users(port, path, per_s=0.8 * capacity_per_s, duration_s=LONGER * duration_s)
    before = _resident_kib(running)
    over = apply_users(port, path, per_s=OVER * capacity_per_s, duration_s=LONGER * duration_s)
    recovery_s = _recovery_s(port, path, usual.p99_s)
    after = _resident_kib(running)
    for label, crowd in (("at 0.8", usual), (f"at {OVER}", over)):
        report.add(f"{name} {label} done", crowd.done / crowd.duration_s / capacity_per_s, "x")
        report.add(f"{name} {label} refused", 100 * crowd.refused / (crowd.done + crowd.refused), "%")
        report.add(f"{name} {label} p50 of all", crowd.p50_s * 1000, "ms")
        report.add(f"{name} {label} p99", crowd.p99_s * 1000, "ms")
        report.add(f"{name} {label} health p99", crowd.health_p99_s * 1000, "ms")
    report.add(f"{name} p99 at {OVER} of that at 0.8", over.p99_s / usual.p99_s, "x", at_most=SLOWER_MAX)
    report.add(f"{name} odd answers, or none", over.odd, "requests", at_most=0)
    report.add(f"{name} refusals without Retry-After", over.hintless, "requests", at_most=0)
    report.add(f"{name} back to normal after", recovery_s, "s", at_most=RECOVERY_S_MAX)
    for role in GROWING:
        report.add(f"{name} {role} grew by", (after[role] - before[role]) / KIB_IN_MIB, "MiB")


def _capacity_per_s(port: int, path: str, duration_s: int) -> float:
    """The last of growing rates that the system kept up with."""
    load = apply_load(port, path, connections=CONNECTIONS, duration_s=duration_s, method="POST", strict=False)
    capacity_per_s = STEPS[0] * load.per_s
    for step in STEPS:
        per_s = step * load.per_s
        # Twice, if need be: a moment in which the machine was busy with something else decides nothing.
        if not any(apply_users(port, path, per_s=per_s, duration_s=duration_s).is_served for _ in range(2)):
            break
        capacity_per_s = per_s
    return capacity_per_s


def _recovery_s(port: int, path: str, usual_s: float) -> float:
    """Seconds until ten calls in a row are as fast as usual."""
    began = time.monotonic()
    with Session(port) as session:
        in_a_row = 0
        while in_a_row < 10 and time.monotonic() - began < 4 * RECOVERY_S_MAX:
            at = time.monotonic()
            status = session.status("POST", path)
            in_a_row = in_a_row + 1 if status < 300 and time.monotonic() - at <= max(usual_s, 0.01) else 0
    return time.monotonic() - began


def _resident_kib(running: System) -> dict[Role, int]:
    pids = running.pids()
    return {role: sum(memory_kib(pid)["Rss"] for pid in pids[role]) for role in GROWING}
