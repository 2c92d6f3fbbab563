"""The crash matrix of docs/architecture.md, a test for each row: real processes, SIGKILLs, a real NATS."""

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from nats.aio.msg import Msg

from tests.broker.nats_inside import look_inside
from tests.process.matrix import Matrix
from tests.system import Process, descendants, parent
from tests.waiting import eventually

LEASE_S = 3.0  # where a test waits for the end of one
# Elsewhere nothing is to be lost because the machine has stood still for a while.
long_lease = pytest.mark.parametrize("lease_s", [60.0], ids=["a long lease"])


@pytest.fixture
def lease_s() -> float:
    return LEASE_S


@pytest.fixture
async def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lease_s: float) -> AsyncIterator[Matrix]:
    monkeypatch.setenv("BOOK", "")
    async with Matrix(tmp_path, lease_s) as system:
        await system.start_gateway()
        yield system


@asynccontextmanager
async def crashing_gateway(matrix: Matrix, point: str) -> AsyncIterator[Process]:
    """A gateway that dies at `point`, in front of `matrix`, whose own gateway is there again afterwards."""
    own = matrix.gateway
    try:
        yield await matrix.start_gateway(script=("-m", "tests.process.crashing", point))
    finally:
        matrix.gateway = own


# Accept


@long_lease
async def test_gateway_killed_before_publish(matrix: Matrix) -> None:
    await matrix.runner()
    async with crashing_gateway(matrix, "before_publish") as gateway:
        with pytest.raises(httpx.TransportError):
            await matrix.work()
        assert await gateway.ended() == -signal.SIGKILL
    invocation = await matrix.work()  # one that comes later is accepted, and is the only one that runs
    await matrix.succeeded(invocation)
    assert [line.id for line in matrix.book("begin")] == [invocation]


@long_lease
async def test_gateway_killed_before_ack(matrix: Matrix) -> None:
    await matrix.runner()
    async with crashing_gateway(matrix, "before_answer") as gateway:
        with pytest.raises(httpx.TransportError):
            await matrix.work()
        assert await gateway.ended() == -signal.SIGKILL
    (line,) = await matrix.begun()
    await matrix.succeeded(line.id)


async def test_broker_killed_while_accepting(matrix: Matrix) -> None:
    await matrix.runner()
    answers: list[httpx.Response] = []

    async def post() -> None:
        while len(answers) < 40 or answers[-1].status_code != 503:
            started = asyncio.get_running_loop().time()
            answers.append(await matrix.post("work-background", json={}))
            assert asyncio.get_running_loop().time() - started < 15  # nobody is left hanging

    async def kill() -> None:
        await eventually(lambda: len(answers) >= 20)
        await asyncio.to_thread(matrix.nats.kill)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(post())
        group.create_task(kill())
    assert {answer.status_code for answer in answers} == {202, 503}
    assert all(
        answer.json()["code"] == "broker_unavailable" for answer in answers if answer.status_code == 503
    )
    await asyncio.to_thread(matrix.nats.start)
    for answer in answers:
        if answer.status_code == 202:
            await matrix.succeeded(answer.headers["x-nf-request-id"])


@long_lease
async def test_client_gone_before_202(matrix: Matrix) -> None:
    await matrix.runner()
    assert matrix.gateway is not None
    request = b"POST /.netlify/functions/work-background HTTP/1.1\r\nHost: x\r\n"
    request += b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", matrix.gateway.port)) as client:
        client.sendall(request)
    (line,) = await matrix.begun()
    await matrix.succeeded(line.id)


@long_lease
async def test_broker_killed_after_202(matrix: Matrix) -> None:
    await matrix.announce()
    invocation = await matrix.work()
    await asyncio.to_thread(matrix.nats.kill)
    await asyncio.to_thread(matrix.nats.start)
    await matrix.runner()
    await matrix.succeeded(invocation)


# Start


async def test_runner_killed_before_handler(matrix: Matrix) -> None:
    crashing = await matrix.runner(point="before_handler")
    invocation = await matrix.work()
    assert await crashing.ended() == -signal.SIGKILL
    assert not matrix.book("begin")
    await matrix.runner()
    await matrix.succeeded(invocation)


