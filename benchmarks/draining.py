"""How fast runners work off a long queue: every invocation through a real worker, with a durable record."""

import asyncio
import time
from dataclasses import dataclass

import uvloop
from nats.aio.client import Client

from benchmarks.broker import count_messages, count_subjects, enqueue
from benchmarks.errors import give_up
from benchmarks.others import watching_others
from benchmarks.report import Report, progress
from benchmarks.system import Role, System, system

__all__ = ["measure"]

INVOCATIONS = 20_000
RUNNERS, SLOTS = 2, 16
PER_S_MIN = 2000
POLL_S = 0.05
BOUND_S = 120.0
ROLES: tuple[Role, ...] = ("nats", "runner", "guard", "worker")
FUNCTION = "noop-background"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drained:
    """Seconds from the start of the runners' processes to the first record and to the last."""

    first_s: float
    last_s: float


def measure(report: Report, *, runs: int) -> None:
    """Fill the queue while no runner is up, start two, and wait for the last record."""
    for run in range(1, runs + 1):
        with system() as running:
            progress(f"drain, run {run} of {runs}: putting {INVOCATIONS:,} invocations on the queue")
            _announce(running)
            began = time.perf_counter()
            uvloop.run(enqueue(running.broker, FUNCTION, INVOCATIONS))
            report.add("enqueue, many at once", INVOCATIONS / (time.perf_counter() - began), "invocations/s")
            progress(f"drain, run {run} of {runs}: working them off")
            with watching_others(report):
                _drain(report, running)


def _announce(running: System) -> None:
    """Let a runner create stream and queue, then stop it."""
    port = running.start_gateway("hypercorn")
    running.start_runners(1)
    running.wait_for_runners(port)
    running.stop("runner")
    running.stop("gateway")


def _drain(report: Report, running: System) -> None:
    before = running.cpu_s()
    drained = uvloop.run(_until_drained(running))
    after = running.cpu_s()
    report.add("drain", INVOCATIONS / (drained.last_s - drained.first_s), "invocations/s", at_least=PER_S_MIN)
    report.add("drain, start of the runners included", INVOCATIONS / drained.last_s, "invocations/s")
    for role in ROLES:
        used_us = (after[role] - before.get(role, 0.0)) / INVOCATIONS * 1e6
        report.add(f"drain CPU {role}", used_us, "µs/invocation")


async def _until_drained(running: System) -> _Drained:
    client = Client()
    await client.connect(running.broker)
    try:
        waiting = await count_messages(client)
        if waiting != INVOCATIONS:
            give_up(f"{waiting} messages are stored instead of {INVOCATIONS}.")
        began = time.perf_counter()
        running.start_runners(RUNNERS, slots=SLOTS)
        # No gateway is up, so that nothing that is settled is removed: every new message is a record.
        first_s = await _until_stored(client, waiting + 1, began)
        last_s = await _until_stored(client, waiting + INVOCATIONS, began)
        records = await count_subjects(client, "r")
        if records != INVOCATIONS:
            give_up(f"{records} invocations have a record instead of {INVOCATIONS}.")
        return _Drained(first_s=first_s, last_s=last_s)
    finally:
        await client.close()


async def _until_stored(client: Client, messages: int, began: float) -> float:
    while (stored := await count_messages(client)) < messages:
        if time.perf_counter() - began > BOUND_S:
            give_up(f"After {BOUND_S:g} s {stored} of {messages} messages are stored.")
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - began
