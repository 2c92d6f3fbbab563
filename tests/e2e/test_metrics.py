"""Every metric of the design moves when it should, as Prometheus would read it; one test for each."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.system import Process, System
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOTS = 3
# For synchronous and background functions: does what its body says.
ACTS = """
    import json, os

    config = {"retries": 1, "retry_delay": 0.1}

    def handler(event, context):
        what = json.loads(event["body"])
        if what == "fail":
            raise ValueError("as asked")
        if what == "fail once" and context.attempt == 1:
            raise ValueError("as asked")
        if what == "crash":
            os._exit(3)
        return {"statusCode": 200, "body": "done"}
"""
# Functions of their own: their limit is so short that the start of a worker may take longer.
HANGS = """
    import time

    config = {"retries": 1, "retry_delay": 0.1, "timeout": 0.5}

    def handler(event, context):
        time.sleep(120)
"""
HANGING = {"acts": "hangs", "acts-background": "hangs-background"}
# Runs until a file named like its body appears.
WAITS = """
    import pathlib, time

    def handler(event, context):
        gate = pathlib.Path(__file__).parent.parent / event["body"]
        while not gate.exists():
            time.sleep(0.01)
        return {"statusCode": 200}
"""
FUNCTIONS = {
    "acts": ACTS,
    "acts-background": ACTS,
    "hangs": HANGS,
    "hangs-background": HANGS,
    "waits": WAITS,
    "waits-background": WAITS,
    "untouched": ACTS,
    "untouched-background": ACTS,
}
TEXT = {"content-type": "text/plain"}

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Scraped:
    """A system, and a look at the metrics of its gateway and its runner."""

    system: System
    gateway: Process
    runner: Process

    async def samples(self, of: Process) -> Samples:
        page = await self.system.metrics_page(of)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    async def value(self, of: Process, name: str, **labels: str) -> float:
        """The value of one series, which has to exist."""
        return (await self.samples(of))[name, tuple(sorted(labels.items()))]

    async def becomes(self, expected: float, of: Process, name: str, **labels: str) -> None:
        async def check() -> bool:
            return await self.value(of, name, **labels) == expected

        await eventually(check, what=f"{name} {labels} was {expected}")

    async def act(self, name: str, what: str) -> None:
        """Have a function do something, to its end: "hang" is done by another one."""
        answer = await self.system.post(doer(name, what), content=json.dumps(what), headers=TEXT)
        if name.endswith("-background"):
            await self.system.in_state(answer.headers["x-nf-request-id"], "succeeded", "dead")

    async def block(self, name: str, gate: str, count: int) -> asyncio.Future[object]:
        """Have a function run (or wait) `count` times until the file `gate` is there."""
        posts = (self.system.post(name, content=gate, headers=TEXT) for _ in range(count))
        return asyncio.ensure_future(asyncio.gather(*posts))

    def open(self, gate: str) -> None:
        (self.system.folder / gate).touch()


def doer(name: str, what: str) -> str:
    """The function that does it for `name`."""
    return HANGING[name] if what == "hang" else name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scraped]:
    async with System(tmp_path_factory.mktemp("metrics"), FUNCTIONS) as system:
        gateway = await system.start_gateway()
        runner = await system.start_runner("--slots", str(SLOTS))
        yield Scraped(system, gateway, runner)


async def test_every_series_of_an_announced_function_starts_at_zero(scraped: Scraped) -> None:
    gateway, runner = await scraped.samples(scraped.gateway), await scraped.samples(scraped.runner)
    for name, mode in (("untouched", "synchronous"), ("untouched-background", "background")):
        statuses = ["200", "500", "502", "503", "504"] if mode == "synchronous" else ["202", "429", "503"]
        for status in statuses:
            labels = (("function", name), ("mode", mode), ("status", status))
            assert gateway["quarterhour_requests_total", labels] == 0
        for result in ("succeeded", "failed", "timed_out", "crashed", "cancelled"):
            labels = (("function", name), ("mode", mode), ("result", result))
            assert runner["quarterhour_outcomes_total", labels] == 0
        assert runner["quarterhour_attempt_duration_seconds_count", (("function", name), ("mode", mode))] == 0
        assert runner["quarterhour_running", (("function", name),)] == 0
    function = ("function", "untouched-background")
    for reason in ("failed", "timed_out", "crashed", "expired", "runner_lost"):
        assert runner["quarterhour_dead_letters_total", (function, ("reason", reason))] == 0
    assert gateway["quarterhour_dead_letters_total", (function, ("reason", "expired"))] == 0
    for name in ("quarterhour_accepted_total", "quarterhour_waiting", "quarterhour_oldest_waiting_seconds"):
        assert gateway[name, (function,)] == 0
    for name in ("quarterhour_retries_total", "quarterhour_queue_duration_seconds_count"):
        assert runner[name, (function,)] == 0


async def test_requests_total(scraped: Scraped) -> None:
    wanted = {"acts", "hangs", "acts-background"}

    async def counts() -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for (name, pairs), value in (await scraped.samples(scraped.gateway)).items():
            labels = dict(pairs)
            if name == "quarterhour_requests_total" and labels["function"] in wanted:
                found[labels["status"]] += value
        return found

    before = await counts()
    await scraped.act("acts", "work")
    await scraped.act("acts", "fail")
    await scraped.act("acts", "hang")
    await scraped.act("acts-background", "work")

    async def moved() -> bool:
        by = {status: value - before.get(status, 0) for status, value in (await counts()).items()}
        return {status: value for status, value in by.items() if value} == {
            "200": 1,
            "500": 1,
            "504": 1,
            "202": 1,
        }

    await eventually(moved, what="each answer was counted once under its status")


async def test_requests_to_nothing_are_counted_under_no_name(scraped: Scraped) -> None:
    labels = {"function": "", "mode": "", "status": "404"}
    before = (await scraped.samples(scraped.gateway)).get(
        ("quarterhour_requests_total", tuple(sorted(labels.items()))), 0
    )
    await scraped.system.post("no-such-function")
    await scraped.becomes(before + 1, scraped.gateway, "quarterhour_requests_total", **labels)
    assert "no-such-function" not in await scraped.system.metrics_page(scraped.gateway)


async def test_accepted_total(scraped: Scraped) -> None:
    metric = {"name": "quarterhour_accepted_total", "function": "acts-background"}
    before = await scraped.value(scraped.gateway, **metric)
    await scraped.act("acts-background", "work")
    await scraped.act("acts-background", "fail")  # accepted all the same, and once for all attempts
    await scraped.act("acts", "work")
    await scraped.becomes(before + 2, scraped.gateway, **metric)


@pytest.mark.parametrize(
    ("what", "result"),
    [("work", "succeeded"), ("fail", "failed"), ("hang", "timed_out"), ("crash", "crashed")],
)
@pytest.mark.parametrize(("name", "mode"), [("acts", "synchronous"), ("acts-background", "background")])
async def test_outcomes_total(scraped: Scraped, name: str, mode: str, what: str, result: str) -> None:
    function = doer(name, what)
    metric = {"name": "quarterhour_outcomes_total", "function": function, "mode": mode, "result": result}
    before = await scraped.value(scraped.runner, **metric)
    await scraped.act(name, what)
    attempts = 1 if mode == "synchronous" or what == "work" else 2
    await scraped.becomes(before + attempts, scraped.runner, **metric)


async def test_retries_total(scraped: Scraped) -> None:
    metric = {"name": "quarterhour_retries_total", "function": "acts-background"}
    before = await scraped.value(scraped.runner, **metric)
    await scraped.act("acts-background", "fail once")
    await scraped.act("acts-background", "fail")
    await scraped.act("acts-background", "work")
    await scraped.becomes(before + 2, scraped.runner, **metric)


@pytest.mark.parametrize(
    ("what", "reason"), [("fail", "failed"), ("hang", "timed_out"), ("crash", "crashed")]
)
async def test_dead_letters_total(scraped: Scraped, what: str, reason: str) -> None:
    function = doer("acts-background", what)
    metric = {"name": "quarterhour_dead_letters_total", "function": function, "reason": reason}
    before = await scraped.value(scraped.runner, **metric)
    await scraped.act("acts-background", what)
    await scraped.act("acts-background", "fail once")
    await scraped.becomes(before + 1, scraped.runner, **metric)


@pytest.mark.parametrize(("name", "mode"), [("acts", "synchronous"), ("acts-background", "background")])
async def test_attempt_duration_seconds(scraped: Scraped, name: str, mode: str) -> None:
    metric, labels = "quarterhour_attempt_duration_seconds", {"function": doer(name, "hang"), "mode": mode}
    attempts = 1 if mode == "synchronous" else 2
    half_each = pytest.approx(0.5 * attempts, abs=0.4 * attempts)
    for _ in range(3):
        moved_s = await duration_of_a_hang(scraped, name, attempts, metric, labels)
        if moved_s == half_each:
            break  # or the machine stood still meanwhile
    assert moved_s == half_each


async def duration_of_a_hang(
    scraped: Scraped, name: str, attempts: int, metric: str, labels: dict[str, str]
) -> float:
    """By how much the sum of a histogram moves when a function reaches its limit."""
    count = await scraped.value(scraped.runner, f"{metric}_count", **labels)
    total_s = await scraped.value(scraped.runner, f"{metric}_sum", **labels)
    short = await scraped.value(scraped.runner, f"{metric}_bucket", le="0.1", **labels)
    await scraped.act(name, "hang")  # 0.5 s each
    await scraped.becomes(count + attempts, scraped.runner, f"{metric}_count", **labels)
    assert await scraped.value(scraped.runner, f"{metric}_bucket", le="0.1", **labels) == short
    return await scraped.value(scraped.runner, f"{metric}_sum", **labels) - total_s


async def test_queue_duration_seconds(scraped: Scraped) -> None:
    metric, labels = "quarterhour_queue_duration_seconds", {"function": "waits-background"}
    blocked = await scraped.block("waits-background", "queued", SLOTS)
    await scraped.becomes(SLOTS, scraped.runner, "quarterhour_running", **labels)
    total_s = await scraped.value(scraped.runner, f"{metric}_sum", **labels)
    count = await scraped.value(scraped.runner, f"{metric}_count", **labels)
    await blocked
    late = await scraped.system.enqueue("waits-background", content="queued", headers=TEXT)
    await scraped.becomes(1, scraped.gateway, "quarterhour_waiting", **labels)
    await asyncio.sleep(0.5)  # it is this waiting that is measured
    scraped.open("queued")
    await scraped.system.in_state(late, "succeeded")
    await scraped.becomes(count + 1, scraped.runner, f"{metric}_count", **labels)
    assert 0.5 <= await scraped.value(scraped.runner, f"{metric}_sum", **labels) - total_s < 10


async def test_waiting_and_oldest_waiting_seconds(scraped: Scraped) -> None:
    labels = {"function": "waits-background"}
    blocked = await scraped.block("waits-background", "waiting", SLOTS + 4)
    await scraped.becomes(4, scraped.gateway, "quarterhour_waiting", **labels)

    async def oldest_s() -> float:
        return await scraped.value(scraped.gateway, "quarterhour_oldest_waiting_seconds", **labels)

    first_s = await eventually(oldest_s, what="the oldest had waited")
    assert first_s < 10

    async def has_grown() -> bool:
        return await oldest_s() >= first_s + 0.5

    await eventually(has_grown, what="the oldest had waited longer")
    await blocked
    scraped.open("waiting")
    await scraped.becomes(0, scraped.gateway, "quarterhour_waiting", **labels)
    await scraped.becomes(0, scraped.gateway, "quarterhour_oldest_waiting_seconds", **labels)


async def test_every_gateway_shows_the_same_queues(scraped: Scraped) -> None:
    other = await scraped.system.start_gateway()
    scraped.system.gateway = scraped.gateway
    blocked = await scraped.block("waits-background", "both", SLOTS + 2)
    for gateway in (scraped.gateway, other):
        await scraped.becomes(2, gateway, "quarterhour_waiting", function="waits-background")
    await blocked
    scraped.open("both")
    for gateway in (scraped.gateway, other):
        await scraped.becomes(0, gateway, "quarterhour_waiting", function="waits-background")
    await other.kill()


@pytest.mark.parametrize("name", ["waits", "waits-background"])
async def test_running(scraped: Scraped, name: str) -> None:
    gate = f"running {name}"
    blocked = await scraped.block(name, gate, 2)
    await scraped.becomes(2, scraped.runner, "quarterhour_running", function=name)
    scraped.open(gate)
    await scraped.becomes(0, scraped.runner, "quarterhour_running", function=name)
    await blocked


async def test_slots(scraped: Scraped) -> None:
    assert await scraped.value(scraped.runner, "quarterhour_slots") == SLOTS


async def test_broker_connected(tmp_path: Path) -> None:
    async with System(tmp_path, FUNCTIONS) as system:
        scraped = Scraped(system, await system.start_gateway(), await system.start_runner())
        processes = (scraped.gateway, scraped.runner)
        for process in processes:
            await scraped.becomes(1, process, "quarterhour_broker_connected")
        system.nats.kill()
        for process in processes:
            await scraped.becomes(0, process, "quarterhour_broker_connected")
        await asyncio.to_thread(system.nats.start)
        for process in processes:
            await scraped.becomes(1, process, "quarterhour_broker_connected")


async def test_prometheus_finds_the_runners(scraped: Scraped) -> None:
    (started,) = scraped.runner.facts("runner_started")
    known = [{"targets": [started["metrics"]], "labels": {"runner": started["runner"]}}]

    async def found() -> bool:
        return bool((await scraped.system.get("/v1/runners/targets")).json() == known)

    await eventually(found, what="the runner was the one target")