@long_lease
async def test_runner_killed_in_handler(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(waits=True)
    (begin,) = await matrix.begun()
    matrix.remember(first)
    await first.kill()
    await eventually(
        lambda: not Path(f"/proc/{begin.pid}").exists(), deadline_s=15, what="its worker was gone"
    )
    await matrix.runner()
    await _deliver_again(matrix, "work-background")  # long before the lease is over
    await matrix.begun(2)
    matrix.end_what_waits()
    await matrix.succeeded(invocation)
    assert [line.attempt for line in matrix.book("begin")] == [1, 1]
    _never_overlap(matrix)


@long_lease
async def test_guard_killed(matrix: Matrix) -> None:
    await matrix.runner()
    invocation = await matrix.work(waits=True)
    (begin,) = await matrix.begun()
    os.kill(parent(begin.pid), signal.SIGKILL)
    await matrix.begun(2)
    matrix.end_what_waits()
    await matrix.succeeded(invocation)
    assert [line.attempt for line in matrix.book("begin")] == [1, 1]
    _never_overlap(matrix)


@long_lease
async def test_worker_killed(matrix: Matrix) -> None:
    await matrix.runner()
    invocation = await matrix.work(waits=True)
    (begin,) = await matrix.begun()
    os.kill(begin.pid, signal.SIGKILL)
    matrix.end_what_waits()
    status = await matrix.in_state(invocation, "succeeded", "dead")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["crashed", "succeeded"]
    assert "SIGKILL" in status["attempts"][0]["error"]["message"]


@long_lease
async def test_broker_restart_while_running(matrix: Matrix) -> None:
    await matrix.runner("--slots", "1")  # busy, so that the other one gets the second delivery
    invocation = await matrix.enqueue("neighbour-background")
    await matrix.begun()
    other = await matrix.runner()
    await asyncio.to_thread(matrix.nats.kill)
    _forget_deliveries(matrix)
    await asyncio.to_thread(matrix.nats.start)
    await eventually(lambda: other.facts("runs_elsewhere"), what="the other runner had asked who runs it")
    matrix.end_what_waits()
    await matrix.succeeded(invocation)
    assert len(matrix.book("begin")) == 1


def _forget_deliveries(matrix: Matrix) -> None:
    """What NATS itself forgets of the last moments before a crash, and here for certain and altogether."""
    states = list((matrix.nats.folder / "jetstream").rglob("fn-*/o.dat"))
    assert states, "NATS keeps its deliveries elsewhere now"
    for state in states:
        state.unlink()


@long_lease
async def test_late_hand_back_of_another_delivery(matrix: Matrix) -> None:
    await matrix.runner("--slots", "1")  # busy, so that the other one gets the second delivery
    invocation = await matrix.enqueue("neighbour-background")
    await matrix.begun()
    other = await matrix.runner()
    await _deliver_again(matrix, "neighbour-background")
    await eventually(lambda: other.facts("runs_elsewhere"), what="the other runner had asked who runs it")
    matrix.end_what_waits()
    await matrix.succeeded(invocation)
    assert len(matrix.book("begin")) == 1


async def _deliver_again(matrix: Matrix, function: str) -> None:
    """Hand back what was delivered last, as if who has it did."""
    async with look_inside(matrix.nats.url, "quarterhour") as inside:
        delivered = (await inside.queue(function))["delivered"]
        which = f"1.{delivered['stream_seq']}.{delivered['consumer_seq']}.0.0"
        await inside.client.publish(f"$JS.ACK.quarterhour.fn-{function}.{which}", b"-NAK")
        await inside.client.flush()


async def test_runner_stopped_past_its_lease(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(waits=True)
    (begin,) = await matrix.begun()
    matrix.remember(first)
    first.send(signal.SIGSTOP)
    await matrix.runner()
    await matrix.begun(2)
    first.send(signal.SIGCONT)
    matrix.end_what_waits()
    await matrix.succeeded(invocation)
    assert begin.pid not in descendants(first.pid)
    _never_overlap(matrix)


# Of a cancel that nobody has told it of, a runner hears when it renews the lease.
@pytest.mark.parametrize("lease_s", [6.0], ids=["a longer lease"])
async def test_gateway_killed_while_cancelling(matrix: Matrix) -> None:
    await matrix.runner("--slots", "1")
    running = await matrix.work(waits=True)
    await matrix.begun()
    waiting = await matrix.work()
    for id in (waiting, running):
        async with crashing_gateway(matrix, "while_cancelling") as gateway:
            with pytest.raises(httpx.TransportError):
                await matrix.cancel(id)
            assert await gateway.ended() == -signal.SIGKILL
        await matrix.in_state(id, "cancelled")
    wanted = await matrix.work()  # for which there is a slot when the running one has ended
    await matrix.succeeded(wanted)
    assert [line.id for line in matrix.book("begin")] == [running, wanted]
    recorded = await eventually(lambda: _attempts(matrix, running), what="the attempt is recorded")
    assert [attempt["outcome"] for attempt in recorded] == ["cancelled"]


async def _attempts(matrix: Matrix, invocation: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await matrix.status(invocation)).get("attempts", [])
    return found


# Of a lease six have to end; but none by itself, on a machine that stalls.
@pytest.mark.parametrize("lease_s", [5.0], ids=["a short lease"])
async def test_poison_is_buried_as_runner_lost(matrix: Matrix) -> None:
    await matrix.announce()
    poison = await matrix.enqueue("poison-background")
    neighbours = {await matrix.enqueue("neighbour-background") for _ in range(15)}
    for crash in range(6):  # the first delivery leaves no note; five more do
        before = len(matrix.book("begin"))
        runner = await matrix.runner("--slots", "16")
        # As soon as they are suspects, each runs alone, and the others wait for their turn.
        together = {poison} | neighbours if crash < 3 else {poison}
        await eventually(
            lambda: together <= {line.id for line in matrix.book("begin")[before:]},  # noqa: B023
            what=f"the poison ran beside its neighbours before crash {crash}",
        )
        matrix.remember(runner)
        await runner.kill()
        if crash == 2:
            matrix.end_what_waits()
    await matrix.runner("--slots", "16")
    status = await matrix.in_state(poison, "dead")
    assert (status["reason"], status["attempts"]) == ("runner_lost", [])
    await eventually(
        lambda: matrix.metric("quarterhour_dead_letters_total", reason="runner_lost"), what="it was counted"
    )
    assert await matrix.metric("quarterhour_dead_letters_total", reason="runner_lost") == 1
    for neighbour in neighbours:
        await matrix.succeeded(neighbour)


async def test_runner_killed_while_handing_back(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(waits=True)
    await matrix.begun()
    matrix.remember(first)
    await first.kill()  # so that the second delivery writes a start note
    second = await matrix.runner("--drain", "0", point="while_handing_back")
    await matrix.begun(2)
    matrix.remember(second)
    second.send(signal.SIGTERM)
    assert await second.ended() == -signal.SIGKILL
    matrix.end_what_waits()
    await matrix.runner()
    await matrix.succeeded(invocation)
    _never_overlap(matrix)


# Settle


async def test_runner_killed_before_record(matrix: Matrix) -> None:
    crashing = await matrix.runner(point="before_record")
    invocation = await matrix.work()
    assert await crashing.ended() == -signal.SIGKILL
    await matrix.runner()
    await matrix.succeeded(invocation)
    assert [line.attempt for line in matrix.book("begin")] == [1, 1]


async def test_runner_killed_after_a_cancel(matrix: Matrix) -> None:
    crashing = await matrix.runner(point="before_record")
    cancelled = await matrix.work(waits=True)
    await matrix.begun()
    matrix.remember(crashing)
    assert (await matrix.cancel(cancelled)).status_code == 200
    assert await crashing.ended() == -signal.SIGKILL
    await matrix.runner()
    async with look_inside(matrix.nats.url, "quarterhour") as inside:

        async def lease_has_ended() -> bool:
            return bool((await inside.queue("work-background"))["num_ack_pending"] == 0)

        await eventually(lease_has_ended, what="the moment had come to deliver it again")
    wanted = await matrix.work()
    await matrix.succeeded(wanted)
    assert [line.id for line in matrix.book("begin")] == [cancelled, wanted]
    status = await matrix.status(cancelled)
    assert (status["state"], status["attempts"]) == ("cancelled", [])


async def test_runner_killed_before_ack(matrix: Matrix) -> None:
    crashing = await matrix.runner(point="before_ack")
    invocation = await matrix.work()
    assert await crashing.ended() == -signal.SIGKILL
    await matrix.runner()
    await _taken_off_the_queue(matrix)
    await matrix.succeeded(invocation)
    assert len(matrix.book("begin")) == 1


@long_lease
async def test_broker_killed_while_settling(matrix: Matrix) -> None:
    await matrix.runner(point="marked_settle")
    invocation = await matrix.work(failures=1)
    await eventually((matrix.folder / "mark").exists)
    await asyncio.to_thread(matrix.nats.kill)
    await asyncio.to_thread(matrix.nats.start)
    await matrix.succeeded(invocation, attempts=2)
    assert [line.attempt for line in matrix.book("begin")] == [1, 2]


async def test_lost_ack(matrix: Matrix) -> None:
    await matrix.runner(point="lost_ack")
    invocation = await matrix.work()
    await matrix.succeeded(invocation)
    await _taken_off_the_queue(matrix)
    assert len(matrix.book("begin")) == 1


async def test_second_outcome_is_refused(matrix: Matrix) -> None:
    late = await matrix.runner(point="late_settle")
    invocation = await matrix.work()
    await eventually((matrix.folder / "mark").exists)
    await matrix.runner()
    await matrix.succeeded(invocation)
    (matrix.folder / "go").touch()
    await eventually(lambda: late.facts("outcome_refused"), what="the late outcome was refused")
    await eventually(
        lambda: matrix.metric("quarterhour_outcomes_refused_total", function="work-background"),
        what="the refusal was counted",
    )
    await matrix.succeeded(invocation)
    await eventually(
        lambda: matrix.metric("quarterhour_outcomes_total", result="succeeded"),
        what="its success was counted",
    )
    assert await matrix.metric("quarterhour_outcomes_total", result="succeeded") == 1


@long_lease
async def test_retry_fires_twice(matrix: Matrix) -> None:
    await matrix.runner()
    client = await nats.connect(matrix.nats.url)
    fired: list[Msg] = []

    async def hear(message: Msg) -> None:
        fired.append(message)

    try:
        await client.subscribe("quarterhour.s.retry.>", cb=hear)
        await client.flush()
        invocation = await matrix.work(failures=1)
        await eventually(lambda: fired, what="the retry was scheduled")
        await matrix.succeeded(invocation, attempts=2)
        # What a forgetful server would do.
        await client.jetstream().publish(f"quarterhour.q.work-background.{invocation}.2", fired[0].data)
    finally:
        await client.close()
    await _taken_off_the_queue(matrix)
    await matrix.succeeded(invocation, attempts=2)
    assert [line.attempt for line in matrix.book("begin")] == [1, 2]


# And the broker has forgotten who had what, and what was acknowledged


async def test_the_right_end_is_found_after_the_broker_has_forgotten(matrix: Matrix) -> None:
    points = {"before_handler": 1, "before_record": 2, "before_ack": 1, "lost_ack": 1}
    names = {point: f"{point.replace('_', '-')}-background" for point in points}
    runners = dict(
        zip(
            points,
            await asyncio.gather(
                *(matrix.runner(*matrix.only(name), point=point) for point, name in names.items())
            ),
            strict=True,
        )
    )
    ids = {point: await matrix.enqueue(name, json={}) for point, name in names.items()}
    retried = await matrix.enqueue(names["lost_ack"], json={"failures": 1})
    for point, runner in runners.items():
        if point != "lost_ack":
            assert await runner.ended() == -signal.SIGKILL
    await matrix.succeeded(ids["lost_ack"])
    await matrix.succeeded(retried, attempts=2)
    await runners["lost_ack"].kill()
    await asyncio.to_thread(matrix.nats.kill)
    _forget_deliveries(matrix)
    await asyncio.to_thread(matrix.nats.start)
    await matrix.runner()
    for id in ids.values():
        await matrix.succeeded(id)
    await matrix.succeeded(retried, attempts=2)
    for name in names.values():
        await _taken_off_the_queue(matrix, name)
    begun = Counter(line.id for line in matrix.book("begin"))
    assert begun == {**{ids[point]: runs for point, runs in points.items()}, retried: 2}


async def _taken_off_the_queue(matrix: Matrix, function: str = "work-background") -> None:
    """Wait until nothing waits or is leased any more."""
    async with look_inside(matrix.nats.url, "quarterhour") as inside:

        async def empty() -> bool:
            queue = await inside.queue(function)
            return not queue["num_pending"] and not queue["num_ack_pending"]

        await eventually(empty, what="the delivery was acknowledged")


def _never_overlap(matrix: Matrix) -> None:
    """No run of an invocation began before the one before it had given its last sign of life."""
    lines = matrix.book("begin", "alive", "end")
    for begin in (line for line in lines if line.what == "begin"):
        for other in lines:
            if other.id == begin.id and other.pid != begin.pid:
                others = [line.at for line in lines if line.pid == other.pid and line.id == other.id]
                assert begin.at > max(others) or begin.at <= min(others)
