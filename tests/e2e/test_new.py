"""`quarterhour new`, then a real system that serves what was written: each kind is called with `{}`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from click.testing import CliRunner

from quarterhour.cli.main import main
from tests.nats_server import free_port
from tests.node import node
from tests.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("hello", "import-background", "send-email", "send-email-background")
SCRIPTS = ("greet.js", "salute.ts", "fetch-background.mjs", "count-background.ts")


@dataclass
class Mailbox:
    """What a mail server got."""

    subjects: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert (envelope.mail_from, envelope.rcpt_tos) == ("me@example.org", ["me@example.org"])
        assert isinstance(envelope.content, bytes)
        self.subjects += [line.decode() for line in envelope.content.splitlines() if line.startswith(b"Subj")]
        return "250 OK"


@pytest.fixture(scope="module")
def mailbox() -> Mailbox:
    return Mailbox()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> AsyncIterator[System]:
    async with System(tmp_path_factory.mktemp("new"), {}) as system:
        for name in NAMES + SCRIPTS:
            result = CliRunner().invoke(main, ["new", name, "--functions", str(system.functions)])
            assert result.exit_code == 0, result.output
        server = Controller(mailbox, hostname="127.0.0.1", port=free_port(), ready_timeout=30)
        server.start()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SMTP_URL", f"smtp://127.0.0.1:{server.port}")
                patch.setenv("MAIL_FROM", "me@example.org")
                await system.start_gateway()
                await system.start_runner("--function-environment", "SMTP_URL,MAIL_FROM")
            yield system
        finally:
            server.stop()


async def test_the_synchronous_one_answers(system: System) -> None:
    answer = await system.post("hello", json={})
    assert (answer.status_code, answer.json()) == (200, {"message": "Hello, world!"})


async def test_the_background_one_has_a_result_and_a_log(system: System) -> None:
    id = await system.enqueue("import-background", json={})
    status = await system.in_state(id, "succeeded")
    assert status["result"] == {"done": ["a, done", "sample, done"]}
    assert status["attempts"][0]["logs"] == f"attempt 1 of invocation {id}\n"


@pytest.mark.parametrize("name", ["greet", "salute"])
async def test_the_synchronous_ones_of_node_answer(system: System, name: str) -> None:
    node()
    for query, body, whom in (("", {}, "world"), ("?name=Ada", {}, "Ada"), ("", {"name": "Bob"}, "Bob")):
        answer = await system.post(f"{name}{query}", json=body)
        assert (answer.status_code, answer.json()) == (200, {"message": f"Hello, {whom}!"})
    assert (await system.post(name)).json() == {"message": "Hello, world!"}


@pytest.mark.parametrize("name", ["fetch-background", "count-background"])
async def test_the_background_ones_of_node_have_a_result_and_a_log(system: System, name: str) -> None:
    node()
    for body, items in ((b"{}", ["a", "sample"]), (b"", ["a", "sample"]), (b'{"items": [1]}', [1])):
        id = await system.enqueue(name, content=body)
        status = await system.in_state(id, "succeeded")
        assert status["result"] == {"done": [f"{item}, done" for item in items]}
        assert status["attempts"][0]["logs"] == f"attempt 1 of invocation {id}\n"
    for body in (b"no json", b"null", b'{"items": "one"}'):
        status = await system.in_state(await system.enqueue(name, content=body), "dead")
        assert (status["attempt"], status["error"]["type"]) == (1, "DoNotRetry")
        assert status["error"]["message"].startswith("The body must be JSON such as")


async def test_mail_is_sent_while_one_waits(system: System, mailbox: Mailbox) -> None:
    mailbox.subjects.clear()
    answer = await system.post("send-email", json={})
    assert (answer.status_code, answer.json()) == (200, {"message": "Sent."})
    assert mailbox.subjects == ["Subject: A mail from Quarterhour"]


async def test_mail_is_sent_in_the_background(system: System, mailbox: Mailbox) -> None:
    mailbox.subjects.clear()
    status = await system.in_state(await system.enqueue("send-email-background", json={}), "succeeded")
    assert status["result"] == {"message": "Sent."}
    assert mailbox.subjects == ["Subject: A mail from Quarterhour"]
