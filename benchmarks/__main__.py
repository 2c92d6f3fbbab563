"""`python -m benchmarks`: runs the measures, prints a table, writes JSON under `benchmarks/results/`."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import click

from benchmarks import (
    accepting,
    draining,
    endurance,
    fairness,
    javascript,
    latency,
    memory,
    overload,
    synchronous,
)
from benchmarks.report import Report, progress
from benchmarks.system import RESULTS, Server

__all__ = ["main"]

SERVERS: tuple[Server, ...] = ("hypercorn", "granian")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How much is measured. `duration_s`: of each load."""

    servers: tuple[Server, ...]
    runs: int
    duration_s: int


def _synchronous(report: Report, plan: _Plan) -> None:
    for server in plan.servers:
        synchronous.measure(report, server, runs=plan.runs, duration_s=plan.duration_s)


def _accepting(report: Report, plan: _Plan) -> None:
    for server in plan.servers:
        accepting.measure(report, server, runs=plan.runs, duration_s=plan.duration_s)


def _overload(report: Report, plan: _Plan) -> None:
    for server in plan.servers:
        overload.measure(report, server, runs=plan.runs, duration_s=2 * plan.duration_s)


def _endurance(report: Report, plan: _Plan) -> None:
    for server in plan.servers:
        endurance.measure(report, server, duration_s=2 * plan.duration_s)


def _memory(report: Report, plan: _Plan) -> None:
    for server in plan.servers:
        memory.measure(report, server, runs=plan.runs)


MEASURES: dict[str, Callable[[Report, _Plan], None]] = {
    "synchronous": _synchronous,
    "accepting": _accepting,
    "drain": lambda report, plan: draining.measure(report, runs=plan.runs),
    "background": lambda report, plan: latency.measure_background(report, runs=plan.runs),
    "cold": lambda report, plan: latency.measure_cold_start(report, runs=plan.runs),
    "javascript": lambda report, plan: javascript.measure(report, runs=plan.runs, duration_s=plan.duration_s),
    "memory": _memory,
    "overload": _overload,
    "fairness": lambda report, plan: fairness.measure(report, runs=plan.runs),
    "endurance": _endurance,
}
LONG = {"endurance"}


@click.command()
@click.option("--quick", is_flag=True, help="One short run of each instead of five.")
@click.option("--runs", type=click.IntRange(1, 50), help="So many runs of each.")
@click.option("--seconds", type=click.IntRange(1, 60), help="So long for each load.")
@click.option("--server", type=click.Choice(SERVERS), help="With this HTTP server alone.")
@click.argument("names", nargs=-1, type=click.Choice(list(MEASURES)))
def main(
    names: tuple[str, ...], server: Server | None, seconds: int | None, runs: int | None, *, quick: bool
) -> None:
    """Measure NAMES, or everything but endurance: about fifteen minutes, with --quick about three."""
    plan = _Plan(
        servers=(server,) if server else _installed(),
        runs=runs or (1 if quick else 5),
        duration_s=seconds or (2 if quick else 4),
    )
    report = Report()
    try:
        for name in names or [name for name in MEASURES if name not in LONG]:
            MEASURES[name](report, plan)
    finally:
        if report.measures:
            path = report.write(RESULTS)
            print(f"\n{report.table()}\n\n{report.notes()}\n{path}")


def _installed() -> tuple[Server, ...]:
    if importlib.util.find_spec("granian") is None:
        progress("Granian is not installed: only Hypercorn is measured.")
        return ("hypercorn",)
    return SERVERS


if __name__ == "__main__":
    main()
