"""One run: a world, load, the faults of a seed, rest, and the books."""

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from quarterhour.clock import boot_s
from quarterhour.processes import background
from tests.faults import survey
from tests.faults.books import Books, accepted_equals_ended, nothing_grows, nothing_is_leased, read_ledger
from tests.faults.faults import Injected, Planned, inject, plan
from tests.faults.functions import FUNCTIONS
from tests.faults.load import Load
from tests.faults.world import World
from tests.waiting import whole_lines

__all__ = ["Options", "Progress", "run"]

CALM_S = 2.0  # of load before the first fault, and after the last
CALM_INVOCATIONS = 40
REST_S = 120.0
LOOK_AGAIN_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`seconds`: of faults; a fault `every_s` on average; `per_second`: requests."""

    seed: int
    seconds: float
    clustered: bool = False
    lease_s: float = 3.0
    every_s: float = 1.0
    per_second: float = 25.0


@dataclass
class Progress:
    """How far a run is."""

    what: str = "starting"
    load: Load | None = None
    faults: list[Injected] = field(default_factory=list)


async def run(options: Options, folder: Path, progress: Progress, *, disk: Path | None = None) -> Books:
    """Make the faults of a seed; what there is to be checked."""
    chance = random.Random(options.seed)
    async with World(
        folder, clustered=options.clustered, lease_s=options.lease_s, chance=chance, disk=disk
    ) as world:
        async with background(world.supervise()), httpx.AsyncClient(timeout=15, trust_env=False) as http:
            load = await _hurt(options, world, progress)
            progress.what = "waiting for rest"
            books = await _collect(world, http, load, progress)
        progress.what = "ending"
        return replace(
            books,
            left=await world.end_members(),
            events=survey.events(folder),
        )


async def _hurt(options: Options, world: World, progress: Progress) -> Load:
    """Load, and faults in the midst of it."""
    load = Load(
        urls=[gateway.url for gateway in world.gateways],
        per_second=options.per_second,
        chance=random.Random(options.seed),
    )
    planned = plan(
        random.Random(options.seed),
        seconds=options.seconds,
        lease_s=options.lease_s,
        every_s=options.every_s,
        traits=world.traits,
    )
    progress.load, progress.what = load, "making faults"
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(began + options.seconds + 2 * CALM_S))
        for one in planned:
            group.create_task(_inject(world, one, began + CALM_S, progress))
    world.heal()
    return load


async def _inject(world: World, one: Planned, began: float, progress: Progress) -> None:
    await asyncio.sleep(max(0.0, began + one.at_s - time.monotonic()))
    injected = await inject(world, one)
    if injected is not None:
        progress.faults.append(injected)


async def _collect(world: World, http: httpx.AsyncClient, load: Load, progress: Progress) -> Books:
    healed_at, accepted = boot_s(), list(load.accepted)
    await world.all_ready()
    ready_after_s = boot_s() - healed_at
    statuses = await survey.at_rest(http, world, (one.id for one in accepted), deadline_s=REST_S)
    rest_after_s = boot_s() - healed_at
    calm = await _calm(world, http, load, statuses)
    # What was accepted unseen, and what schedules have made: it is known by its record or its runs.
    runs, looked_at = read_ledger("\n".join(whole_lines(world.ledger))), boot_s()
    others = await survey.recorded_ids(world) | {run.id for run in runs if FUNCTIONS[run.function].has_queue}
    statuses |= await survey.at_rest(http, world, others - statuses.keys(), deadline_s=REST_S)
    runs = read_ledger("\n".join(whole_lines(world.ledger)))
    books = Books(
        accepted=load.accepted,
        not_known=load.not_known,
        statuses=statuses,
        # Schedules go on meanwhile: what began after we looked is no part of it.
        runs=[run for run in runs if run.began < looked_at or run.id in statuses],
        faults=progress.faults,
        broker=await survey.broker_state(world),
        gauges=await survey.gauges(http, world),
        calm=calm,
        ends=load.ends,
        answers=load.answers,
        cancels=load.cancels,
        lease_s=world.lease_s,
        ready_after_s=ready_after_s,
        rest_after_s=rest_after_s,
    )
    return await _settled_down(world, http, books)


async def _settled_down(world: World, http: httpx.AsyncClient, books: Books) -> Books:
    """The books once nothing of what passes by itself is wrong any more: queues are trimmed, gauges read."""
    passing = (nothing_is_leased, nothing_grows, accepted_equals_ended)
    ends_at = time.monotonic() + LOOK_AGAIN_S
    while any(list(check(books)) for check in passing) and time.monotonic() < ends_at:
        await asyncio.sleep(0.5)
        broker, gauges = await survey.broker_state(world), await survey.gauges(http, world)
        books = replace(books, broker=broker, gauges=gauges)
    return books


async def _calm(
    world: World, http: httpx.AsyncClient, load: Load, statuses: dict[str, dict[str, Any]]
) -> dict[str, float]:
    """Some more invocations while nobody is hurt; by how much the counters of the metrics rose."""
    await survey.quiet(world, deadline_s=REST_S)  # what was accepted unseen ends as well, and is counted
    before = await survey.counters(http, world)
    made = await load.some(http, CALM_INVOCATIONS)
    statuses |= await survey.at_rest(http, world, made, deadline_s=REST_S)
    await survey.quiet(world, deadline_s=REST_S)
    after = await survey.counters(http, world)
    return {"made": len(made)} | {name: value - before.get(name, 0) for name, value in after.items()}
