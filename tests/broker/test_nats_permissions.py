"""What gateways and runners may do on a NATS server: all of their work, and nothing else."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest
import structlog
from click.testing import CliRunner
from nats.aio.client import Client

import quarterhour.broker.nats.queue
from quarterhour.body import BodyKind
from quarterhour.broker import Broker, BrokerOptions
from quarterhour.broker.nats import permissions
from quarterhour.broker.nats.broker import connect
from quarterhour.broker.nats.bundle import pack_bundle
from quarterhour.broker.nats.permissions import ROLES, Role, grants
from quarterhour.broker.port import ANSWER_S, Answer, Beat, Cursor, Key, Run, Stream
from quarterhour.errors import BrokerUnavailable, BrokerUnsuitable
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, encode_invocation
from quarterhour.outcome import Response, Succeeded
from quarterhour.record import waiting
from tests.broker.worlds import bury, complete, invocation, manifest, pulled, retry, taken
from tests.nats_roles import GUARDED, PERMISSIONS, url_of, violations
from tests.nats_server import NatsServer
from tests.waiting import eventually

N = "quarterhour"
HEAD = Response(status=200, headers=())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """It writes down whatever it is sent, too."""
    with NatsServer(tmp_path_factory.mktemp("nats"), text=f"{GUARDED}\ntrace: true") as server:
        yield server


@asynccontextmanager
async def connected(server: NatsServer, role: Role) -> AsyncIterator[Broker]:
    async with connect(BrokerOptions(url=url_of(server, role), name=role)) as broker:
        yield broker


@asynccontextmanager
async def client(server: NatsServer, who: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client of one's own with the password of a role, and what it was denied."""
    denied: list[str] = []

    async def hear(error: Exception) -> None:
        denied.append(str(error))

    connection = await nats_py.connect(
        url_of(server, who), error_cb=hear, inbox_prefix=f"_INBOX.{N}.{who}.test".encode()
    )
    try:
        yield connection, denied
    finally:
        await connection.close()


@pytest.mark.parametrize(("name", "options"), [("permissions", []), ("permissions-cluster", ["--cluster"])])
def test_the_files_in_deploy_are_what_the_program_says(name: str, options: list[str]) -> None:
    said = CliRunner().invoke(permissions.main, options, catch_exceptions=False)
    assert (PERMISSIONS / f"{name}.conf").read_text() == said.output


# All of their work


async def test_each_does_its_work_and_is_allowed_nothing_that_it_does_not_use(
    guarded: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarterhour.broker.nats.queue, "TRIM_EVERY_S", 0.0)
    before = len(violations(guarded))
    async with client(guarded, "admin") as (admin, _):
        async with connected(guarded, "runner") as runner:
            assert len(await streams(admin)) == 3
            await runner.prepare([manifest()])  # the first one after the server's start notes it down
        await forget_streams(admin)
        async with connected(guarded, "gateway") as gateway:
            assert len(await streams(admin)) == 3
            await gateway.prepare([manifest()])  # as above
        for config in await streams(admin):  # as an earlier version might have set them
            await ask(admin, f"STREAM.UPDATE.{config['name']}", config | {"allow_direct": False})
        async with connected(guarded, "gateway") as gateway, connected(guarded, "runner") as runner:
            await know(gateway, runner)
            await call(gateway, runner)
            await work(gateway, runner)
            await schedule(gateway)
            await keep(gateway, runner)
            await forget(gateway, runner, admin)
    assert violations(guarded)[before:] == []
    for role in ROLES:
        used = subjects_used(guarded, role)
        for grant in grants(role, N):
            for verb, subjects in (("PUB", grant.publish), ("SUB", grant.subscribe)):
                unused = [each for each in subjects if not any(covers(each, one) for one in used[verb])]
                assert grant.cluster or not unused, (role, verb)


async def ask(admin: Client, name: str, body: Any = None) -> Any:
    payload = json.dumps(body).encode() if body else b""
    answer = json.loads((await admin.request(f"$JS.API.{name}", payload, timeout=30)).data)
    assert "error" not in answer, answer
    return answer


async def streams(admin: Client) -> list[dict[str, Any]]:
    return [each["config"] for each in (await ask(admin, "STREAM.LIST"))["streams"] or []]


