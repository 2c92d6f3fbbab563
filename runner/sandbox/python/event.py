"""The event: what a handler gets to see of its request, in Netlify's shape.

Made in the worker out of the invocation's envelope. Standard library only, since it runs under the
interpreter of the function. It never parses a body: text is decoded, everything else is base64.

`tests/vectors/events.json` has a case for each of its rules, which hold for every runtime.
"""

from __future__ import annotations

import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["make_event"]

_TEXT_TYPES = frozenset(
    {
        "application/csp-report",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/xml",
    }
)
_TEXT_SUFFIXES = ("+json", "+xml")

# Encodings of Python's that are not those of any text on the web; some take quadratic time.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})
_PUNCTUATION = str.maketrans("", "", "-_.:")


def make_event(header: dict[str, Any], body: bytes | None) -> dict[str, Any]:
    """The event of a request.

    `header`: the JSON header of an invocation's envelope. `body`: None if the request had none,
    `b""` if it had an empty one.
    """
    headers, headers_lists = _headers(header["headers"])
    query = header["query"]
    parameters, parameters_lists = _parameters(query) if query else ({}, {})
    text, is_base64 = _body(body, headers.get("content-type", ""))
    path = header["path"]
    address = f"{header['scheme']}://{headers.get('host', 'localhost')}{path}"
    return {
        "path": path,
        "httpMethod": header["method"],
        "queryStringParameters": parameters,
        "multiValueQueryStringParameters": parameters_lists,
        "headers": headers,
        "multiValueHeaders": headers_lists,
        "body": text,
        "isBase64Encoded": is_base64,
        "rawUrl": f"{address}?{query}" if query else address,
        "rawQuery": query,
    }


def _headers(pairs: list[list[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    single: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    repeated: set[str] = set()
    for name, value in pairs:
        if name in lists:
            lists[name].append(value)
            repeated.add(name)
        else:
            single[name] = value
            lists[name] = [value]
    for name in repeated:
        single[name] = ("; " if name == "cookie" else ", ").join(lists[name])
    return single, lists


def _parameters(query: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    lists: dict[str, list[str]] = {}
    for piece in query.split("&"):
        if piece:
            name, _, value = piece.partition("=")
            lists.setdefault(_decoded(name), []).append(_decoded(value))
    return {name: ", ".join(values) for name, values in lists.items()}, lists


def _decoded(text: str) -> str:
    # Bytes first: a client may have sent UTF-8 without encoding it. An invalid %zz stays as it is.
    raw = text.replace("+", " ").encode("latin-1")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")


def _body(body: bytes | None, content_type: str) -> tuple[str | None, bool]:
    if not body:
        return (None if body is None else ""), False
    charset = _charset(content_type)
    if charset is not None:
        try:
            return body.decode(charset), False
        except (LookupError, ValueError):
            pass  # it is not what it says: nothing is lost in base64
    return binascii.b2a_base64(body, newline=False).decode("ascii"), True


def _charset(content_type: str) -> str | None:
    """The encoding of a text's body, None if the content is no text."""
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    is_text = (
        media_type in _TEXT_TYPES or media_type.startswith("text/") or media_type.endswith(_TEXT_SUFFIXES)
    )
    if not is_text:
        return None
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            return charset if _is_charset(charset) else None
    return "utf-8"


def _is_charset(name: str) -> bool:
    # Python looks charsets up by letters and digits alone, so that "utf-8, x" may be one, too.
    plain = name.isascii() and name.translate(_PUNCTUATION).isalnum()
    return plain and name.replace("-", "_") not in _NO_CHARSETS
