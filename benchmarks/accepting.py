"""Durable acceptance: 202s per second, beside what acknowledged publishing alone reaches on that server."""

import uvloop

from benchmarks.broker import publish_raw
from benchmarks.load import apply_load
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import Role, Server, System, system

__all__ = ["measure"]

CONNECTIONS = (1, 32, 64)
PATH = "/.netlify/functions/noop-background"
ROLES: tuple[Role, ...] = ("gateway", "nats")


def measure(report: Report, server: Server, *, runs: int, duration_s: int) -> None:
    """Measure 202s in turns with raw publishes. No runner is up, so that accepting is all that happens."""
    with system() as running:
        port = running.start_gateway(server)
        running.start_runners(1)
        running.wait_for_runners(port)
        running.stop("runner")
        for connections in CONNECTIONS:
            for run in range(1, runs + 1):
                progress(f"202s, {server}, {connections} connections, run {run} of {runs}")
                with watching_others(report):
                    _compare(report, running, server, port, connections=connections, duration_s=duration_s)


def _compare(
    report: Report, running: System, server: Server, port: int, *, connections: int, duration_s: int
) -> None:
    name = f"202s {server} x{connections}"
    raw_per_s = uvloop.run(publish_raw(running.broker, in_flight=connections, duration_s=duration_s))
    before = running.cpu_s()
    ours = apply_load(port, PATH, connections=connections, duration_s=duration_s, method="POST")
    after = running.cpu_s()
    report.add(f"raw publishes x{connections}", raw_per_s, "messages/s")
    report.add(name, ours.per_s, "requests/s")
    report.add(f"{name} p50", ours.p50_s * 1000, "ms")
    report.add(f"{name} p99", ours.p99_s * 1000, "ms")
    report.add(f"{name} of raw", ours.per_s / raw_per_s, "x")
    for role in ROLES:
        report.add(f"{name} CPU {role}", (after[role] - before[role]) / ours.requests * 1e6, "µs/request")
