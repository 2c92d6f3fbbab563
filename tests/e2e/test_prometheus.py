"""What deploy/ asks of Prometheus is answered: a real one scrapes a real system and knows what was done.

Two gateways, so that what both show (the queues) is not counted twice, and two runners, which Prometheus
finds by itself.
"""

import asyncio
import copy
import json
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.prometheus import (
    Prometheus,
    Query,
    complaints,
    page_queries,
    panel_queries,
    program,
    rule_queries,
)
from tests.system import System
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent.parent
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/quarterhour.json").read_text())
FUNCTIONS = {
    "hello": 'def handler(event, context): return {"statusCode": 200, "body": "Hello!"}',
    # Works, but for the first attempt of what says "trip".
    "work-background": """
        config = {"retries": 1, "retry_delay": 0.1}

        def handler(event, context):
            if event["body"] == "trip" and context.attempt == 1:
                raise ValueError("tripped")
    """,
    "fail-background": """
        config = {"retries": 0}

        def handler(event, context):
            raise ValueError("as always")
    """,
    # One at a time, and none ends until a file is there.
    "slow-background": """
        import pathlib, time

        config = {"concurrency": 1}

        def handler(event, context):
            while not pathlib.Path(event["body"]).exists():
                time.sleep(0.01)
    """,
}
TEXT = {"content-type": "text/plain"}
HELLOS, WORKS, FAILS, SLOWS = 5, 8, 6, 2
RUNNERS = 2
TIMES = {"__range": "5m", "__rate_interval": "30s"}


@dataclass
class Watched:
    """A system on which work was done, and the Prometheus that watched it."""

    system: System
    prometheus: Prometheus

    async def figure(self, title: str) -> float:
        """What a panel with a single number shows now; NaN if it shows none."""
        (query,) = (one for one in panels() if one.place == f"panel {title!r}")
        series = await self.prometheus.query(query.expression)
        assert len(series) <= 1
        return series[0][1] if series else math.nan

    async def nothing_to_complain_of(self, queries: list[Query]) -> None:
        """Wait until all of the queries are answered."""
        found: list[str] = []

        async def check() -> bool:
            found[:] = await complaints(self.prometheus, queries)
            return not found

        try:
            await eventually(check)
        except AssertionError:
            pytest.fail("\n".join(found))


def panels(dashboard: dict[str, Any] = DASHBOARD) -> list[Query]:
    return list(panel_queries(dashboard, **TIMES))


async def work(system: System) -> None:
    """Some of everything: what succeeds, is tried again, is given up, runs and waits."""
    await asyncio.gather(*(system.post("hello") for _ in range(HELLOS)))
    gate = str(system.folder / "gate")
    await asyncio.gather(
        *(system.enqueue("slow-background", content=gate, headers=TEXT) for _ in range(SLOWS))
    )
    bodies = ["trip"] + ["go"] * (WORKS - 1)
    worked = [await system.enqueue("work-background", content=body, headers=TEXT) for body in bodies]
    failed = [await system.enqueue("fail-background") for _ in range(FAILS)]
    for invocation in worked:
        await system.in_state(invocation, "succeeded")
    for invocation in failed:
        await system.in_state(invocation, "dead")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    program("prometheus")  # before anything is started
    folder = tmp_path_factory.mktemp("system")
    async with System(folder, FUNCTIONS) as system:
        gateways = [await system.start_gateway() for _ in range(2)]
        for _ in range(RUNNERS):
            await system.start_runner()
        addresses = [f"127.0.0.1:{gateway.port}" for gateway in gateways]
        async with Prometheus(tmp_path_factory.mktemp("prometheus"), gateways=addresses) as prometheus:

            async def all_are_scraped() -> bool:
                wanted = {"quarterhour-gateway": 2, "quarterhour-runner": RUNNERS}
                return await prometheus.healthy_targets() == wanted

            await eventually(
                all_are_scraped, deadline_s=60, what="both gateways and both runners were scraped"
            )
            await work(system)
            yield Watched(system, prometheus)
            (folder / "gate").touch()


async def test_every_panel_shows_something(watched: Watched) -> None:
    queries = panels()
    assert len(queries) > 20
    await watched.nothing_to_complain_of(queries)


async def test_every_alert_watches_series_that_exist(watched: Watched) -> None:
    queries = await rule_queries(watched.prometheus)
    assert len(queries) > 5
    await watched.nothing_to_complain_of(queries)


