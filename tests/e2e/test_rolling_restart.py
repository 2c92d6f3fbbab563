"""A deploy: every gateway and every runner is replaced, one after another, while requests keep coming.

The client does what a load balancer does: it asks each gateway whether it is ready, and sends to those that
are. A request that fails in any way fails the test, one that is refused a connection as well.
"""

import asyncio
import itertools
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx

from tests.e2e.notes import NOTE, notes
from tests.system import Process, System
from tests.waiting import eventually

FUNCTIONS = {
    "quick": """
import time
def handler(event, context):
    time.sleep(0.02)
    return {"statusCode": 200, "body": event["body"]}
""",
    "slow-background": f"""{NOTE}
def handler(event, context):
    note("began", context)
    time.sleep(0.3)
    note("ended", context)
""",
}
CLIENTS = 6
GRACE = ("--grace", "4")  # the balancer has to see that a gateway leaves, on whatever machine
SLOTS = ("--slots", "8")
PREFIX = "/.netlify/functions"


class Balancer:
    """Requests to whichever gateways say that they are ready."""

    def __init__(self, *gateways: Process) -> None:
        self.ready = list(gateways)
        self.calls = 0
        self.accepted: list[str] = []
        self.failed: list[str] = []
        self._numbers = itertools.count()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.ready[next(self._numbers) % len(self.ready)].port}{PREFIX}"

    async def check(self) -> None:
        """Take out what is not ready."""
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                for gateway in list(self.ready):
                    with suppress(ValueError):
                        if not await _is_ready(client, gateway):
                            self.ready.remove(gateway)
                await asyncio.sleep(0.05)

    async def call(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                url, number = f"{self.url()}/quick", str(self.calls)
                self.calls += 1
                try:
                    answer = await client.post(url, json=int(number))
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                else:
                    if (answer.status_code, answer.text) != (200, number):
                        self.failed.append(f"{answer.status_code} {answer.text}")

    async def enqueue(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                try:
                    answer = await client.post(f"{self.url()}/slow-background", content="x")
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                else:
                    if answer.status_code == 202:
                        self.accepted.append(answer.headers["x-nf-request-id"])
                    else:
                        self.failed.append(f"{answer.status_code} {answer.text}")
                await asyncio.sleep(0.05)


async def _is_ready(client: httpx.AsyncClient, gateway: Process) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{gateway.port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _replace(system: System, runner: Process) -> None:
    runner.send(signal.SIGTERM)
    await asyncio.gather(runner.ended(), system.start_runner(*SLOTS))
    assert runner.popen.returncode == 0


async def test_a_rolling_restart_fails_no_request_and_costs_no_attempt(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS, lease_s=30) as system:
        first = await system.start_gateway(*GRACE)
        gateways = [first, await system.start_gateway(*GRACE)]
        runners = list(await asyncio.gather(*(system.start_runner(*SLOTS) for _ in range(3))))
        balancer = Balancer(*gateways)
        load = [asyncio.create_task(balancer.check()), asyncio.create_task(balancer.enqueue())]
        load += [asyncio.create_task(balancer.call()) for _ in range(CLIENTS)]
        await eventually(lambda: balancer.calls > 100, what="requests came")

        # While a gateway leaves, a runner is replaced: it has time for that.
        first_runner, second_runner, last_runner = runners
        for old, runner in zip(gateways, (first_runner, second_runner), strict=True):
            balancer.ready.append(await system.start_gateway(*GRACE))
            old.send(signal.SIGTERM)
            await _replace(system, runner)
            assert await old.ended() == 0
            assert old not in balancer.ready
        await _replace(system, last_runner)
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        assert Counter(balancer.failed) == {}
        statuses = [await system.in_state(id, "succeeded", "dead") for id in balancer.accepted]
        assert {(status["state"], len(status["attempts"])) for status in statuses} == {("succeeded", 1)}
        begun = Counter(note["id"] for note in notes(tmp_path, "began"))
        assert set(balancer.accepted) <= set(begun)
        assert set(begun.values()) == {1}
