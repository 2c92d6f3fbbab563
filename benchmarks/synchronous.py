"""Synchronous calls, beside the same server answering by itself: throughput, latency, processor time."""

from dataclasses import dataclass

from benchmarks.load import Load, apply_load
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import Role, Server, System, system

__all__ = ["measure"]

CONNECTIONS = (1, 32, 64)
RATIO_MIN: dict[Server, float] = {"hypercorn": 0.60, "granian": 0.30}
RATIO_AT = 32
ADDED_MS_MAX = 1.5
ROLES: tuple[Role, ...] = ("gateway", "nats", "runner", "guard", "worker")
PATH = "/.netlify/functions/noop"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """The two things that are compared."""

    server: Server
    bare_port: int
    port: int


def measure(report: Report, server: Server, *, runs: int, duration_s: int) -> None:
    """Measure calls through a gateway with `server`, in turns with the bare server."""
    with system() as running:
        pair = _Pair(server=server, bare_port=running.start_bare(server), port=running.start_gateway(server))
        running.start_runners(2)
        running.wait_for_runners(pair.port)
        apply_load(pair.port, PATH, connections=64, duration_s=1)  # so that workers are there
        apply_load(pair.bare_port, "/", connections=64, duration_s=1)
        for connections in CONNECTIONS:
            for run in range(1, runs + 1):
                progress(f"synchronous, {server}, {connections} connections, run {run} of {runs}")
                with watching_others(report):
                    _compare(report, running, pair, connections, duration_s)


def _compare(report: Report, running: System, pair: _Pair, connections: int, duration_s: int) -> None:
    began = running.cpu_s()
    bare = apply_load(pair.bare_port, "/", connections=connections, duration_s=duration_s)
    before = running.cpu_s()
    ours = apply_load(pair.port, PATH, connections=connections, duration_s=duration_s)
    after = running.cpu_s()
    name = f"sync {pair.server} x{connections}"
    _add_load(report, f"{name} bare", bare)
    _add_load(report, name, ours)
    wanted = RATIO_MIN[pair.server] if connections == RATIO_AT else None
    report.add(f"{name} of bare", ours.per_s / bare.per_s, "x", at_least=wanted)
    if connections == 1:
        report.add(f"{name} adds", (ours.p50_s - bare.p50_s) * 1000, "ms", at_most=ADDED_MS_MAX)
    report.add(f"{name} CPU bare", (before["bare"] - began["bare"]) / bare.requests * 1e6, "µs/request")
    for role in ROLES:
        used_us = (after[role] - before[role]) / ours.requests * 1e6
        report.add(f"{name} CPU {role}", used_us, "µs/request")


def _add_load(report: Report, name: str, load: Load) -> None:
    report.add(name, load.per_s, "requests/s")
    report.add(f"{name} p50", load.p50_s * 1000, "ms")
    report.add(f"{name} p99", load.p99_s * 1000, "ms")
