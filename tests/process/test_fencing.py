"""A runner that cannot keep its leases: whatever it runs has ended before anybody else runs it.

Five runners, each with functions of its own, fall ill at the same moment, each in its own way; one that
serves all of them takes over. Functions note when they begin, that they live, and when they end, which
is when the test lets them.
"""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

from tests.e2e.notes import NOTE, notes
from tests.faults.proxy import Proxy
from tests.system import Process, System, alive, parent
from tests.waiting import eventually

LEASE_S = 8.0  # enough for renewals to come in time on a machine that stalls
WORK = f"""{NOTE}
def handler(event, context):
    note("began", context)
    end = pathlib.Path(__file__).parent.parent / "end"
    while event["body"] and not end.exists():
        time.sleep(0.02)
        note("alive", context)
    note("ended", context)
    return {{"statusCode": 200, "body": "done"}}
"""
# cut: from NATS; stopped: SIGSTOP; frozen: its workers as well; unguarded: its guard as well.
ILL = ("cut", "killed", "stopped", "frozen", "unguarded")


async def start_own(system: System, name: str, *flags: str) -> Process:
    """A runner that serves just the functions of this name."""
    folder = system.folder / f"only-{name}"
    folder.mkdir()
    for function in (name, f"{name}-background"):
        shutil.copy(system.functions / f"{function}.py", folder)
    return await system.start_runner("--functions", str(folder), *flags)


def runs(system: System, id: str) -> dict[int, list[float]]:
    """The moments of each run of an invocation, by its worker."""
    found: dict[int, list[float]] = {}
    for note in notes(system.folder):
        if note["id"] == id:
            found.setdefault(note["pid"], []).append(note["at"])
    return found


def fall_ill(runners: dict[str, Process], workers: dict[str, int], link: Proxy) -> None:
    link.block()
    runners["killed"].send(signal.SIGKILL)
    for name in ("stopped", "frozen", "unguarded"):
        runners[name].send(signal.SIGSTOP)
    os.killpg(workers["frozen"], signal.SIGSTOP)
    os.kill(parent(workers["unguarded"]), signal.SIGSTOP)


def recover(runners: dict[str, Process], guard: int, link: Proxy) -> None:
    link.heal()
    os.kill(guard, signal.SIGCONT)
    for name in ("stopped", "frozen", "unguarded"):
        runners[name].send(signal.SIGCONT)


async def test_no_two_runs_overlap_whatever_becomes_of_a_runner(tmp_path: Path) -> None:
    functions = {name + kind: WORK for name in ILL for kind in ("", "-background")}
    async with System(tmp_path, functions, lease_s=LEASE_S) as system, Proxy(system.nats.port) as link:
        await system.start_gateway()
        through = ("--broker", f"nats://127.0.0.1:{link.port}")
        started = [start_own(system, name, *(through if name == "cut" else ())) for name in ILL]
        runners = dict(zip(ILL, await asyncio.gather(*started), strict=True))
        ids = {name: await system.enqueue(f"{name}-background", json=1) for name in ILL}
        await eventually(lambda: len(notes(tmp_path, "began")) == len(ILL), what="all of them ran")
        calls = {name: asyncio.create_task(system.post(name, json=1)) for name in ("cut", "killed")}
        calls["stopped"] = asyncio.create_task(system.post("stopped", json=1))
        await eventually(lambda: len(notes(tmp_path, "began")) == len(ILL) + 3, what="the calls ran")
        workers = {name: next(iter(runs(system, id))) for name, id in ids.items()}
        guard = parent(workers["unguarded"])
        for runner in runners.values():
            system.remember(runner)
        fall_ill(runners, workers, link)
        ill_at = time.monotonic()
        healthy = await system.start_runner()

        answers = dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
        for name, answer in answers.items():
            assert (answer.status_code, answer.json()["code"]) == (502, "runner_lost"), name
        await eventually(lambda: all(len(runs(system, id)) > 1 for id in ids.values()), what="they ran again")
        (tmp_path / "end").touch()
        for id in ids.values():
            status = await system.in_state(id, "succeeded", "dead")
            assert (status["state"], len(status["attempts"])) == ("succeeded", 1)
        for name, id in ids.items():
            first, second = runs(system, id).values()
            assert second[0] < ill_at + LEASE_S + 15, name
            assert name == "unguarded" or max(first) < second[0], f"{name}: they overlapped"
        assert not any(alive(pid) for name, pid in workers.items() if name != "unguarded")

        recover(runners, guard, link)
        await eventually(
            lambda: runners["unguarded"].facts("outcome_refused"), what="the late outcome is refused"
        )
        refused = 'quarterhour_outcomes_refused_total{function="unguarded-background"} 1.0'

        async def counted() -> bool:
            return refused in await system.metrics_page(runners["unguarded"])

        await eventually(counted, what="the refusal is counted")

        healthy.send(signal.SIGTERM)
        assert await healthy.ended() == 0
        for name in set(ILL) - {"killed"}:  # they take work again, of themselves
            await eventually(lambda: _answers(system, name), what=f"{name} answers")  # noqa: B023
            again = await system.enqueue(f"{name}-background")
            assert (await system.in_state(again, "succeeded"))["attempt"] == 1
        others = [note["id"] for note in notes(tmp_path, "began") if note["id"] not in ids.values()]
        assert len(others) == len(set(others)), "no call was run twice"


async def _answers(system: System, name: str) -> bool:
    return (await system.post(name)).status_code == 200
