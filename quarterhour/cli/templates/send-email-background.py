"""Sends a mail in the background: the 202 comes at once, and the mail goes out as soon as it can.

curl -i -d '{"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."}' \
     -H content-type:application/json localhost:8888/.netlify/functions/send-email-background

The name ends in -background, and that makes it a background function. The 202 says that the mail is
safely on disk; its header Location is where to see what becomes of it.

SMTP_URL   the mail server: smtp://user:password@mail.example.org:587, or smtps://... (%40 is an @)
MAIL_FROM  the sender

Without SMTP_URL the mail is written to the folder .quarterhour/outbox (OUTBOX_DIR: another folder). A
function sees only those variables that are handed to it:

    quarterhour up --function-environment SMTP_URL,MAIL_FROM
"""

import base64
import json
import os
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from quarterhour import DoNotRetry

config = {"retries": 5, "retry_delay": [60, 120, 600]}  # may be left out; the last delay repeats


def handler(event, context):
    try:
        mail = mail_of(event, context.aws_request_id)
    except (ValueError, TypeError, AttributeError) as error:
        # It would be as wrong the next time: it is set aside at once, as a dead letter with this message.
        raise DoNotRetry(f"This is no mail: {error}.") from error
    print(f"attempt {context.attempt}")  # what a function prints goes to the invocation's log
    try:
        message = send(mail, context.aws_request_id)
    except smtplib.SMTPResponseException as error:
        if error.smtp_code >= 500:  # it said no, and means it
            raise DoNotRetry(str(error)) from error
        raise  # any other exception is tried again, after "retry_delay"
    print(message)
    return {"message": message}  # is kept as the invocation's result


def mail_of(event, invocation):
    """The mail that the request asks for; a sample for `{}` and for no body. Raises for a bad request."""
    body = event["body"] or "{}"
    if event["isBase64Encoded"]:  # as it is for a request without a content type
        body = base64.b64decode(body)
    sender = os.environ.get("MAIL_FROM")
    if not sender and os.environ.get("SMTP_URL"):
        raise ValueError("there is no sender, set MAIL_FROM")
    sender = sender or "quarterhour@example.org"
    fields = json.loads(body) or {"to": sender, "subject": "A mail from Quarterhour", "text": "It works."}
    to = fields.get("to") or []
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(to) if isinstance(to, list) else to
    if not mail["To"] or not all(address.domain for address in mail["To"].addresses):
        raise ValueError('"to" must be an address such as "ada@example.org", or a list of them')
    mail["Subject"] = fields.get("subject", "")
    # Should it go out twice after all, mail programs see by this that it is the same mail.
    mail["Message-ID"] = f"<{invocation}@quarterhour>"
    mail.set_content(str(fields.get("text", "")))
    return mail


def send(mail, invocation):
    """Send the mail, and say what has become of it. Raises OSError, as smtplib's errors are as well."""
    if url := os.environ.get("SMTP_URL"):
        with connect(urlsplit(url)) as server:
            refused = server.send_message(mail)
        return f"Refused for some, sent to the others: {refused}" if refused else "Sent."
    folder = Path(os.environ.get("OUTBOX_DIR") or ".quarterhour/outbox")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{invocation}.eml"
    path.write_bytes(bytes(mail))
    return f"Written to {path}. To send it, set SMTP_URL."


def connect(url):
    """A connection to the mail server, encrypted if it can be, and logged in."""
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise OSError("SMTP_URL must be like smtp://user:password@mail.example.org:587")
    tls = ssl.create_default_context()
    if url.scheme == "smtps":
        server = smtplib.SMTP_SSL(url.hostname, url.port or 465, timeout=20, context=tls)
    else:
        server = smtplib.SMTP(url.hostname, url.port or 587, timeout=20)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=tls)
        elif url.username and url.hostname not in ("localhost", "127.0.0.1"):
            raise OSError("it offers no encryption, so it does not get the password")
    if url.username:
        server.login(unquote(url.username), unquote(url.password or ""))
    return server
