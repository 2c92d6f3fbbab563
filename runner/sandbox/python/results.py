"""What a handler returned, as frames for the runner. Standard library only.

It judges nothing: a status or a header goes to the runner as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

__all__ = ["Frame", "InvalidResult", "Outgoing", "ResponseTooLarge", "response_frame", "value_frame"]

CHUNK_BYTES_MAX = 65536
VALUE_BYTES_MAX = 65536

Frame = tuple[dict[str, Any], bytes]
Write = Callable[[dict[str, Any], bytes], None]

_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class ResponseTooLarge(Exception):  # noqa: N818 - shown to authors under this name
    """The body of the response is larger than the operator allows."""


class InvalidResult(Exception):  # noqa: N818 - shown to authors under this name
    """What the handler returned cannot be sent or kept."""


class Outgoing:
    """A response on its way. It goes out bit by bit, unless it is known to be short enough to be one frame.

    `write` sends a frame. `streams`: whether somebody waits; if not, the beginning of the body is kept.
    """

    def __init__(self, write: Write, *, body_bytes_max: int, streams: bool) -> None:
        self._write = write
        self._body_bytes_max = body_bytes_max
        self._streams = streams
        self._head: dict[str, Any] | None = None
        self._whole: list[bytes] | None = None
        self._whole_bytes = 0

    @property
    def begun(self) -> bool:
        """Whether the head was sent, or is there to be sent."""
        return self._head is not None

    def begin(self, head: dict[str, Any], *, whole: bool = False) -> None:
        """`head` has statusCode, headers, multiValueHeaders. `whole`: the body will not take its time."""
        self._head = head
        if whole or not self._streams:
            self._whole = []
        else:
            self._write({"kind": "streaming", **head}, b"")

    def send(self, data: bytes) -> None:
        """The next bytes of the body."""
        if self._whole is None:
            for start in range(0, len(data), CHUNK_BYTES_MAX):
                self._write({"kind": "chunk"}, data[start : start + CHUNK_BYTES_MAX])
            return
        self._whole_bytes += len(data)
        if self._streams and self._whole_bytes > self._body_bytes_max:
            raise _too_large(self._whole_bytes, self._body_bytes_max)
        if self._streams or self._whole_bytes - len(data) < VALUE_BYTES_MAX:
            self._whole.append(data)

    def frame(self) -> Frame:
        """The final frame."""
        if self._head is None or self._whole is None:
            return {"kind": "returned", "shape": "streamed"}, b""
        body = b"".join(self._whole)
        if not self._streams:
            text = body[:VALUE_BYTES_MAX].decode("utf-8", "replace")
            return value_frame({"statusCode": self._head["statusCode"], "body": text})
        kind = "text" if body else "none"
        return {"kind": "returned", "shape": "object", **self._head, "body": kind}, body


def response_frame(result: Any, body_bytes_max: int) -> Frame:
    """The frame of a synchronous result."""
    if not isinstance(result, dict):
        return {"kind": "returned", "shape": "nothing" if result is None else "other"}, b""
    kind, body = _response_body(result)
    if len(body) > body_bytes_max:
        raise _too_large(len(body), body_bytes_max)
    return {"kind": "returned", "shape": "object", **head_of(result), "body": kind}, body


def head_of(result: dict[Any, Any]) -> dict[str, Any]:
    """The head of a result."""
    return {
        "statusCode": result.get("statusCode"),
        "headers": result.get("headers"),
        "multiValueHeaders": result.get("multiValueHeaders"),
    }


def streamed_body(result: Any) -> Iterator[Any] | AsyncIterator[Any] | None:
    """The body of a result that comes bit by bit: a generator, or anything else that is iterated once."""
    body = result.get("body") if isinstance(result, dict) else None
    return body if hasattr(body, "__next__") or hasattr(body, "__anext__") else None


def piece_of(piece: Any) -> bytes:
    """The bytes of what a generator yields."""
    if isinstance(piece, str):
        return _encoded(piece)
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    message = f"A piece of the body is {type(piece).__name__}; it must be str or bytes."
    raise InvalidResult(message)


def value_frame(result: Any) -> Frame:
    """The frame of a background result: the value as JSON, and the status that it may claim."""
    if result is None:
        return {"kind": "returned", "shape": "nothing"}, b""
    try:
        value = _dump(result).encode()
    except (TypeError, ValueError, RecursionError) as error:
        message = f"What the handler returned is not JSON: {error}."
        raise InvalidResult(message) from None
    header: dict[str, Any] = {"kind": "returned", "shape": "other"}
    if isinstance(result, dict) and "statusCode" in result:
        header |= {"shape": "object", "statusCode": result["statusCode"]}
    return header, value[:VALUE_BYTES_MAX]


def _response_body(result: dict[Any, Any]) -> tuple[str, bytes]:
    body = result.get("body")
    if body is None or body == "":
        return "none", b""
    if not isinstance(body, str):
        return "invalid", b""
    if not result.get("isBase64Encoded"):
        return "text", _encoded(body)
    try:
        return "base64", base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return "invalid", b""


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        message = f"The body that the handler returned is no text: {error}."
        raise InvalidResult(message) from None


def _too_large(size_bytes: int, bytes_max: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"The response's body has {size_bytes} bytes; {bytes_max} are allowed.")