async def forget_streams(admin: Client) -> None:
    for config in await streams(admin):
        await ask(admin, f"STREAM.DELETE.{config['name']}")


def subjects_used(server: NatsServer, role: Role) -> dict[str, set[str]]:
    """What a role has published and subscribed to, from the server's trace."""
    line = re.compile(rf'user:{role}" - <<- \[(?:H?(PUB|SUB)) (\S+)')
    used: dict[str, set[str]] = {"PUB": set(), "SUB": set()}
    for verb, subject in line.findall(server.log):
        used[verb].add(subject)
    return used


def covers(pattern: str, subject: str) -> bool:
    """Whether a subject is one that the pattern allows."""
    regex = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(regex, subject) is not None


async def know(gateway: Broker, runner: Broker) -> None:
    await runner.prepare([manifest()])
    await runner.announce([manifest()])
    assert "report" in await gateway.functions()
    assert "report" in await runner.functions()
    beat = Beat(runner="runner-1", functions=("report",), slots=1)
    await runner.on_roll_call(lambda: runner.beat(beat))
    async with asyncio.timeout(20):
        async for heard in gateway.beats():
            assert heard == beat
            break


async def call(gateway: Broker, runner: Broker) -> None:
    answers: asyncio.Queue[Answer] = asyncio.Queue()

    def take(_: Invocation, __: bytes, answer: Answer) -> None:
        answers.put_nowait(answer)

    await runner.serve("runner-1", take)
    calling = asyncio.create_task(gateway.call("runner-1", invocation(mode=Mode.SYNCHRONOUS)))
    await (await answers.get())(Succeeded(response=HEAD))
    assert await calling == Succeeded(response=HEAD)
    calling = asyncio.create_task(gateway.call("runner-1", invocation(mode=Mode.SYNCHRONOUS)))
    answer = await answers.get()
    await answer.begin(HEAD)
    stream = await calling
    assert isinstance(stream, Stream)
    sending = asyncio.create_task(send(answer))
    assert len([chunk async for chunk in stream.chunks]) == 8
    await sending


async def send(answer: Answer) -> None:
    for _ in range(8):  # more than a window: credit is needed
        await answer.send(bytes(64 * 1024))
    await answer(Succeeded(value=None))


async def work(gateway: Broker, runner: Broker) -> None:
    done, again, later, dead, old = (invocation() for _ in range(5))
    bells = runner.bells()
    for each in (done, again, later, dead, old):
        async with gateway.changes(each.id):
            await gateway.enqueue(each)
    assert await anext(bells) == {"report"}
    await bells.aclose()  # type: ignore[attr-defined]
    found = {delivery.invocation.id: delivery for delivery in await taken(runner, 5)}
    await runner.renew(found[done.id])
    run = Run(runner="runner-1", attempt=1, started_at=0.0)
    await runner.answer_who_runs(lambda asked: run if asked == done.id else None)

    async def who_runs() -> Run | None:
        return await gateway.who_runs(done.id)

    async def run_of_status() -> Run | None:
        status = await gateway.status(done.id)
        assert status is not None
        return status.run

    assert await eventually(who_runs, what="the runner answers") == run
    assert await runner.who_runs(done.id) is None  # of the others
    assert await eventually(run_of_status, what="the runner answers") == run
    told: list[str] = []
    await runner.on_cancelled(told.append)
    unwanted, unwanted_later = invocation(), invocation(due_at=time.time() + 60)
    for each in (unwanted, unwanted_later):
        await gateway.enqueue(each)
        await gateway.cancel(each.id)
    await eventually(lambda: told == [unwanted.id, unwanted_later.id], what="the runner is told")
    await runner.settle(complete(found[done.id]))
    await runner.settle(retry(found[again.id], after_s=0))
    await runner.settle(retry(found[later.id], after_s=60))
    await runner.settle(bury(found[dead.id]))
    await runner.hand_back(found[old.id])
    assert await gateway.read("report", done.id) is not None
    assert await runner.read("report", done.id) is not None
    await runner.write(waiting(invocation()))
    await gateway.prepare([manifest("other")])  # which no runner has announced
    (delivery, *_) = await eventually(lambda: pulled(gateway), what="it has waited too long")
    await gateway.settle(bury(delivery))

    async def none_waits() -> bool:
        for delivery in await pulled(runner):
            await runner.acknowledge(delivery)
        tended = await gateway.tend(["report", "unknown"])
        return tended["report"].waiting == 0

    await eventually(none_waits, what="none waits")


