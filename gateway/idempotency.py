"""The idempotency key: a request that comes again is answered as the first one was. Pure: no clock, no I/O.

After draft-ietf-httpapi-idempotency-key-header, whose value is a quoted string; most clients leave the
quotes out, so both are the same key.
"""

import hashlib
import re
from collections.abc import Sequence

from gateway.problems import Code, Problem
from quarterhour.broker.port import Key
from quarterhour.invocation import Invocation

__all__ = ["LENGTH_MAX", "key_of", "key_text"]

LENGTH_MAX = 255

_BARE = re.compile(r"[!#-+\--~]+")  # all that can be seen, but no quote, and no comma: that may join two
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')  # a string of RFC 8941
_ESCAPED = re.compile(r'\\(["\\])')


def key_text(values: Sequence[bytes]) -> str | Problem | None:
    """The key that a request's headers say, None if they say none; a problem if it is no key."""
    if not values:
        return None
    text = values[0].decode("latin-1").strip(" \t")
    if len(values) > 1:
        return _problem("There is more than one Idempotency-Key.")
    if _BARE.fullmatch(text) is None:
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            return _problem("Idempotency-Key must be a string of printable characters, best in quotes.")
        text = _ESCAPED.sub(r"\1", quoted[1])
    if len(text) > LENGTH_MAX:
        return _problem(f"Idempotency-Key has {len(text)} characters; {LENGTH_MAX} are allowed.")
    return text


def key_of(text: str, invocation: Invocation, body_digest: bytes) -> Key:
    """The key with all that tells this request from another one with the same key.

    `body_digest`: the SHA-256 of the body, empty or not.
    """
    request = invocation.request
    asked_for = (invocation.function, request.method, request.path, request.query)
    digest = hashlib.sha256("\n".join(asked_for).encode("latin-1"))
    digest.update(b"\n" + body_digest)
    return Key(text=text, fingerprint=digest.hexdigest())


def _problem(detail: str) -> Problem:
    return Problem(code=Code.BAD_IDEMPOTENCY_KEY, detail=detail)
