"""The faults: which there are, when each comes, to whom, for how long, and how it is made.

`plan` is pure: a seed gives one plan. `inject` carries out one fault of it, and undoes it at its end.
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psutil

from quarterhour.clock import boot_s
from tests.faults.shifted import write_offset
from tests.faults.world import GATEWAYS, RUNNERS, Member, World

__all__ = ["KINDS", "Injected", "Kind", "Planned", "inject", "plan", "victim_of"]

Target = Literal["gateway", "runner", "server"]
PARTS = ("link", "clock")  # of a member, which are hurt beside the member itself
RECOVERY_S = 2.0  # for which nobody is hurt again


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault. `leases`: how long it takes, from and to, in leases; `weight`: how often it comes."""

    target: Target
    weight: int
    leases: tuple[float, float] = (0.0, 0.0)
    only: Literal["", "single", "cluster", "disk"] = ""


SHORT, LONG, ANY = (0.05, 0.5), (1.2, 2.2), (0.05, 2.0)
KINDS: Mapping[str, Kind] = {
    "gateway SIGKILL": Kind(target="gateway", weight=4),
    "gateway SIGTERM": Kind(target="gateway", weight=3),
    "gateway SIGSTOP": Kind(target="gateway", weight=3, leases=ANY),
    "gateway link cut": Kind(target="gateway", weight=3, leases=ANY),
    "gateway link silent": Kind(target="gateway", weight=3, leases=ANY),
    "gateway link deaf": Kind(target="gateway", weight=2, leases=ANY),
    "gateway link slow": Kind(target="gateway", weight=2, leases=ANY),
    "gateway clock step": Kind(target="gateway", weight=2, leases=LONG),
    "runner SIGKILL": Kind(target="runner", weight=6),
    "runner SIGTERM": Kind(target="runner", weight=4),
    "runner SIGSTOP, short": Kind(target="runner", weight=3, leases=SHORT),
    "runner SIGSTOP, past its lease": Kind(target="runner", weight=5, leases=LONG),
    "runner link cut": Kind(target="runner", weight=4, leases=ANY),
    "runner link silent": Kind(target="runner", weight=5, leases=ANY),
    "runner link deaf": Kind(target="runner", weight=4, leases=ANY),
    "runner link slow": Kind(target="runner", weight=3, leases=ANY),
    "runner clock step": Kind(target="runner", weight=2, leases=LONG),
    "guard SIGKILL": Kind(target="runner", weight=4),
    "guard SIGTERM": Kind(target="runner", weight=2),
    "guard SIGSTOP": Kind(target="runner", weight=3, leases=ANY),
    "worker SIGKILL": Kind(target="runner", weight=5),
    "worker SIGTERM": Kind(target="runner", weight=2),
    "worker SIGSTOP": Kind(target="runner", weight=3, leases=ANY),
    "runner paused with all its own": Kind(target="runner", weight=3, leases=LONG),
    "everything SIGKILL": Kind(target="server", weight=1, leases=(0.0, 0.3)),
    "NATS SIGKILL": Kind(target="server", weight=5, leases=(0.0, 0.6)),
    "NATS SIGTERM": Kind(target="server", weight=3, leases=(0.0, 0.6)),
    "NATS SIGSTOP": Kind(target="server", weight=3, leases=ANY),
    "NATS disk full": Kind(target="server", weight=2, leases=ANY, only="disk"),
    "NATS leader SIGKILL": Kind(target="server", weight=6, leases=(0.0, 1.0), only="cluster"),
    "NATS leader steps down": Kind(target="server", weight=6, only="cluster"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault to come: `at_s` after the beginning; `number` of the victim; `size` from 0 to 1."""

    at_s: float
    kind: str
    number: int
    for_s: float
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """One fault that was made, from when until when (boot s), and the processes that it hit itself."""

    kind: str
    victim: str
    began: float
    ended: float
    pids: tuple[int, ...] = ()


def plan(
    chance: random.Random, *, seconds: float, lease_s: float, every_s: float, traits: frozenset[str]
) -> list[Planned]:
    """The faults of one run of so many seconds, one `every_s` on average.

    No victim is hurt again before it has recovered, and of the servers one at a time, so that most stay;
    a process, its link and its clock are hurt independently of each other.
    `traits`: what the world has, `single` or `cluster`, and `disk` if its disk can be filled.
    """
    kinds = {name: kind for name, kind in KINDS.items() if not kind.only or kind.only in traits}
    members = {"gateway": GATEWAYS, "runner": RUNNERS, "server": 3 if "cluster" in traits else 1}
    free_at: dict[tuple[str, int, str], float] = {}
    planned: list[Planned] = []
    now = 0.0
    while (now := now + chance.expovariate(1 / every_s)) < seconds:
        (name,) = chance.choices(list(kinds), [kind.weight for kind in kinds.values()])
        kind, size = kinds[name], chance.random()
        number = chance.randrange(members[kind.target])
        victim = victim_of(name, number)
        for_s = min(chance.uniform(*kind.leases) * lease_s, seconds - now)
        if free_at.get(victim, 0.0) <= now:
            free_at[victim] = now + for_s + RECOVERY_S
            planned.append(Planned(at_s=now, kind=name, number=number, for_s=for_s, size=size))
    return planned


def victim_of(kind: str, number: int) -> tuple[str, int, str]:
    """Whom a fault hurts: what kind of process, which of them, and what of it."""
    target = KINDS[kind].target
    part = next((part for part in PARTS if part in kind), "")
    return target, 0 if target == "server" else number, part


async def inject(world: World, one: Planned) -> Injected | None:
    """Make a fault and undo it in time; None if there was nobody to be hurt."""
    began = boot_s()
    who, _, what = one.kind.partition(" ")
    if who == "everything":
        victim, pids = "everything", await _end_everything(world, one)
    elif who == "NATS":
        victim, pids = f"NATS-{one.number}", await _hurt_server(world, what, one)
    else:
        member = (world.gateways if who == "gateway" else world.runners)[one.number]
        victim, pids = member.name, await _hurt_member(world, member, who, what, one)
    if pids is None:
        return None
    return Injected(kind=one.kind, victim=victim, began=began, ended=boot_s(), pids=tuple(pids))


Pids = list[int] | None


async def _hurt_member(world: World, member: Member, who: str, what: str, one: Planned) -> Pids:
    match what.partition(",")[0]:
        case "link cut" | "link silent" | "link deaf" | "link slow":
            return await _hinder(member, what, one)
        case "clock step":
            return await _put_clock_wrong(member, one)
        case "paused with all its own":
            return await _stop(world, _family(member), one)
        case "SIGSTOP":
            return await _stop(world, _targets(member, who, one), one)
        case name:
            return _send(_targets(member, who, one), signal.Signals[name])


def _targets(member: Member, who: str, one: Planned) -> list[psutil.Process]:
    """Those that are to be hurt: the member itself, its guard, or one of its workers."""
    if who in {"gateway", "runner"}:
        process = member.process()
        return [process] if process is not None else []
    found = member.guards() if who == "guard" else member.workers()
    return [found[int(one.size * len(found))]] if found else []


def _family(member: Member) -> list[psutil.Process]:
    process = member.process()
    # Workers first: one that is not yet stopped would see its own stop and hand its work back.
    return [*member.workers(), *member.guards(), process] if process is not None else []


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> Pids:
    hit = []
    for process in processes:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.send_signal(number)
            hit.append(process.pid)
    return hit or None


async def _stop(world: World, processes: Sequence[psutil.Process], one: Planned) -> Pids:
    hit = _send(processes, signal.SIGSTOP)
    try:
        await asyncio.sleep(one.for_s if hit else 0)
    finally:
        world.clean_up(hit or [])
    return hit


async def _hinder(member: Member, what: str, one: Planned) -> Pids:
    link = member.link
    hinder: Callable[[], None] = {
        "link cut": link.cut,
        "link silent": link.block,
        "link deaf": link.deafen,
        "link slow": lambda: link.slow(0.01 + 0.3 * one.size**2),
    }[what]
    hinder()
    try:
        await asyncio.sleep(one.for_s)
    finally:
        link.heal()
    return []


async def _put_clock_wrong(member: Member, one: Planned) -> Pids:
    write_offset(member.clock, 40.0 * (one.size - 0.5))
    try:
        await asyncio.sleep(one.for_s)
    finally:
        write_offset(member.clock, 0.0)
    return []


async def _hurt_server(world: World, what: str, one: Planned) -> Pids:
    if what == "leader steps down":
        return await _step_down(world, one)
    number = one.number
    if what == "leader SIGKILL" and world.cluster is not None:
        leader = await world.cluster.leader("quarterhour")
        if leader is None:
            return None
        number = world.cluster.servers.index(leader)
    server = world.servers[number]
    if not server.running:
        return None
    pid = server.pid
    make: dict[str, Callable[[], Awaitable[None]]] = {
        "SIGSTOP": lambda: _stop_server(world, pid, one),
        "SIGTERM": lambda: _end_server(world, number, one, clean=True),
        "SIGKILL": lambda: _end_server(world, number, one, clean=False),
        "leader SIGKILL": lambda: _end_server(world, number, one, clean=False),
        "disk full": lambda: _fill_disk(world, number, one),
    }
    await make[what]()
    return [pid]


async def _stop_server(world: World, pid: int, one: Planned) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(one.for_s)
    finally:
        world.clean_up([pid])


async def _end_server(world: World, number: int, one: Planned, *, clean: bool) -> None:
    try:
        await world.end_server(number, clean=clean)
        await asyncio.sleep(one.for_s)
    finally:
        await world.start_server(number)


async def _end_everything(world: World, one: Planned) -> Pids:
    """As when the power fails, but for what the disk itself would lose."""
    processes = [process for member in world.members if (process := member.process()) is not None]
    hit = _send(processes, signal.SIGKILL) or []
    async with asyncio.TaskGroup() as group:
        for number in range(len(world.servers)):
            group.create_task(_end_server(world, number, one, clean=False))
    return hit


async def _step_down(world: World, one: Planned) -> Pids:
    if world.cluster is None:
        return None
    consumer = "fn-slow-background" if one.size < 0.5 else ""
    return [] if await world.cluster.step_down("quarterhour", consumer) else None


async def _fill_disk(world: World, number: int, one: Planned) -> None:
    """Fill NATS's disk, free it again; and start NATS anew, as an operator has to: it stores no more."""
    await asyncio.to_thread(world.fill_disk)
    try:
        await asyncio.sleep(one.for_s)
    finally:
        world.free_disk()
        await _end_server(world, number, one, clean=one.size < 0.5)
