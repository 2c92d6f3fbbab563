"""From a request to its fields. Every mistake is a sentence for the one who made the request."""

import base64
import json
from collections.abc import Collection
from typing import Any

from quarterhour import DoNotRetry

__all__ = ["read_fields", "require"]


def read_fields(event: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The fields of the request's JSON body, none for no body. Raises `DoNotRetry`."""
    body = event["body"] or "{}"
    try:
        if event["isBase64Encoded"]:  # as it is for a request without a content type
            body = base64.b64decode(body)
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = f"The body must be JSON: {error}."
        raise DoNotRetry(message) from None
    require(isinstance(fields, dict), "The body must be a JSON object, not another JSON value.")
    for name in fields:
        require(name in known, f"{name!r} is no field of this request; known are {', '.join(known)}.")
    return dict(fields)


def require(fact: object, message: str) -> None:
    """Raise `DoNotRetry` with the message if it is not so: the same request would fail again."""
    if not fact:
        raise DoNotRetry(message)
