"""Endurance: half a million invocations in one run, and what memory the processes hold along the way.

Calls and background work in turns; the queue is worked off before anything is weighed. It takes about ten
minutes, so it has to be asked for by its name.
"""

import time

from benchmarks.errors import give_up
from benchmarks.load import apply_load
from benchmarks.others import watching_others
from benchmarks.processes import memory_kib
from benchmarks.report import Report, progress
from benchmarks.system import Role, Server, System, system
from benchmarks.web import Session

__all__ = ["measure"]

INVOCATIONS = 500_000
WARM = 50_000
GROWTH_MAX = 1.10
CONNECTIONS = 32
PATIENCE_S = 300.0
ROLES: tuple[Role, ...] = ("gateway", "runner", "guard", "nats")
HELD: tuple[Role, ...] = ("gateway", "runner")  # NATS keeps a record of each background invocation
PATHS = ("noop", "noop-background")


def measure(report: Report, server: Server, *, duration_s: int) -> None:
    """Weigh all processes after the first tenth and at the end."""
    with system() as running:
        port = running.start_gateway(server)
        running.start_runners(2)
        running.wait_for_runners(port)
        with watching_others(report):
            warm = _make(running, port, WARM, 0, duration_s)
            before = _weigh(running)
            _make(running, port, INVOCATIONS, warm, duration_s)
            after = _weigh(running)
    for role in ROLES:
        name = f"endurance {server} {role}"
        report.add(f"{name} after {WARM:,}", before[role] / 1024, "MiB")
        report.add(f"{name} after {INVOCATIONS:,}", after[role] / 1024, "MiB")
        most = GROWTH_MAX if role in HELD else None
        report.add(f"{name} growth", after[role] / before[role], "x", at_most=most)


def _make(running: System, port: int, wanted: int, made: int, duration_s: int) -> int:
    """Make invocations until there were `wanted`; how many there were."""
    while made < wanted:
        for path in PATHS:
            load = apply_load(
                port,
                f"/.netlify/functions/{path}",
                connections=CONNECTIONS,
                duration_s=duration_s,
                method="POST",
                strict=False,
            )
            made += load.requests - load.failed
        weighed = " ".join(f"{role} {kib / 1024:.1f}" for role, kib in _weigh(running).items())
        progress(f"endurance: {made:,} invocations; MiB: {weighed}")
    _work_off(running, port)
    return made


def _work_off(running: System, port: int) -> None:
    """Wait until nothing waits and nothing runs any more."""
    ends_at = time.monotonic() + PATIENCE_S
    with Session(port) as session:
        while not _is_idle(session):
            running.check_alive()
            if time.monotonic() > ends_at:
                give_up(f"After {PATIENCE_S:g} s there was still work on the queue.")
            time.sleep(1.1)  # the gauges are a second old


def _is_idle(session: Session) -> bool:
    page = session.ask("GET", "/metrics")[1].decode()
    gauges = [line for line in page.splitlines() if line.startswith("quarterhour_waiting{")]
    return bool(gauges) and all(float(line.rpartition(" ")[2]) == 0 for line in gauges)


def _weigh(running: System) -> dict[Role, int]:
    """Resident KiB by role."""
    pids = running.pids()
    return {role: sum(memory_kib(pid)["Rss"] for pid in pids[role]) for role in ROLES}