async def keep(gateway: Broker, runner: Broker) -> None:
    keyed = invocation()
    assert await gateway.enqueue(keyed, Key(text="k", fingerprint="f")) == keyed.id
    assert await gateway.enqueue(invocation(), Key(text="k", fingerprint="f")) == keyed.id
    for kind, writer in ((BodyKind.WORK, gateway), (BodyKind.REQUEST, gateway), (BodyKind.RESPONSE, runner)):
        claim = await writer.keep_body(kind, keyed.id, chunks(), keep_s=60)
        for reader in (gateway, runner):
            assert b"".join([piece async for piece in reader.read_body(claim)]) == b"piece"
            await writer.remove_body(claim)
            claim = await writer.keep_body(kind, keyed.id, chunks(), keep_s=60)
        await runner.remove_body(claim)
    await gateway.sweep_bodies(before=time.time(), count_max=1)


async def chunks() -> AsyncIterator[bytes]:
    yield b"piece"


async def schedule(gateway: Broker) -> None:
    await gateway.enqueue(invocation(due_at=time.time() + 0.1))
    cursor = Cursor(function="report", schedule="* * * * *", placed_until=1.0)
    firing = invocation(mode=Mode.SCHEDULED, due_at=time.time() + 60)
    placed = await gateway.place(cursor, [firing])
    assert await gateway.cursors() == {"report": placed}
    await gateway.unplace(placed)


async def forget(gateway: Broker, runner: Broker, admin: Client) -> None:
    await runner.withdraw(["report"])
    assert await gateway.functions() == {}

    async def counted_no_more() -> bool:
        await gateway.tend([])
        return not [
            name for name in (await ask(admin, f"CONSUMER.NAMES.{N}"))["consumers"] if "delay" in name
        ]

    await eventually(counted_no_more)


# Nothing else

RUNNER_MAY_NOT = {
    "purge the work": ("pub", f"$JS.API.STREAM.PURGE.{N}"),
    "delete the stream": ("pub", f"$JS.API.STREAM.DELETE.{N}"),
    "delete a message": ("pub", f"$JS.API.STREAM.MSG.DELETE.{N}"),
    "change the stream": ("pub", f"$JS.API.STREAM.UPDATE.{N}"),
    "make a stream of its own": ("pub", "$JS.API.STREAM.CREATE.mine"),
    "restore a stream": ("pub", f"$JS.API.STREAM.RESTORE.{N}"),
    "copy the stream": ("pub", f"$JS.API.STREAM.SNAPSHOT.{N}"),
    "step the leader down": ("pub", f"$JS.API.STREAM.LEADER.STEPDOWN.{N}"),
    "delete a queue": ("pub", f"$JS.API.CONSUMER.DELETE.{N}.fn-report"),
    "pause a queue": ("pub", f"$JS.API.CONSUMER.PAUSE.{N}.fn-report"),
    "read dead letters": ("pub", f"$JS.API.DIRECT.GET.{N}.{N}.d.report.x"),
    "read whatever it likes": ("pub", f"$JS.API.DIRECT.GET.{N}"),
    "make a queue of dead letters": ("pub", f"$JS.API.CONSUMER.CREATE.{N}.mine.{N}.d.>"),
    "make a queue of everything": ("pub", f"$JS.API.CONSUMER.CREATE.{N}.mine"),
    "say for the server that something is stored": ("pub", f"_INBOX.{N}.gateway.token.7"),
    "answer for the server to another runner": ("pub", f"_INBOX.{N}.runner.token.7"),
    "call another runner": ("pub", f"{N}.call.runner-2"),
    "move a schedule": ("pub", f"{N}.c.report"),
    "tell others that something is cancelled": ("pub", f"{N}.ctl.cancelled"),
    "delay work": ("pub", f"{N}.s.delay.report.x"),
    "read an idempotency key": ("pub", f"$JS.API.DIRECT.GET.{N}.{N}.k.x"),
    "store an idempotency key": ("pub", f"{N}.k.x"),
    "replace a request's body": ("pub", f"{N}.b.work.x"),
    "hear bodies": ("sub", f"{N}.b.>"),
    "hear the gateway's replies": ("sub", f"_INBOX.{N}.gateway.>"),
    "hear everybody's replies": ("sub", "_INBOX.>"),
    "hear everything": ("sub", ">"),
    "hear what is accepted": ("sub", f"{N}.q.>"),
    "hear results": ("sub", f"{N}.r.>"),
    "hear beats": ("sub", f"{N}.beat"),
    "hear what others ask of JetStream": ("sub", "$JS.API.>"),
    "hear the server's events": ("sub", "$SYS.>"),
    "reach another namespace": ("pub", "other.q.report.x.1"),
}
GATEWAY_MAY_NOT = {
    "delete the stream": ("pub", f"$JS.API.STREAM.DELETE.{N}"),
    "copy the stream": ("pub", f"$JS.API.STREAM.SNAPSHOT.{N}"),
    "make a stream of its own": ("pub", "$JS.API.STREAM.CREATE.mine"),
    "beat as a runner": ("pub", f"{N}.beat"),
    "announce a function": ("pub", f"$KV.{N}-functions.report"),
    "withdraw functions": ("pub", f"$JS.API.STREAM.PURGE.KV_{N}-functions"),
    "replace a response's body": ("pub", f"{N}.b.response.x"),
    "hear what others cancel": ("sub", f"{N}.ctl.cancelled"),
    "schedule a retry": ("pub", f"{N}.s.retry.x"),
    "say for the server that something is stored": ("pub", f"_INBOX.{N}.gateway.token.7"),
    "answer for a runner": ("pub", f"_INBOX.{N}.gateway.token.calls.replies"),
    "take calls": ("sub", f"{N}.call.*"),
    "hear a runner's deliveries": ("sub", f"_INBOX.{N}.runner.>"),
    "hear everything": ("sub", ">"),
    "reach another namespace": ("pub", "other.q.report.x.1"),
}


