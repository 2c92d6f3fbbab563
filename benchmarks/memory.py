"""Memory at rest: after a call of each kind has been made, so that everything is loaded that will be."""

from benchmarks.processes import memory_kib
from benchmarks.report import Report, progress
from benchmarks.system import Server, System, system
from benchmarks.web import Session

__all__ = ["measure"]

GATEWAY_MB_MAX = 80
RUNNER_MB_MAX = 80
WORKER_MB_MAX = 25


def measure(report: Report, server: Server, *, runs: int) -> None:
    """Pss for whole processes (what is shared counts by share), private pages for a worker (its own)."""
    for run in range(1, runs + 1):
        progress(f"memory, {server}, run {run} of {runs}")
        with system() as running:
            port = running.start_gateway(server)
            running.start_runners(1)
            running.wait_for_runners(port)
            with Session(port) as session:
                session.ask("GET", "/.netlify/functions/noop")
                session.ask("POST", "/.netlify/functions/noop-background", 202)
                session.ask("GET", "/v1/functions")
                session.ask("GET", "/metrics")
            _weigh(report, running, server)


def _weigh(report: Report, running: System, server: Server) -> None:
    pids = running.pids()
    gateway, runner, guard = (memory_kib(pids[role][0]) for role in ("gateway", "runner", "guard"))
    report.add(f"gateway ({server}) Pss", _mb(gateway["Pss"]), "MB", at_most=GATEWAY_MB_MAX)
    report.add(f"gateway ({server}) Rss", _mb(gateway["Rss"]), "MB")
    report.add("runner and zygote Pss", _mb(runner["Pss"] + guard["Pss"]), "MB", at_most=RUNNER_MB_MAX)
    report.add("runner Rss", _mb(runner["Rss"]), "MB")
    report.add("zygote Rss", _mb(guard["Rss"]), "MB")
    for worker in pids["worker"]:
        found = memory_kib(worker)
        own = found["Private_Dirty"] + found["Private_Clean"]
        report.add("worker, its own pages", _mb(own), "MB", at_most=WORKER_MB_MAX)
    report.add("nats-server Rss", _mb(memory_kib(pids["nats"][0])["Rss"]), "MB")


def _mb(kib: int) -> float:
    return kib * 1024 / 1e6
