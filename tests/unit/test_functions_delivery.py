"""`send-email` against a real SMTP server and a stand-in for SendGrid: sent, refused, to be tried later."""

import asyncio
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from quarterhour import DoNotRetry, RetryAfter
from tests.nats_server import free_port
from tests.parts import need
from tests.unit.functions import INVOCATION, call, load

GOOD = json.dumps({"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."})


@dataclass
class Mailbox:
    """What the SMTP server got, and what it answers: by address of the recipient, and to the data."""

    answers: dict[str, str] = field(default_factory=dict)
    answer: str = "250 OK"
    envelopes: list[Envelope] = field(default_factory=list)
    logins: list[tuple[bytes, bytes, bool]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        return self.answer

    def log_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, auth_data: Any
    ) -> AuthResult:
        assert isinstance(auth_data, LoginPassword)
        self.logins.append((auth_data.login, auth_data.password, session.ssl is not None))
        return AuthResult(success=auth_data.password == b"p@ss", handled=False)


StartServer = Callable[..., Awaitable[int]]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMTP_URL", "SENDGRID_API_KEY", "SENDGRID_URL", "OUTBOX_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MAIL_FROM", "me@example.org")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def start(mailbox: Mailbox) -> AsyncIterator[StartServer]:
    """Starts an SMTP server on a free port: `await start(tls=..., auth=..., implicit=...)`."""
    servers = []

    async def start(*, tls: ssl.SSLContext | None = None, implicit: bool = False, auth: bool = False) -> int:
        def protocol() -> SMTP:
            return SMTP(
                mailbox,
                hostname="test",
                tls_context=None if implicit else tls,
                authenticator=mailbox.log_in if auth else None,
                auth_require_tls=False,
            )

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if implicit else None)
        servers.append(server)
        return cast("int", server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def run(name: str, body: str | None = GOOD) -> Any:
    """The function in a thread, as the server needs this one."""
    return await asyncio.to_thread(call, load(name), body)


async def test_it_is_sent_by_smtp(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    body = {"to": "ada@example.org", "cc": "bob@example.org", "bcc": "carol@example.org"}
    answer = await run("send-email", json.dumps({**body, "subject": "Grüße", "text": "Hello.\n.\nAda"}))
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"message": "Sent by 127.0.0.1."}
    (envelope,) = mailbox.envelopes
    assert envelope.mail_from == "me@example.org"
    assert sorted(envelope.rcpt_tos) == ["ada@example.org", "bob@example.org", "carol@example.org"]
    content = cast("bytes", envelope.content)
    assert b"To: ada@example.org\r\n" in content
    assert f"Message-ID: <{INVOCATION}@example.org>\r\n".encode() in content
    assert content.endswith(b"Hello.\r\n.\r\nAda\r\n")
    assert b"carol" not in content  # a blind copy stays blind


async def test_the_background_one_sends_too(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    assert await run("send-email-background") == {"message": "Sent by 127.0.0.1."}
    assert len(mailbox.envelopes) == 1


async def test_the_sample_goes_to_the_sender(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    await run("send-email", "{}")
    assert [envelope.rcpt_tos for envelope in mailbox.envelopes] == [["me@example.org"]]


async def test_it_logs_in(start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    port = await start(auth=True)
    monkeypatch.setenv("SMTP_URL", f"smtp://ada%40example.org:p%40ss@127.0.0.1:{port}")
    await run("send-email-background")
    assert mailbox.logins == [(b"ada@example.org", b"p@ss", False)]
    assert len(mailbox.envelopes) == 1
    monkeypatch.setenv("SMTP_URL", f"smtp://ada:wrong@127.0.0.1:{port}")
    with pytest.raises(DoNotRetry, match="535"):
        await run("send-email-background")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of its own authority for 127.0.0.1, with its key, in one file."""
    openssl = need("openssl", package="openssl")
    path = tmp_path / "certificate.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run([openssl, *command.split(), *extra], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(str(path) + ".crt").read_text())
    return path


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_it_is_encrypted_where_it_can_be(
    start: StartServer, mailbox: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    port = await start(tls=tls, implicit=scheme == "smtps", auth=scheme == "smtp")
    user = "ada:p%40ss@" if scheme == "smtp" else ""  # aiosmtpd does not see the TLS under it
    monkeypatch.setenv("SMTP_URL", f"{scheme}://{user}127.0.0.1:{port}")
    # Nobody vouches for the certificate: the mail is not sent, and the password neither.
    with pytest.raises(DoNotRetry, match="certificate verify failed"):
        await run("send-email-background")
    assert mailbox.logins == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert await run("send-email-background") == {"message": "Sent by 127.0.0.1."}
    assert len(mailbox.envelopes) == 1
    assert mailbox.logins == ([(b"ada", b"p@ss", True)] if scheme == "smtp" else [])


async def test_a_password_is_not_sent_in_the_clear(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = await start(auth=True)
    # A loopback address that is not one of those that count as loopback stands for another machine.
    monkeypatch.setenv("SMTP_URL", f"smtp://ada:p%40ss@2130706433:{port}")
    with pytest.raises(DoNotRetry, match="offers no encryption"):
        await run("send-email-background")
    assert mailbox.logins == []


@pytest.mark.parametrize("answer", ["450 Mailbox busy", "421 Closing"])
async def test_a_transient_refusal_is_tried_again(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    for mailbox.answers, mailbox.answer in (({"ada@example.org": answer}, "250 OK"), ({}, answer)):
        with pytest.raises(Exception, match=answer) as caught:
            await run("send-email-background")
        assert not isinstance(caught.value, DoNotRetry | RetryAfter)  # the policy says when
        response = await run("send-email")
        assert response["statusCode"] == 503
        assert response["headers"]["retry-after"] == "60"
        assert answer in json.loads(response["body"])["error"]


async def test_a_permanent_refusal_is_not_tried_again(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    unknown = "550 Nobody of that name"
    for mailbox.answers, mailbox.answer in (({"ada@example.org": unknown}, "250 OK"), ({}, unknown)):
        with pytest.raises(DoNotRetry, match=unknown):
            await run("send-email-background")
        response = await run("send-email")
        assert response["statusCode"] == 502
        assert unknown in json.loads(response["body"])["error"]


async def test_some_recipients_refused_is_said_and_the_others_have_it(
    start: StartServer, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{await start()}")
    mailbox.answers = {"bob@example.org": "550 Unknown"}
    body = {"to": ["ada@example.org", "bob@example.org"], "subject": "Hi", "text": "x"}
    result = await run("send-email-background", json.dumps(body))
    assert result == {"message": "Sent by 127.0.0.1. Refused for bob@example.org: 550 Unknown"}
    assert mailbox.envelopes[0].rcpt_tos == ["ada@example.org"]


@pytest.mark.parametrize("transport", ["smtp", "sendgrid"])
def test_a_server_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    if transport == "smtp":
        monkeypatch.setenv("SMTP_URL", f"smtp://127.0.0.1:{free_port()}")
    else:
        monkeypatch.setenv("SENDGRID_API_KEY", "key")
        monkeypatch.setenv("SENDGRID_URL", f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(Exception, match="cannot be reached") as caught:
        call(load("send-email-background"), GOOD)
    assert not isinstance(caught.value, DoNotRetry | RetryAfter)
    assert call(load("send-email"), GOOD)["statusCode"] == 503


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.org",
        "http://mail.example.org",
        "smtp://",
        "smtp://user:secret@",
        "smtp://mail.example.org:port",
        "smtp://mail.example.org:99999",
        "smtp://mail.example.org:0",
        "smtp://user:sec/ret@mail.example.org",
        "smtp://[::1",
    ],
)
def test_a_wrong_smtp_url_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SMTP_URL", url)
    with pytest.raises(DoNotRetry, match="SMTP_URL must be like") as caught:
        call(load("send-email-background"), GOOD)
    assert "sec" not in str(caught.value)


class SendGrid(ThreadingHTTPServer):
    """Stands in for SendGrid: remembers requests, answers what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SendGridHandler)
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.status = 202
        self.headers: dict[str, str] = {}
        self.body = b""


class SendGridHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("SendGrid", self.server)
        body = self.rfile.read(int(self.headers["content-length"]))
        server.requests.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
        self.send_response(server.status)
        for name, value in {**server.headers, "content-length": str(len(server.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


@pytest.fixture
def sendgrid(monkeypatch: pytest.MonkeyPatch) -> Iterator[SendGrid]:
    with SendGrid() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("SENDGRID_API_KEY", "SG.key")
        monkeypatch.setenv("SENDGRID_URL", f"http://127.0.0.1:{server.server_address[1]}/v3/mail/send")
        yield server
        server.shutdown()
        thread.join()


def test_it_is_handed_to_sendgrid(sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://127.0.0.1:1")  # with both set, SendGrid it is
    body = {"to": ["Ada <ada@example.org>"], "cc": "bob@example.org", "subject": "Grüße"}
    answer = call(load("send-email"), json.dumps({**body, "text": "Hi", "html": "<p>Hi</p>"}))
    assert json.loads(answer["body"]) == {"message": "Handed to SendGrid."}
    ((headers, sent),) = sendgrid.requests
    assert headers["authorization"] == "Bearer SG.key"
    assert headers["content-type"] == "application/json"
    assert sent == {
        "personalizations": [
            {"to": [{"email": "ada@example.org", "name": "Ada"}], "cc": [{"email": "bob@example.org"}]}
        ],
        "from": {"email": "me@example.org"},
        "subject": "Grüße",
        "content": [{"type": "text/plain", "value": "Hi"}, {"type": "text/html", "value": "<p>Hi</p>"}],
        "custom_args": {"invocation": INVOCATION},
    }


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({}, 60, 60),
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": "0"}, 1, 1),
        ({"retry-after": "999999"}, 3600, 3600),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60, 60),
        ({"x-ratelimit-reset": "in 30 s"}, 20, 30),
        ({"x-ratelimit-reset": "5"}, 1, 1),
    ],
)
def test_too_many_is_tried_again_when_sendgrid_says(
    sendgrid: SendGrid, headers: dict[str, str], least: int, most: int
) -> None:
    sendgrid.status = 429
    sendgrid.headers = {
        name: str(int(time.time()) + 30) if value == "in 30 s" else value for name, value in headers.items()
    }
    with pytest.raises(RetryAfter, match="SendGrid answered 429") as caught:
        call(load("send-email-background"), GOOD)
    assert least <= caught.value.delay_s <= most
    answer = call(load("send-email"), GOOD)
    assert answer["statusCode"] == 503
    assert least <= int(answer["headers"]["retry-after"]) <= most


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (400, b'{"errors": [{"message": "Bad subject"}]}', "SendGrid answered 400: Bad subject"),
        (401, b'{"errors": []}', 'SendGrid answered 401: {"errors": \\[\\]}'),
        (403, b"\xff", "SendGrid answered 403: \ufffd"),
        (413, b"", "SendGrid answered 413: "),
    ],
)
def test_what_sendgrid_refuses_is_not_tried_again(
    sendgrid: SendGrid, status: int, body: bytes, sentence: str
) -> None:
    sendgrid.status, sendgrid.body = status, body
    with pytest.raises(DoNotRetry, match=sentence):
        call(load("send-email-background"), GOOD)
    assert call(load("send-email"), GOOD)["statusCode"] == 502


@pytest.mark.parametrize("status", [500, 503])
def test_a_fault_of_sendgrid_is_tried_again(sendgrid: SendGrid, status: int) -> None:
    sendgrid.status = status
    with pytest.raises(Exception, match=f"SendGrid answered {status}") as caught:
        call(load("send-email-background"), GOOD)
    assert not isinstance(caught.value, DoNotRetry | RetryAfter)
    assert call(load("send-email"), GOOD)["statusCode"] == 503
