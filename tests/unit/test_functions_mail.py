"""What `send-email` makes of a request: the mail, or a sentence that says what is wrong with it."""

import email
import email.policy
import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from quarterhour import DoNotRetry
from tests.unit.functions import INVOCATION, call, load

GOOD = {"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."}


@pytest.fixture(autouse=True)
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for mail, in a working directory of its own; nothing is set in the environment."""
    for name in ("SMTP_URL", "SENDGRID_API_KEY", "SENDGRID_URL", "MAIL_FROM", "OUTBOX_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "outbox"


def read(path: Path) -> EmailMessage:
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


def send(outbox: Path, **fields: Any) -> EmailMessage:
    answer = call(load("send-email"), json.dumps(fields))
    assert answer["statusCode"] == 200, answer["body"]
    return read(outbox / f"{INVOCATION}.eml")


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_without_a_transport_it_goes_into_the_outbox_and_says_so(
    outbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call(load("send-email"), json.dumps(GOOD))
    said = json.loads(answer["body"])["message"]
    path = f".quarterhour/outbox/{INVOCATION}.eml"
    assert said == f"Written to {path}. To send it, set SMTP_URL or SENDGRID_API_KEY."
    assert capsys.readouterr().out == said + "\n"
    message = read(outbox / f"{INVOCATION}.eml")
    assert (message["to"], message["subject"]) == ("ada@example.org", "Hi")
    assert message["from"] == "Quarterhour <quarterhour@example.org>"
    assert message["message-id"] == f"<{INVOCATION}@example.org>"
    assert message["date"].datetime.tzinfo is not None
    assert text_of(message) == "Hello, Ada.\n"


def test_the_background_one_does_the_same(outbox: Path) -> None:
    result = call(load("send-email-background"), json.dumps(GOOD))
    assert result["message"].startswith("Written to .quarterhour/outbox/")
    assert text_of(read(outbox / f"{INVOCATION}.eml")) == "Hello, Ada.\n"


def test_a_second_attempt_writes_the_same_file(outbox: Path) -> None:
    for _ in range(2):
        call(load("send-email-background"), json.dumps(GOOD))
    assert len(list(outbox.iterdir())) == 1


def test_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_DIR", str(tmp_path / "a" / "b"))
    assert send(tmp_path / "a" / "b", **GOOD)["subject"] == "Hi"


@pytest.mark.parametrize("body", [None, "", "{}", b"{}", " {} "])
@pytest.mark.parametrize("name", ["send-email", "send-email-background"])
def test_the_sample(outbox: Path, name: str, body: str | bytes | None) -> None:
    call(load(name), body)
    message = read(outbox / f"{INVOCATION}.eml")
    assert message["to"] == "ada@example.org"
    assert "built-in sample" in text_of(message)


def test_a_body_without_content_type_comes_as_base64(outbox: Path) -> None:
    call(load("send-email"), json.dumps({**GOOD, "subject": "Grüße"}).encode())
    assert read(outbox / f"{INVOCATION}.eml")["subject"] == "Grüße"


def test_everything_a_mail_can_have(outbox: Path) -> None:
    message = send(
        outbox,
        **{
            "to": ["Ada Lövelace <ada@example.org>", "bob+tag@exämple.org"],
            "cc": "carol@example.org",
            "bcc": ["dave@example.org"],
            "from": "Eve <eve@example.org>",
            "subject": "Ünïcode " * 30,
            "text": "Grüße\n.\nFrom here",
            "html": "<p>Grüße</p>",
        },
    )
    to = message["to"].addresses
    assert (to[0].display_name, to[0].addr_spec) == ("Ada Lövelace", "ada@example.org")
    assert to[1].addr_spec == "bob+tag@xn--exmple-cua.org"
    assert message["cc"] == "carol@example.org"
    assert message["bcc"] == "dave@example.org"
    assert message["from"] == "Eve <eve@example.org>"
    assert message["subject"] == "Ünïcode " * 30
    assert text_of(message) == "Grüße\n.\nFrom here\n"
    assert text_of(message, "html") == "<p>Grüße</p>\n"


def test_html_alone(outbox: Path) -> None:
    message = send(outbox, to="ada@example.org", subject="Hi", html="<p>Hi</p>")
    assert message.get_content_type() == "text/html"


@pytest.mark.parametrize("sender", ["Me <me@example.org>", "me@example.org"])
def test_the_configured_sender(outbox: Path, monkeypatch: pytest.MonkeyPatch, sender: str) -> None:
    monkeypatch.setenv("MAIL_FROM", sender)
    assert send(outbox, **GOOD)["from"] == sender


BAD_BODIES = [
    ("no json", "The body must be JSON"),
    ("[]", "must be a JSON object"),
    ("5", "must be a JSON object"),
    ("null", "must be a JSON object"),
    ("[" * 100_000, "The body must be JSON"),
    (b"\xff\xfe\xfd", "The body must be JSON"),
    (json.dumps({"subject": "Hi", "text": "x"}), "'to' is missing"),
    (json.dumps({**GOOD, "to": []}), "'to' is missing"),
    (json.dumps({**GOOD, "to": ["ada@example.org"] * 51}), "at most 50 recipients"),
    (json.dumps({**GOOD, "too": "x"}), "'too' is no field of a mail; known are to, cc"),
    (json.dumps({**GOOD, "subject": ""}), "'subject' is missing"),
    (json.dumps({**GOOD, "subject": 5}), "'subject' must be text, not 5"),
    (json.dumps({**GOOD, "subject": "x" * 501}), "one line of at most 500"),
    (json.dumps({**GOOD, "subject": "Hi\r\nBcc: eve@example.org"}), "'subject' must be one line"),
    (json.dumps({**GOOD, "subject": "Hi\nBcc: eve@example.org"}), "'subject' must be one line"),
    (json.dumps({**GOOD, "subject": "Hi\0"}), "'subject' must be one line"),
    (json.dumps({**GOOD, "subject": "\ud83d"}), "'subject' holds half a character"),
    (json.dumps({**GOOD, "text": "\ud83d"}), "'text' holds half a character"),
    (json.dumps({**GOOD, "text": ["x"]}), "'text' must be text"),
    (json.dumps({**GOOD, "text": None}), "'text' is missing"),
    (json.dumps({**GOOD, "from": ["a@example.org", "b@example.org"]}), "'from' must be one address"),
    (json.dumps({**GOOD, "from": "nobody"}), "'from' must be an address"),
    (json.dumps({**GOOD, "cc": "nobody"}), "'cc' must be an address"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sentence"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_bad_input_is_a_400_and_is_not_retried(outbox: Path, body: str | bytes, sentence: str) -> None:
    answer = call(load("send-email"), body)
    assert answer["statusCode"] == 400
    assert sentence in json.loads(answer["body"])["error"]
    with pytest.raises(DoNotRetry) as caught:
        call(load("send-email-background"), body)
    assert sentence in str(caught.value)
    assert not outbox.exists()


@pytest.mark.parametrize(
    "address",
    [
        "ada",
        "ada@",
        "@example.org",
        "ada@example.org, eve@example.org",
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org\n",
        "Ada\r\nBcc: eve@example.org <ada@example.org>",
        "Ada\nX: y <ada@example.org>",
        "<ada@example.org",
        "ada@example.org>",
        "Ada <ada@example.org> more",
        "a@b@example.org",
        "ada@a..b",
        "ada@" + "x" * 64 + ".org",
        "ada@example.org\0",
        "a" * 320 + "@example.org",
        "ädä@example.org",
        "\ud83d@example.org",
        " ",
        5,
        True,
        {"email": "ada@example.org"},
        ["ada@example.org"],
        None,
    ],
    ids=ascii,
)
def test_an_address_that_is_none(outbox: Path, address: object) -> None:
    answer = call(load("send-email"), json.dumps({**GOOD, "to": [address]}))
    assert answer["statusCode"] == 400
    error = json.loads(answer["body"])["error"]
    assert error.startswith("'to' must be an address such as ada@example.org, not ")
    assert not outbox.exists()


def test_a_wrong_configured_sender_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_FROM", "nobody")
    answer = call(load("send-email"), json.dumps(GOOD))
    assert json.loads(answer["body"])["error"].startswith("MAIL_FROM must be an address")


@pytest.mark.parametrize("name", ["SMTP_URL", "SENDGRID_API_KEY"])
def test_where_mail_is_really_sent_it_needs_a_sender(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "something")
    for body in (json.dumps(GOOD), "{}"):
        answer = call(load("send-email"), body)
        assert answer["statusCode"] == 400
        assert json.loads(answer["body"])["error"] == (
            "The mail has no sender: give 'from', or set MAIL_FROM."
        )