@pytest.mark.parametrize(("role", "attempts"), [("runner", RUNNER_MAY_NOT), ("gateway", GATEWAY_MAY_NOT)])
async def test_what_each_role_may_not(
    guarded: NatsServer, role: Role, attempts: dict[str, tuple[str, str]]
) -> None:
    async with client(guarded, role) as (connection, denied):
        for what, (verb, subject) in attempts.items():
            denied.clear()
            if verb == "pub":
                await connection.publish(subject, b"{}")
            else:
                await connection.subscribe(subject)
            await connection.flush()
            await eventually(lambda: denied, deadline_s=20, what=f"a {role} could not {what}")
            assert subject.lower() in denied[0]


async def test_what_a_consumer_delivers_to_others_is_not_heard(tmp_path: Path) -> None:
    # Whoever may create a consumer may have it deliver to any address: NATS does not look at that.
    heard: list[str] = []

    def take(called: Invocation, _: bytes, __: Answer) -> None:
        heard.append(called.id)

    forged = invocation("victim", mode=Mode.SYNCHRONOUS)
    forgeries = {
        f"{N}.call.runner-1": pack_bundle([(1, encode_invocation(forged))]),
        f"{N}.ctl.cancelled": forged.id.encode(),
    }
    async with AsyncExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path, text=GUARDED))
        gateway = await stack.enter_async_context(connected(server, "gateway"))
        runner = await stack.enter_async_context(connected(server, "runner"))
        admin, _ = await stack.enter_async_context(client(server, "admin"))
        await runner.serve("runner-1", take)
        await runner.on_cancelled(heard.append)
        for address, payload in forgeries.items():
            ears = await admin.subscribe(address)
            await deliver(server, payload, address)
            assert (await ears.next_msg(timeout=30)).data == payload
        true = invocation(mode=Mode.SYNCHRONOUS)
        calling = asyncio.ensure_future(gateway.call("runner-1", true))
        await admin.publish(f"{N}.ctl.cancelled", b"unwanted")
        await eventually(lambda: len(heard) >= 2, what="the runner hears what it is told")
        calling.cancel()
    assert sorted(heard) == sorted([true.id, "unwanted"])


