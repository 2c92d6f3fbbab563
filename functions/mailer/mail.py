"""From a request to a mail. Every mistake is a sentence for the one who made the request."""

import base64
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any, NoReturn

__all__ = ["BadMail", "Mail", "read_mail"]

FIELDS = ("to", "cc", "bcc", "from", "subject", "text", "html")
RECIPIENTS_MAX = 50
SUBJECT_LENGTH_MAX = 500
ADDRESS_LENGTH_MAX = 320

# "ada@example.org" or "Ada Lovelace <ada@example.org>"
_USER_AT_DOMAIN = r"""([!#-'*+\-/-9=?A-Z^-~.]+)@([^\s<>@,;:"()\\]+)"""
_ADDRESS = re.compile(rf"""(?:([^<>@,;:"()\\]*)<{_USER_AT_DOMAIN}>|{_USER_AT_DOMAIN})""")


class BadMail(Exception):  # noqa: N818 - it says what the request asked for
    """The request does not describe a mail that could be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail to send. `id` is the invocation's: a second attempt sends the same mail, not another."""

    id: str
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    subject: str
    text: str | None
    html: str | None = None

    def as_message(self) -> EmailMessage:
        """The mail as it is written for SMTP; EmailMessage sees to the encoding of every header."""
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = self.to
        if self.cc:
            message["Cc"] = self.cc
        if self.bcc:
            message["Bcc"] = self.bcc
        message["Subject"] = self.subject
        message["Date"] = datetime.now(UTC)
        # Should the mail go out twice after all, then mail programs see by this that it is the same.
        message["Message-ID"] = f"<{self.id}@{self.sender.domain}>"
        if self.text is not None:
            message.set_content(self.text)
        if self.html is not None and self.text is not None:
            message.add_alternative(self.html, subtype="html")
        elif self.html is not None:
            message.set_content(self.html, subtype="html")
        return message


def read_mail(event: dict[str, Any], context: Any) -> Mail:
    """The mail that the request asks for; a built-in sample for no body or `{}`. Raises `BadMail`."""
    fields = _fields(event) or _sample()
    for name in fields:
        if name not in FIELDS:
            _fail(f"{name!r} is no field of a mail; known are {', '.join(FIELDS)}.")
    mail = Mail(
        id=context.aws_request_id,
        sender=_sender(fields),
        to=_addresses(fields, "to"),
        cc=_addresses(fields, "cc"),
        bcc=_addresses(fields, "bcc"),
        subject=_text(fields, "subject") or "",
        text=_text(fields, "text"),
        html=_text(fields, "html"),
    )
    _check(mail)
    return mail


def _check(mail: Mail) -> None:
    if not mail.to:
        _fail("'to' is missing: give an address, or a list of addresses.")
    if len(mail.to) + len(mail.cc) + len(mail.bcc) > RECIPIENTS_MAX:
        _fail(f"A mail may have at most {RECIPIENTS_MAX} recipients.")
    if not mail.subject:
        _fail("'subject' is missing.")
    if len(mail.subject) > SUBJECT_LENGTH_MAX or not mail.subject.isprintable():
        _fail(f"'subject' must be one line of at most {SUBJECT_LENGTH_MAX} characters.")
    if mail.text is None and mail.html is None:
        _fail("'text' is missing ('html' would do as well).")


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    body = event["body"] or "{}"
    try:
        if event["isBase64Encoded"]:  # as it is for a request without a content type
            body = base64.b64decode(body)
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = f'The body must be JSON such as {{"to": "ada@example.org", ...}}: {error}.'
        raise BadMail(message) from None
    if not isinstance(fields, dict):
        _fail("The body must be a JSON object, not another JSON value.")
    return dict(fields)


def _sample() -> dict[str, Any]:
    return {
        # Where mail is really sent, the sample goes to the one who set this up.
        "to": os.environ.get("MAIL_FROM") or ("ada@example.org" if not _is_sent() else None),
        "subject": "A mail from Quarterhour",
        "text": "Hello,\n\nthis is the built-in sample: the request had no body of its own.\n",
    }


def _sender(fields: dict[str, Any]) -> Address:
    if given := _addresses(fields, "from"):
        if len(given) > 1:
            _fail("'from' must be one address.")
        return given[0]
    if configured := os.environ.get("MAIL_FROM"):
        return _address(configured, "MAIL_FROM")
    if _is_sent():
        _fail("The mail has no sender: give 'from', or set MAIL_FROM.")
    return Address("Quarterhour", "quarterhour", "example.org")


def _is_sent() -> bool:
    return any(os.environ.get(name) for name in ("SMTP_URL", "SENDGRID_API_KEY"))


def _addresses(fields: dict[str, Any], name: str) -> tuple[Address, ...]:
    value = fields.get(name) or []
    return tuple(_address(item, f"'{name}'") for item in (value if isinstance(value, list) else [value]))


def _address(value: Any, name: str) -> Address:
    match = _ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match and len(value) <= ADDRESS_LENGTH_MAX and value.isprintable():
        display_name, user, domain, plain_user, plain_domain = match.groups()
        with suppress(UnicodeError):  # a domain that cannot be one
            ascii_domain = (domain or plain_domain).encode("idna").decode()
            return Address((display_name or "").strip(), user or plain_user, ascii_domain)
    message = f"{name} must be an address such as ada@example.org, not {ascii(value)[:80]}."
    raise BadMail(message)


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        _fail(f"'{name}' must be text, not {ascii(value)[:80]}.")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can write one half of a pair, "\ud83d"
        _fail(f"'{name}' holds half a character.")
    return str(value)


def _fail(message: str) -> NoReturn:
    raise BadMail(message)
