"""The crash matrix of docs/architecture.md, a test for each row: real processes, real SIGKILLs, a real NATS.

Functions write what they do to a file, line by line; a line says who ran, when, and which attempt.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nats
import pytest
from nats.aio.msg import Msg

from tests.system import Process, System, descendants, parent
from tests.waiting import eventually

LEASE_S = 2.0

# `work` does what its body says: seconds to take, and how often to fail first.
WORK = """
    import json, os, time

    config = {"retry_delay": 0.2}

    def say(what, context):
        line = json.dumps({"what": what, "id": context.aws_request_id, "attempt": context.attempt,
                           "pid": os.getpid(), "at": time.time()})
        file = os.open(os.environ["BOOK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode() + b"\\n")
        os.close(file)

    def handler(event, context):
        task = json.loads(event["body"] or "{}")
        say("begin", context)
        ends_at = time.time() + task.get("seconds", 0)
        while time.time() < ends_at:
            time.sleep(0.02)
            say("alive", context)
        if context.attempt <= task.get("failures", 0):
            raise ValueError("as asked")
        say("end", context)
"""

# Kills the runner that it runs on: the parent of its guard.
POISON = """
    import os, signal

    def handler(event, context):
        with open(f"/proc/{os.getppid()}/stat") as stat:
            runner = int(stat.read().rpartition(")")[2].split()[1])
        os.kill(runner, signal.SIGKILL)
        signal.pause()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the book."""

    what: str
    id: str
    attempt: int
    pid: int
    at: float


class Matrix(System):
    """A system whose functions write into a book."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"work-background": WORK, "poison-background": POISON}, lease_s=LEASE_S)
        self.book_path = folder / "book"
        os.environ["BOOK"] = str(self.book_path)

    def book(self, *what: str) -> list[Line]:
        """The lines so far, of these kinds."""
        if not self.book_path.exists():
            return []
        lines = [Line(**json.loads(line)) for line in self.book_path.read_text().splitlines()]
        return [line for line in lines if line.what in what]

    async def runner(self, *flags: str, point: str | None = None) -> Process:
        """Start a runner, one that is hindered at `point` if that is given."""
        script = ("-m", "tests.process.crashing", point) if point else ("-m", "quarterhour")
        return await self.start_runner("--function-environment", "BOOK", *flags, script=script)

    async def announce(self) -> None:
        """Make the functions known, without anybody there to run them."""
        runner = await self.runner()
        runner.send(signal.SIGTERM)
        assert await runner.ended() == 0

    async def work(self, **task: float) -> str:
        """Accept an invocation of `work`."""
        return await self.enqueue("work-background", json=task)

    async def begun(self, count: int = 1) -> list[Line]:
        """Wait until the handler has begun so often."""
        return await eventually(
            lambda: begun if len(begun := self.book("begin")) >= count else None,
            deadline_s=20,
            what=f"the handler had begun {count} times",
        )

    async def succeeded(self, invocation: str, *, attempts: int = 1) -> None:
        """Wait for its success, after so many attempts, each recorded once."""
        status = await self.in_state(invocation, "succeeded", "dead", deadline_s=30)
        outcomes = [attempt["outcome"] for attempt in status["attempts"]]
        assert outcomes == ["failed"] * (attempts - 1) + ["succeeded"], status
        assert [attempt["attempt"] for attempt in status["attempts"]] == list(range(1, attempts + 1))


@pytest.fixture
async def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matrix]:
    monkeypatch.setenv("BOOK", "")
    async with Matrix(tmp_path) as system:
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


async def test_gateway_killed_before_publish(matrix: Matrix) -> None:
    await matrix.runner()
    async with crashing_gateway(matrix, "before_publish") as gateway:
        with pytest.raises(httpx.TransportError):
            await matrix.work()
        assert await gateway.ended() == -signal.SIGKILL
    invocation = await matrix.work()  # one that comes later is accepted, and is the only one that runs
    await matrix.succeeded(invocation)
    assert [line.id for line in matrix.book("begin")] == [invocation]


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
            assert asyncio.get_running_loop().time() - started < 5

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


async def test_client_gone_before_202(matrix: Matrix) -> None:
    await matrix.runner()
    assert matrix.gateway is not None
    request = b"POST /.netlify/functions/work-background HTTP/1.1\r\nHost: x\r\n"
    request += b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", matrix.gateway.port)) as client:
        client.sendall(request)
    (line,) = await matrix.begun()
    await matrix.succeeded(line.id)


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


async def test_runner_killed_in_handler(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(seconds=1.5)
    (begin,) = await matrix.begun()
    matrix.remember(first)
    await first.kill()
    await eventually(
        lambda: not Path(f"/proc/{begin.pid}").exists(), deadline_s=1, what="its worker was gone"
    )
    await matrix.runner()
    await matrix.succeeded(invocation)
    assert [line.attempt for line in matrix.book("begin")] == [1, 1]
    _never_overlap(matrix)


async def test_guard_killed(matrix: Matrix) -> None:
    await matrix.runner()
    invocation = await matrix.work(seconds=1.5)
    (begin,) = await matrix.begun()
    os.kill(parent(begin.pid), signal.SIGKILL)
    await matrix.succeeded(invocation)
    assert [line.attempt for line in matrix.book("begin")] == [1, 1]
    _never_overlap(matrix)


async def test_worker_killed(matrix: Matrix) -> None:
    await matrix.runner()
    invocation = await matrix.work(seconds=0.5)
    (begin,) = await matrix.begun()
    os.kill(begin.pid, signal.SIGKILL)
    status = await matrix.in_state(invocation, "succeeded", "dead")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["crashed", "succeeded"]
    assert "SIGKILL" in status["attempts"][0]["error"]["message"]


async def test_broker_restart_while_running(matrix: Matrix) -> None:
    await matrix.runner("--slots", "1")  # busy, so that the other one gets the second delivery
    invocation = await matrix.work(seconds=5)
    await matrix.begun()
    other = await matrix.runner()
    await asyncio.to_thread(matrix.nats.kill)
    _forget_deliveries(matrix)
    await asyncio.to_thread(matrix.nats.start)
    await eventually(lambda: other.facts("runs_elsewhere"), what="the other runner had asked who runs it")
    await matrix.succeeded(invocation)
    assert len(matrix.book("begin")) == 1


def _forget_deliveries(matrix: Matrix) -> None:
    """What NATS itself forgets of the last moments before a crash, and here for certain."""
    states = list((matrix.nats.folder / "jetstream").rglob("fn-work-background/o.dat"))
    assert states, "NATS keeps its deliveries elsewhere now"
    for state in states:
        state.unlink()


async def test_runner_stopped_past_its_lease(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(seconds=3)
    (begin,) = await matrix.begun()
    matrix.remember(first)
    first.send(signal.SIGSTOP)
    await matrix.runner()
    await matrix.begun(2)
    first.send(signal.SIGCONT)
    await matrix.succeeded(invocation)
    assert begin.pid not in descendants(first.pid)
    _never_overlap(matrix)


async def test_poison_is_buried_as_runner_lost(matrix: Matrix) -> None:
    await matrix.announce()
    poison = await matrix.enqueue("poison-background")
    neighbours = [await matrix.work(seconds=0.1) for _ in range(3)]
    killed = 0
    while (await matrix.status(poison))["state"] != "dead":
        runner = await matrix.runner()
        matrix.remember(runner)
        await _ended_or_buried(matrix, runner, poison)
        if runner.popen.poll() is None:
            break
        killed += 1
    status = await matrix.in_state(poison, "dead")
    assert killed == 6  # the first delivery leaves no note; five more do
    assert (status["reason"], status["attempts"]) == ("runner_lost", [])
    assert await matrix.metric("quarterhour_dead_letters_total", reason="runner_lost") == 1
    for neighbour in neighbours:
        await matrix.succeeded(neighbour)


async def _ended_or_buried(matrix: Matrix, runner: Process, poison: str) -> None:
    async def check() -> bool:
        return runner.popen.poll() is not None or (await matrix.status(poison)).get("state") == "dead"

    await eventually(check, deadline_s=15, what="the poison had worked")


async def test_runner_killed_while_handing_back(matrix: Matrix) -> None:
    first = await matrix.runner()
    invocation = await matrix.work(seconds=1)
    await matrix.begun()
    matrix.remember(first)
    await first.kill()  # so that the second delivery writes a start note
    second = await matrix.runner("--drain", "0", point="while_handing_back")
    await matrix.begun(2)
    matrix.remember(second)
    second.send(signal.SIGTERM)
    assert await second.ended() == -signal.SIGKILL
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


async def test_runner_killed_before_ack(matrix: Matrix) -> None:
    crashing = await matrix.runner(point="before_ack")
    invocation = await matrix.work()
    assert await crashing.ended() == -signal.SIGKILL
    await matrix.runner()
    await _taken_off_the_queue(matrix)
    await matrix.succeeded(invocation)
    assert len(matrix.book("begin")) == 1


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
    assert await matrix.metric("quarterhour_outcomes_total", result="succeeded") == 1


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


async def _taken_off_the_queue(matrix: Matrix) -> None:
    """Wait until nothing waits or is leased any more."""
    client = await nats.connect(matrix.nats.url)
    try:
        stream = client.jetstream()

        async def empty() -> bool:
            info = await stream.consumer_info("quarterhour", "fn-work-background")
            return not info.num_pending and not info.num_ack_pending

        await eventually(empty, deadline_s=15, what="the delivery was acknowledged")
    finally:
        await client.close()


def _never_overlap(matrix: Matrix) -> None:
    """No run of an invocation began before the one before it had given its last sign of life."""
    lines = matrix.book("begin", "alive", "end")
    for begin in (line for line in lines if line.what == "begin"):
        for other in lines:
            if other.id == begin.id and other.pid != begin.pid:
                others = [line.at for line in lines if line.pid == other.pid and line.id == other.id]
                assert begin.at > max(others) or begin.at <= min(others)
