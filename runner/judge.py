"""Judging: what a worker's result frame means, once, for every runtime and both modes. Pure.

A worker runs code that is not ours, so nothing in its frame is believed: whatever stands there, the
outcome is one that can be encoded, stored and sent. It never decides what is done about an outcome.
"""

import re
from typing import Any, Literal

import orjson

from quarterhour.function import Mode
from quarterhour.outcome import Crashed, Error, Failed, Outcome, Response, Succeeded
from quarterhour.record import RESULT_BYTES_MAX

__all__ = ["HEADERS_BYTES_MAX", "RETRY_AFTER_S_MAX", "judge", "judge_end", "judge_head"]

HEADERS_BYTES_MAX = 64 * 1024  # of a response, as of a request
MESSAGE_CHARACTERS_MAX = 8 * 1024
TRACE_LINES_MAX = 50
TRACE_LINE_CHARACTERS_MAX = 1024
TYPE_CHARACTERS_MAX = 256
RETRY_AFTER_S_MAX = 24 * 3600.0  # as for `retry_delay`
_EXACT_BELOW = 10**21  # from here on JavaScript writes numbers with an exponent
_SHOWN_CHARACTERS_MAX = 80
_BODY_SHOWN_CHARACTERS_MAX = 500

_STATUS = re.compile(r"[2-5][0-9]{2}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
# What no header may have in it: control characters, which end a line somewhere, and halves of
# characters, which no encoding has bytes for.
_NOT_IN_A_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

# They describe the connection or the body as it is sent, which the gateway knows better.
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class _InvalidResultError(Exception):
    """What the handler returned is no result; the message is the sentence that says why."""


def judge(
    header: dict[str, Any], body: bytes, *, mode: Mode, returned_status: Literal["fail", "ignore"]
) -> Outcome:
    """The outcome of an attempt whose worker sent `header` and `body` (docs/architecture.md, "Frames")."""
    try:
        kind = header.get("kind")
        if kind == "raised":
            return (
                Crashed(detail="ran out of memory")
                if header.get("out_of_memory") is True
                else _raised(header)
            )
        if kind != "returned":
            message = f"The worker sent a result of the unknown kind {_shown(kind)}."
            raise _InvalidResultError(message)
        if mode is Mode.SYNCHRONOUS:
            return Succeeded(response=_response(header, body))
        return _judge_value(header, body, returned_status)
    except _InvalidResultError as invalid:
        # The handler did its work: to do it again would not make the result any better.
        return Failed(error=Error(type="InvalidResult", message=str(invalid)), retry=False)


def judge_head(header: dict[str, Any]) -> Response | Failed:
    """The status and the headers of a response whose body comes bit by bit."""
    try:
        status = _status(header.get("statusCode"))
        return Response(
            status=status, headers=_headers(header.get("headers"), header.get("multiValueHeaders"))
        )
    except _InvalidResultError as invalid:
        return Failed(error=Error(type="InvalidResult", message=str(invalid)), retry=False)


def judge_end(header: dict[str, Any], body: bytes) -> Outcome:
    """The outcome of an attempt that was sending its response bit by bit."""
    if header.get("kind") == "returned":
        if header.get("shape") == "streamed":
            return Succeeded()
        header = {"kind": "a second response"}
    return judge(header, body, mode=Mode.SYNCHRONOUS, returned_status="fail")


def _response(header: dict[str, Any], body: bytes) -> Response:
    shape = header.get("shape")
    if shape != "object":
        what = "nothing" if shape == "nothing" else "a value that is no object"
        message = f'The function returned {what}; a result is an object with a "statusCode".'
        raise _InvalidResultError(message)
    status = _status(header.get("statusCode"))
    headers = _headers(header.get("headers"), header.get("multiValueHeaders"))
    body_kind = header.get("body")
    if body_kind == "none" or status in {204, 304}:
        return Response(status=status, headers=headers)
    if body_kind not in ("text", "base64"):
        message = (
            'The function returned a "body" that cannot be sent: it must be a string, and base64'
            ' if "isBase64Encoded" is true.'
        )
        raise _InvalidResultError(message)
    return Response(status=status, headers=headers, body=body)


def _status(raw: object) -> int:
    if type(raw) is int:
        status = raw
    elif isinstance(raw, str) and _STATUS.fullmatch(raw):
        status = int(raw)
    elif isinstance(raw, float) and raw.is_integer():
        status = int(raw)  # JSON has but one kind of number, and some write 200.0
    else:
        message = f'The function returned {_shown(raw)} as "statusCode"; it must be a number from 200 to 599.'
        raise _InvalidResultError(message)
    if not 200 <= status <= 599:
        message = f'The function returned the "statusCode" {_shown(raw)}; it must be from 200 to 599.'
        raise _InvalidResultError(message)
    return status


def _headers(single: object, lists: object) -> tuple[tuple[str, str], ...]:
    """The pairs to send, names lower case. A later name replaces an earlier one that differs in case only."""
    if not single and not lists:
        return ()
    values: dict[str, tuple[str, ...]] = {}
    for name, value in _items("headers", single):
        if value is not None:
            values[_name(name)] = (_value(name, value),)
    for name, items in _items("multiValueHeaders", lists):
        if items is not None:
            every = items if isinstance(items, list) else [items]
            values[_name(name)] = tuple(_value(name, item) for item in every if item is not None)
    pairs = tuple(
        (name, value) for name, every in values.items() if name not in _OF_THE_CONNECTION for value in every
    )
    size_bytes = sum(len(name) + len(value.encode()) for name, value in pairs)
    if size_bytes > HEADERS_BYTES_MAX:
        message = f"The function returned headers of {size_bytes} bytes; {HEADERS_BYTES_MAX} are allowed."
        raise _InvalidResultError(message)
    return pairs


def _items(key: str, raw: object) -> Any:
    if raw is None:
        return ()
    if isinstance(raw, dict):
        return raw.items()
    message = f'The function returned {_shown(raw)} as "{key}"; it must be an object.'
    raise _InvalidResultError(message)


def _name(name: object) -> str:
    if isinstance(name, str) and _TOKEN.fullmatch(name):
        return name.lower()
    message = f"The function returned a header with the bad name {_shown(name)}."
    raise _InvalidResultError(message)


def _value(name: object, value: object) -> str:
    text = value if isinstance(value, str) else _scalar_text(name, value)
    if _NOT_IN_A_VALUE.search(text):
        message = f"The function returned the header {_shown(name)} with characters that no header may have."
        raise _InvalidResultError(message)
    return text.strip(" \t")  # space around a value belongs to nobody, and HTTP servers refuse to send it


def _scalar_text(name: object, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_BELOW:
        return str(int(value))  # 1, not 1.0: as JavaScript writes it
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _EXACT_BELOW):
        return str(value)
    message = (
        f"The function returned {_shown(value)} as the header {_shown(name)}; it must be a string"
        ' (in "multiValueHeaders": a list of strings).'
    )
    raise _InvalidResultError(message)


def _judge_value(header: dict[str, Any], body: bytes, returned_status: str) -> Outcome:
    """What a function returned whom nobody waits for; only an object with a "statusCode" claims a status."""
    if header.get("body") == "invalid":
        message = "The function returned a value that is not JSON; it may return nothing, or any JSON value."
        raise _InvalidResultError(message)
    if header.get("shape") == "object" and "statusCode" in header and returned_status != "ignore":
        status = _status(header["statusCode"])
        if status >= 400:
            message = f"The function returned the status {status}{_start_of_body(body)}"
            return Failed(error=Error(type="ReturnedStatus", message=message), retry=status >= 500)
    return Succeeded(value=body[:RESULT_BYTES_MAX] or None)


def _start_of_body(value: bytes) -> str:
    """How the `body` in a returned value (JSON) begins, as the end of a sentence."""
    text: object = value[: _BODY_SHOWN_CHARACTERS_MAX * 4].decode("utf-8", "replace")
    if len(value) <= RESULT_BYTES_MAX:  # to show a few words, no more than that is parsed
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError:
            pass
        else:
            text = parsed.get("body") if isinstance(parsed, dict) else None
    if not isinstance(text, str) or not text:
        return "."
    return ": " + _bounded(text, _BODY_SHOWN_CHARACTERS_MAX)


def _raised(header: dict[str, Any]) -> Failed:
    raw = header.get("error")
    error = raw if isinstance(raw, dict) else {}
    lines = error.get("trace")
    return Failed(
        error=Error(
            type=_text(error.get("type"), TYPE_CHARACTERS_MAX) or "Error",
            message=_text(error.get("message"), MESSAGE_CHARACTERS_MAX),
            trace=tuple(
                _text(line, TRACE_LINE_CHARACTERS_MAX)
                for line in (lines[-TRACE_LINES_MAX:] if isinstance(lines, list) else ())
            ),
        ),
        retry=header.get("retry") is not False,
        retry_after_s=_retry_after_s(header.get("retry_after_s")),
    )


def _retry_after_s(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not raw >= 0:  # NaN is not, either
        return None
    return float(min(raw, RETRY_AFTER_S_MAX))


def _text(raw: object, characters_max: int) -> str:
    return _bounded(raw, characters_max) if isinstance(raw, str) else ""


def _bounded(text: str, characters_max: int) -> str:
    """The text, no longer than allowed and of whole characters only, so that every encoding can have it."""
    if len(text) > characters_max:
        text = text[: characters_max - 1] + "…"
    return _SURROGATE.sub("�", text)


def _shown(raw: object) -> str:
    """A raw value as it stands in a sentence."""
    if isinstance(raw, (dict, list)):
        return "an object" if isinstance(raw, dict) else "a list"
    if isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) >= _EXACT_BELOW:
        return "a number of very many digits"
    return _bounded("null" if raw is None else repr(raw), _SHOWN_CHARACTERS_MAX)
