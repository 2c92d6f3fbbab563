"""Looking around when the faults are over: waiting for rest, and collecting what the books are made of."""

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from quarterhour.lifecycle import FINAL
from tests.faults.books import BrokerState
from tests.faults.world import World
from tests.nats_cluster import ask, connected
from tests.waiting import whole_lines

__all__ = ["at_rest", "broker_state", "counters", "events", "gauges", "quiet", "recorded_ids", "statuses"]

STREAM = "quarterhour"
ASKED_AT_ONCE = 16
PAGE = 100_000
GAUGES = ("quarterhour_waiting", "quarterhour_delayed", "quarterhour_running")
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


async def statuses(http: httpx.AsyncClient, world: World, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """What a gateway says of each; those of whom it knows nothing are missing."""
    places = asyncio.Semaphore(ASKED_AT_ONCE)
    url = world.gateways[0].url

    async def status(id: str) -> tuple[str, dict[str, Any]]:
        async with places:
            try:
                answer = await http.get(f"{url}/v1/invocations/{id}")
            except httpx.TransportError:
                return id, {}
            return id, answer.json() if answer.status_code == 200 else {}

    return {id: found for id, found in await asyncio.gather(*map(status, ids)) if found}


async def at_rest(
    http: httpx.AsyncClient, world: World, ids: Iterable[str], *, deadline_s: float
) -> dict[str, dict[str, Any]]:
    """The statuses once all are final; after `deadline_s` as they are then."""
    left = set(ids)
    found: dict[str, dict[str, Any]] = {}
    ends_at = asyncio.get_running_loop().time() + deadline_s
    while left and asyncio.get_running_loop().time() < ends_at:
        found |= await statuses(http, world, left)
        left = {id for id in left if found.get(id, {}).get("state") not in FINAL}
        await asyncio.sleep(0.5 if left else 0)
    return found


async def quiet(world: World, *, deadline_s: float) -> None:
    """Return when no background work waits, is delayed or is leased, or after `deadline_s`.

    A runner acknowledges what it has settled and counts it in the same breath: so all is counted then.
    """
    is_quiet = False
    ends_at = asyncio.get_running_loop().time() + deadline_s
    while not is_quiet and asyncio.get_running_loop().time() < ends_at:
        is_quiet = _is_quiet(await broker_state(world))
        await asyncio.sleep(0 if is_quiet else 0.1)


def _is_quiet(broker: BrokerState) -> bool:
    queues = [counts for name, counts in broker.consumers.items() if name.endswith("-background")]
    return not any(map(any, queues)) and not broker.subjects.keys() & {"s.retry", "s.delay"}


async def recorded_ids(world: World) -> set[str]:
    """The ids of everything that has a record or is on a queue."""
    return {subject.split(".")[3] for subject in await _subjects(world) if subject.split(".")[1] in "qr"}


async def _subjects(world: World) -> dict[str, int]:
    async with connected(world.url) as client:
        found: dict[str, int] = {}
        while True:
            body = {"subjects_filter": ">", "offset": len(found)}
            page = (await ask(client, f"STREAM.INFO.{STREAM}", body)).get("state", {}).get("subjects")
            if not page:
                return found
            found |= page


async def broker_state(world: World) -> BrokerState:
    """What NATS holds now."""
    subjects: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for subject in await _subjects(world):
        _, kind, *rest = subject.split(".")
        if kind == "s" or rest[0] == "_server":
            kind = f"{kind}.{rest.pop(0)}"
        subjects[kind][rest[0] if kind != "s.retry" else ""] += 1
    async with connected(world.url) as client:
        infos = (await ask(client, f"CONSUMER.LIST.{STREAM}"))["consumers"] or []
    consumers = {info["name"]: (info["num_pending"], info["num_ack_pending"]) for info in infos}
    deliveries = sum(info["delivered"]["consumer_seq"] for info in infos if info["name"].startswith("fn-"))
    return BrokerState(subjects=subjects, consumers=consumers, deliveries=deliveries)


async def gauges(http: httpx.AsyncClient, world: World) -> dict[str, float]:
    """Every gauge of waiting, delayed and running work, by process; schedules that fire are left out."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, page in (await _pages(http, world)).items():
        for metric, labels, value in _SAMPLE.findall(page):
            if metric in GAUGES and 'function="tick"' not in labels:
                found[f"{metric} of {name}"] += float(value)
    return dict(found)


async def counters(http: httpx.AsyncClient, world: World) -> dict[str, float]:
    """What the metrics of all processes say of background invocations: accepted, succeeded, dead."""
    found: defaultdict[str, float] = defaultdict(float)
    for page in (await _pages(http, world)).values():
        for metric, labels, value in _SAMPLE.findall(page):
            if metric == "quarterhour_accepted_total":
                found["accepted"] += float(value)
            elif metric == "quarterhour_dead_letters_total" and "-background" in labels:
                found["dead"] += float(value)
            elif metric == "quarterhour_outcomes_total" and 'mode="background",result="succeeded"' in labels:
                found["succeeded"] += float(value)
    return dict(found)


async def _pages(http: httpx.AsyncClient, world: World) -> dict[str, str]:
    urls = {gateway.name: f"{gateway.url}/metrics" for gateway in world.gateways}
    targets = (await http.get(f"{world.gateways[0].url}/v1/runners/targets")).json()
    urls |= {each["labels"]["runner"]: f"http://{each['targets'][0]}/metrics" for each in targets}
    return {name: (await http.get(url)).text for name, url in urls.items()}


def events(folder: Path) -> Mapping[str, int]:
    """How often each fact is in the logs; `Traceback` counts the lines that begin one."""
    found: Counter[str] = Counter()
    for log in folder.glob("*-*.log"):
        for line in whole_lines(log):
            if line.startswith("{"):
                fact = json.loads(line)
                found[fact["event"]] += 1
            elif line.startswith("Traceback"):
                found["Traceback"] += 1
    return found
