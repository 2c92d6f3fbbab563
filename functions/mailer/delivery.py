"""The three ways for a mail to go, chosen by the environment.

SENDGRID_API_KEY   SendGrid's API (SENDGRID_URL: another address for it)
SMTP_URL           smtp://user:password@host:587 (with STARTTLS where it is offered) or smtps://...
neither            a file in .quarterhour/outbox/ (OUTBOX_DIR: another folder)
"""

import json
import os
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from email.headerregistry import Address
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from mailer.mail import Mail

__all__ = ["Refused", "TryLater", "send"]

TIMEOUT_S = 20
DELAY_S = 60
SENDGRID_URL = "https://api.sendgrid.com/v3/mail/send"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(Exception):  # noqa: N818 - an answer, not a fault of the program
    """The mail was refused for good, or the configuration is wrong: trying again is useless."""


class TryLater(Exception):  # noqa: N818 - an answer, not a fault of the program
    """The mail was not taken now. `delay_s`: whole seconds to wait; `asked_for`: they told us so."""

    def __init__(self, message: str, *, delay_s: int = DELAY_S, asked_for: bool = False) -> None:
        super().__init__(message)
        self.delay_s = delay_s
        self.asked_for = asked_for


def send(mail: Mail) -> str:
    """Send the mail, and say in a sentence what has become of it. Raises `Refused`, `TryLater`."""
    if key := os.environ.get("SENDGRID_API_KEY"):
        return _by_sendgrid(mail, key)
    if url := os.environ.get("SMTP_URL"):
        return _by_smtp(mail, url)
    return _into_outbox(mail)


def _into_outbox(mail: Mail) -> str:
    folder = Path(os.environ.get("OUTBOX_DIR") or ".quarterhour/outbox")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{mail.id}.eml"
    path.write_bytes(bytes(mail.as_message()))
    return f"Written to {path}. To send it, set SMTP_URL or SENDGRID_API_KEY."


def _by_smtp(mail: Mail, url: str) -> str:
    parts = _parse(url)
    try:
        with _connect(parts) as server:
            refused = server.send_message(mail.as_message())
    except smtplib.SMTPRecipientsRefused as error:
        raise _judge(*next(iter(error.recipients.values()))) from error
    except smtplib.SMTPResponseException as error:
        raise _judge(error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPNotSupportedError, ssl.SSLError) as error:
        message = f"The mail server of SMTP_URL cannot be used: {error}"
        raise Refused(message) from error
    except OSError as error:  # smtplib's other errors, too: the connection broke
        message = f"The mail server {parts.hostname} cannot be reached: {error}"
        raise TryLater(message) from error
    said = f"Sent by {parts.hostname}."
    for address, (code, reason) in refused.items():  # some of the recipients; the others have it
        said += f" Refused for {address}: {code} {_words(reason)}"
    return said


def _parse(url: str) -> SplitResult:
    with suppress(ValueError):  # its words may hold a part of the password
        parts = urlsplit(url)
        if parts.scheme in ("smtp", "smtps") and parts.hostname and parts.port != 0:
            return parts
    message = (
        "SMTP_URL must be like smtp://user:password@host:587 or smtps://host; %40 is an @ in a password."
    )
    raise Refused(message)


def _connect(url: SplitResult) -> smtplib.SMTP:
    """A connection, encrypted if it can be, and logged in. Raises `Refused`, and what smtplib raises."""
    host = url.hostname or ""
    encrypted = url.scheme == "smtps"
    tls = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_S, context=tls)
        if encrypted
        else smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT_S)
    )
    try:
        server.ehlo()
        if not encrypted and server.has_extn("starttls"):
            server.starttls(context=tls)
            encrypted = True
        if url.username:
            if not encrypted and host not in LOOPBACK:
                message = f"The mail server {host} offers no encryption, so it does not get the password."
                raise Refused(message)
            server.login(unquote(url.username), unquote(url.password or ""))
    except BaseException:
        server.close()
        raise
    return server


def _judge(code: int, reason: bytes | str) -> Refused | TryLater:
    """A mail server's answer: 5xx is for good, all else may be over soon."""
    message = f"The mail server answered {code} {_words(reason)}"
    return Refused(message) if 500 <= code < 600 else TryLater(message)


def _words(reason: bytes | str) -> str:
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason


def _by_sendgrid(mail: Mail, key: str) -> str:
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's
        os.environ.get("SENDGRID_URL") or SENDGRID_URL,
        data=json.dumps(_sendgrid_body(mail)).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            return "Handed to SendGrid."
    except urllib.error.HTTPError as error:
        with error:
            message = f"SendGrid answered {error.code}: {_sendgrid_reason(error)}"
            if error.code == 429:
                delay_s = _seconds_to_wait(error.headers)
                raise TryLater(message, delay_s=delay_s, asked_for=True) from error
            raise (TryLater(message) if error.code >= 500 else Refused(message)) from error
    except (OSError, HTTPException) as error:
        message = f"SendGrid cannot be reached: {error}"
        raise TryLater(message) from error


def _sendgrid_body(mail: Mail) -> dict[str, Any]:
    recipients = {"to": mail.to, "cc": mail.cc, "bcc": mail.bcc}
    contents = (("text/plain", mail.text), ("text/html", mail.html))
    return {
        "personalizations": [
            {
                kind: [_sendgrid_address(one) for one in addresses]
                for kind, addresses in recipients.items()
                if addresses
            }
        ],
        "from": _sendgrid_address(mail.sender),
        "subject": mail.subject,
        "content": [{"type": type, "value": value} for type, value in contents if value is not None],
        "custom_args": {"invocation": mail.id},
    }


def _sendgrid_address(address: Address) -> dict[str, str]:
    email = {"email": address.addr_spec}
    return {**email, "name": address.display_name} if address.display_name else email


def _sendgrid_reason(error: urllib.error.HTTPError) -> str:
    text = error.read(10_000).decode("utf-8", "replace")
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["errors"][0]["message"])
    return text[:200] or str(error.reason)


def _seconds_to_wait(headers: Message) -> int:
    with suppress(ValueError):
        if after := headers.get("retry-after"):
            return max(1, min(int(after), 3600))
        if reset := headers.get("x-ratelimit-reset"):  # Unix time
            return max(1, min(int(reset) - int(time.time()), 3600))
    return DELAY_S
