"""Functions in JavaScript and TypeScript, beside Node.js itself and beside the same functions in Python."""

import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.load import apply_load
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import System, system
from benchmarks.web import Session
from runner.sandbox.node.find import find_node

__all__ = ["measure"]

CLASSIC = "exports.handler = async () => ({ statusCode: 200, body: 'ok' });\n"
MODERN = "export default async (request: Request): Promise<Response> => new Response('ok' as string);\n"
KINDS = {"classic .js": ("js", CLASSIC), "modern .ts": ("ts", MODERN)}
PYTHON = 'async def handler(event, context):\n    return {"statusCode": 200, "body": "ok"}\n'

FUNCTIONS = 5  # of each kind and run
PAUSE_S = 0.7  # alone is who comes later than the next spare worker
WARM_CALLS = 9
TURNS = 300
COLD_MS_MAX = 60
RATIO_MAX = 1.15
CONNECTIONS = 16
WARM_UP_S = 4


def measure(report: Report, *, runs: int, duration_s: int) -> None:
    """Cold starts over `node -e 0`, alone and one behind the other; warm calls over those of Python."""
    with system() as running:
        names = _write(running, runs)
        port = running.start_gateway("hypercorn")
        running.start_runners(1, slots=4 * FUNCTIONS * runs + 2 * CONNECTIONS)
        running.wait_for_runners(port)
        with Session(port) as session:
            for kind in ("async", "js", "ts"):  # so that workers are there, and their code is compiled
                path = f"/.netlify/functions/noop-{kind}"
                apply_load(port, path, connections=CONNECTIONS, duration_s=WARM_UP_S)
            for run in range(1, runs + 1):
                progress(f"JavaScript, run {run} of {runs}")
                with watching_others(report):
                    node_ms = _node_ms(find_node())
                    report.add("node -e 0", node_ms, "ms")
                    for (kind, how), functions in names[run - 1].items():
                        _measure_cold(report, session, f"{kind}, {how}", functions, node_ms)
                    _measure_warm(report, session)
                    _measure_load(report, port, duration_s)


def _write(running: System, runs: int) -> list[dict[tuple[str, str], list[str]]]:
    """The functions of each run, by kind and by how they are called."""
    running.write("noop-async", PYTHON)
    running.write("noop-js", CLASSIC, "js")
    running.write("noop-ts", MODERN, "ts")
    names: list[dict[tuple[str, str], list[str]]] = []
    for run in range(runs):
        names.append({})
        for kind, (suffix, source) in KINDS.items():
            for how in ("alone", "in a row"):
                found = [f"cold-{suffix}-{how[:2]}-{run}-{number}" for number in range(FUNCTIONS)]
                for name in found:
                    running.write(name, source, suffix)
                names[run][kind, how] = found
    return names


def _node_ms(node: Path) -> float:
    """What starting Node.js for nothing takes."""
    took_s = []
    for _ in range(WARM_CALLS):
        began = time.perf_counter()
        subprocess.run([node, "-e", "0"], check=True)
        took_s.append(time.perf_counter() - began)
    return statistics.median(took_s) * 1000


def _measure_cold(report: Report, session: Session, name: str, functions: list[str], node_ms: float) -> None:
    """First calls, less warm ones, less Node.js itself."""
    cold_ms = []
    for function in functions:
        path = f"/.netlify/functions/{function}"
        first_s = session.timed(path)
        if "alone" in name:
            time.sleep(PAUSE_S)
        cold_ms.append((first_s - statistics.median(session.timed(path) for _ in range(WARM_CALLS))) * 1000)
    over_ms = statistics.median(cold_ms) - node_ms
    report.add(f"cold start of {name}, over node -e 0", over_ms, "ms", at_most=COLD_MS_MAX)


def _measure_warm(report: Report, session: Session) -> None:
    """Lone calls, in turns."""
    took_s: dict[str, list[float]] = {"async": [], "js": [], "ts": []}
    for _ in range(TURNS):
        for kind, times in took_s.items():
            times.append(session.timed(f"/.netlify/functions/noop-{kind}"))
    p50_s = {kind: statistics.median(times) for kind, times in took_s.items()}
    report.add("warm Python call, alone", p50_s["async"] * 1000, "ms")
    report.add(
        "warm classic .js call of Python's, alone", p50_s["js"] / p50_s["async"], "x", at_most=RATIO_MAX
    )
    report.add(
        "warm modern .ts call of Python's, alone", p50_s["ts"] / p50_s["async"], "x", at_most=RATIO_MAX
    )


def _measure_load(report: Report, port: int, duration_s: int) -> None:
    """Calls of many at once, as the time that each takes of the whole."""
    per_s = {
        kind: apply_load(
            port, f"/.netlify/functions/noop-{kind}", connections=CONNECTIONS, duration_s=duration_s
        ).per_s
        for kind in ("async", "js", "ts")
    }
    for kind, name in (("js", "classic .js"), ("ts", "modern .ts")):
        ratio = per_s["async"] / per_s[kind]
        report.add(f"warm {name} call of Python's, x{CONNECTIONS}", ratio, "x", at_most=RATIO_MAX)
