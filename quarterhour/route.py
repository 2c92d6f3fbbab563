"""Routes of functions' own: what a path may be, and which requests it matches. Pure.

A path is the pathname of a URLPattern (https://urlpattern.spec.whatwg.org/): `/users/:id`, `/files/*`,
`/(en|de)?`. Runners check paths with it, gateways match requests with it, so that both mean the same.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from urlpattern import URLPattern

__all__ = ["GATEWAYS", "PATH_LENGTH_MAX", "Pattern", "compiled", "example", "is_gateways"]

PATH_LENGTH_MAX = 1024
MATCHED_LENGTH_MAX = 8192  # of a request's path; no pattern matches a longer one

# The addresses of the gateway itself, each with everything below it; no function is ever asked for them.
GATEWAYS = ("/v1", "/healthz", "/readyz", "/metrics", "/console", "/openapi.json")
_GATEWAYS = frozenset(GATEWAYS)

_ALLOWED = re.compile(r"/[!-\"$-~\u00a1-\U0010ffff]*")  # no white space, no control characters, no #
_SPECIAL = re.compile(r"[:*?+{}()\\]")
_PART = re.compile(r":\w+(?:\([^)]*\))?[?+*]?|\([^)]*\)[?+*]?|\*|\{[^}]*\}\?")
_NOTHING: Mapping[str, str] = {}


class Pattern:
    """One path, compiled.

    `text` is how its author wrote it. `literal` is the one path that it matches, None if it may match
    several; `start` is what stands before its first part that is not fixed, `fixed` what all of them
    begin with.
    """

    __slots__ = ("_pattern", "fixed", "literal", "start", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` if it is no path, with no words for people."""
        if len(text) > PATH_LENGTH_MAX or not _ALLOWED.fullmatch(text):
            raise ValueError(text)
        self._pattern = URLPattern({"pathname": text})
        self.text = text
        shown = self._pattern.pathname  # as a request has it: é is %C3%A9
        special = _SPECIAL.search(shown)
        self.literal = shown if special is None else None
        self.start = shown if special is None else shown[: special.start()]
        # The last slash belongs to what follows: /users/:id? matches /users.
        self.fixed = self.start.rstrip("/")

    def is_below(self, path: str) -> bool:
        """Whether it says itself that all that it matches is `path`, or below it."""
        return self.start.startswith(f"{path}/") or self.literal == path

    def match(self, path: str) -> Mapping[str, str] | None:
        """The parts of `path` (raw, as it was sent) that have names, None if it does not match.

        As with Netlify, a slash at the end of the path may be too many. The parts are as they were sent, too;
        those without names are "0", "1", and so on, and those that are not there are left out.
        """
        found = self._match(path)
        return self._match(path[:-1]) if found is None and len(path) > 1 and path[-1] == "/" else found

    def _match(self, path: str) -> Mapping[str, str] | None:
        if self.literal is not None:
            return _NOTHING if path == self.literal else None
        if not path.startswith(self.fixed) or len(path) > MATCHED_LENGTH_MAX:
            return None
        result = self._pattern.exec({"pathname": path})
        # It reads a path as browsers do, so that /a/../b is /b. What is not what it says matches nothing.
        if result is None or result["pathname"]["input"] != path:
            return None
        return {name: part for name, part in result["pathname"]["groups"].items() if part is not None}


@lru_cache(maxsize=4096)
def compiled(text: str) -> Pattern:
    """The pattern of a path; compiling takes a third of a millisecond. Raises `ValueError`."""
    return Pattern(text)


def is_gateways(path: str) -> bool:
    """Whether a decoded path is one of the gateway's own, or below one of them."""
    return "/" + path[1:].partition("/")[0] in _GATEWAYS


def example(text: str) -> str | None:
    """A path that the pattern matches, None if there is no simple one."""
    pattern = compiled(text)
    tried = pattern.literal or _PART.sub(lambda part: "" if part[0][0] == "{" else "1", text)
    return tried if pattern.match(tried) is not None else None