async def test_the_questions_of_the_page_are_answered(watched: Watched) -> None:
    queries = list(page_queries((ROOT / "docs" / "metrics.md").read_text()))
    assert len(queries) > 5
    await watched.nothing_to_complain_of(queries)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Accepted", WORKS + FAILS + SLOWS),
        ("Succeeded", WORKS),
        ("Failed attempts", 1 + FAILS),
        ("Dead letters", FAILS),
        ("Success share", WORKS / (WORKS + 1 + FAILS)),
        ("Waiting", SLOWS - 1),
        ("Runners up", RUNNERS),
    ],
)
async def test_the_numbers_are_those_of_what_was_done(watched: Watched, title: str, expected: float) -> None:
    # Prometheus reckons on from the last scrape to now, a second of the few that there were.
    async def shown() -> bool:
        return await watched.figure(title) == pytest.approx(expected, rel=0.15)

    try:
        await eventually(shown)
    except AssertionError:
        pytest.fail(f"{title} is {await watched.figure(title)}, not {expected}")


async def test_the_oldest_waiting_gets_older(watched: Watched) -> None:
    async def oldest() -> float:
        return max(await watched.figure("Oldest waiting"), 0)  # NaN, while a scrape failed, becomes 0

    before = await eventually(oldest, what="something had waited")

    async def is_older() -> bool:
        return await watched.figure("Oldest waiting") > before

    await eventually(is_older, what="the oldest waiting invocation was older")


async def test_every_function_can_be_picked(watched: Watched) -> None:
    (variable,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "function")
    series = variable["query"].removeprefix("label_values(").removesuffix(", function)")
    names = await watched.prometheus.get("label/function/values", **{"match[]": series})
    assert {name for name in names if name} == set(FUNCTIONS)


async def test_the_alerts_of_a_failing_function_fire_and_no_other(watched: Watched) -> None:
    async def fire() -> list[dict[str, Any]] | None:
        alerts = await watched.prometheus.firing()
        names = {(alert["labels"]["alertname"], alert["labels"].get("function")) for alert in alerts}
        failing = "fail-background"
        wanted = {("QuarterhourDeadLetters", failing), ("QuarterhourAttemptsFail", failing)}
        return alerts if names == wanted else None

    alerts = await eventually(fire, deadline_s=60, what="the failing function was reported, and it alone")
    (buried,) = (one for one in alerts if one["labels"]["alertname"] == "QuarterhourDeadLetters")
    assert buried["annotations"]["summary"].startswith("fail-background gave up on ")
    assert "`quarterhour status ID`" in buried["annotations"]["description"]


def renamed_metric(target: dict[str, Any]) -> None:
    target["expr"] = target["expr"].replace("quarterhour_accepted_total", "quarterhour_acepted_total")


def no_such_label(target: dict[str, Any]) -> None:
    target["expr"] = target["expr"].replace("{function", '{mode="background",function')


def no_such_variable(target: dict[str, Any]) -> None:
    target["expr"] = target["expr"].replace("$function", "$fonction")


def no_promql(target: dict[str, Any]) -> None:
    target["expr"] += ")"


@pytest.mark.parametrize("break_it", [renamed_metric, no_such_label, no_such_variable, no_promql])
async def test_a_broken_panel_is_reported(
    watched: Watched, break_it: Callable[[dict[str, Any]], None]
) -> None:
    await watched.nothing_to_complain_of(panels())
    dashboard = copy.deepcopy(DASHBOARD)
    (panel,) = (one for one in dashboard["panels"] if one["title"] == "Accepted per second")
    break_it(panel["targets"][0])

    async def the_only_complaint() -> str | None:
        found = await complaints(watched.prometheus, panels(dashboard))
        return found[0] if len(found) == 1 else None  # of the others only if a scrape has failed just now

    complaint = await eventually(the_only_complaint, what="the broken panel was reported, and it alone")
    assert complaint is not None
    assert complaint.startswith("panel 'Accepted per second' ")


async def test_a_broken_alert_is_reported(watched: Watched) -> None:
    expression = 'sum(quarterhour_dead_letters_total{reason="lost"}) > 0 or vector(0)'
    (complaint,) = await complaints(
        watched.prometheus, [Query(place="alert 'Broken'", expression=expression, data=False)]
    )
    assert complaint == (
        "alert 'Broken' asks for series that do not exist: quarterhour_dead_letters_total{reason=\"lost\"}"
    )