async def deliver(server: NatsServer, payload: bytes, address: str) -> None:
    """With a runner's password, have a consumer deliver to an address."""
    name = address.replace(".", "-")
    async with client(server, "runner") as (attacker, denied):
        await attacker.publish(f"{N}.q.{name}.x.1", payload)
        config = {
            "durable_name": name,
            "filter_subject": f"{N}.q.{name}.>",
            "deliver_subject": address,
            "ack_policy": "none",
        }
        create = f"CONSUMER.CREATE.{N}.{name}.{N}.q.{name}.>"
        await ask(attacker, create, {"stream_name": N, "config": config})
        assert not denied


async def test_a_password_of_one_role_is_none_of_the_other(guarded: NatsServer) -> None:
    with pytest.raises(BrokerUnavailable, match="does not accept this user"):
        async with connect(
            BrokerOptions(url=url_of(guarded, "gateway").replace("pw-gateway", "pw-runner"), name="x")
        ):
            pass


# What is said


def narrow(publish: list[str]) -> str:
    """A server with a user who may do little, and one who may do everything."""
    allowed = json.dumps({"publish": publish, "subscribe": [f"_INBOX.{N}.narrow.>", f"{N}.ctl.functions"]})
    users = (
        f"{{user: narrow, password: pw-narrow, permissions: {allowed}}}, {{user: admin, password: pw-admin}}"
    )
    return f"authorization: {{ users: [{users}] }}"


READS = [
    f"_INBOX.{N}.narrow.>",
    "$JS.API.INFO",
    f"$JS.API.STREAM.INFO.{N}",
    f"$JS.API.STREAM.INFO.KV_{N}-functions",
    f"$JS.API.STREAM.INFO.{N}-bodies",
    f"$JS.API.CONSUMER.INFO.{N}.*",
    f"$JS.API.DIRECT.GET.{N}.{N}.c._server.*",
]


@pytest.mark.usefixtures("patient_pulls")
async def test_what_is_denied_fails_at_once_and_names_the_subject(tmp_path: Path) -> None:
    with NatsServer(tmp_path, text=narrow(READS)) as server:
        options = BrokerOptions(url=url_of(server, "narrow"), name="narrow")
        with pytest.raises(
            BrokerUnavailable, match="may not create it: start a process first whose user may"
        ):
            async with connect(options):
                pass
        async with connect(replace(options, url=url_of(server, "admin"), name="admin")) as admin:
            await admin.prepare([manifest()])
        async with connect(options) as broker:
            await broker.prepare([manifest()])  # as wanted already, and so with nothing to create
            denied: list[tuple[Callable[[], Awaitable[object]], str]] = [
                (lambda: broker.prepare([manifest(concurrency=3)]), f"$JS.API.CONSUMER.CREATE.{N}.fn-report"),
                (lambda: broker.enqueue(invocation("Report")), f"{N}.q.Report."),
                (lambda: broker.tend(["report"]), f"$JS.API.CONSUMER.LIST.{N}"),
                (broker.functions, f"$JS.API.DIRECT.GET.KV_{N}-functions"),
                (lambda: pulled(broker), f"$JS.API.CONSUMER.MSG.NEXT.{N}.fn-report"),
                (lambda: anext(broker.bells()), f"{N}.bell"),
            ]
            for attempt, subject in denied:
                began = time.monotonic()
                with structlog.testing.capture_logs() as logs, pytest.raises(BrokerUnavailable) as caught:
                    await attempt()
                assert time.monotonic() - began < ANSWER_S
                assert (
                    f"this user may not {'subscribe' if 'bell' in subject else 'publish'} to {subject}"
                    in str(caught.value)
                )
                assert [subject in log["why"] for log in logs if log["event"] == "broker_denied"] == [True]


async def test_a_user_who_may_hear_no_replies_is_told_so(tmp_path: Path) -> None:
    with NatsServer(
        tmp_path, text=narrow(["$JS.API.>"]).replace(f"_INBOX.{N}.narrow", "_INBOX.other")
    ) as server:
        began = time.monotonic()
        with pytest.raises(
            (BrokerUnavailable, BrokerUnsuitable), match=f"may not subscribe to _inbox.{N}.narrow"
        ):
            async with connect(BrokerOptions(url=url_of(server, "narrow"), name="narrow")):
                pass
        assert time.monotonic() - began < ANSWER_S
