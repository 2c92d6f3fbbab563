"""Access: who may do what, and which web pages may ask for it. Pure: callers and settings are handed in.

It decides before a body is read, and the same whether a function is there or not, so that whoever may not
know one cannot tell it from one that does not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.asgi import Scope, values_of
from gateway.problems import Code, Problem
from gateway.request import Head
from quarterhour.keys import Grant, Role
from quarterhour.listener import is_loopback
from quarterhour.route import is_gateways
from quarterhour.settings import GatewaySettings

__all__ = ["CALLER", "EVERYBODY", "Access", "Caller", "Callers"]

CALLER = "quarterhour.caller"  # where in the scope the API finds who asks

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})  # they tell nothing of what is kept or run
_OF_ALL_FUNCTIONS = frozenset({"/metrics", "/v1/runners"})
_ASKED_FOR = {Role.INVOKE: "invoke this function", Role.READ: "read this", Role.ADMIN: "change this"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever sent a request, and what that one may do. `known`: by a key that the gateway has."""

    grants: tuple[Grant, ...]
    known: bool

    def may(self, role: Role, function: str) -> bool:
        """Whether this is allowed for the function."""
        return any(grant.allows(role, function) for grant in self.grants)

    def may_for_all(self, role: Role) -> bool:
        """Whether this is allowed for all functions."""
        return any(grant.whole and grant.has(role) for grant in self.grants)

    def may_for_some(self, role: Role) -> bool:
        """Whether this is allowed for some function at least."""
        return any(grant.has(role) for grant in self.grants)


EVERYBODY = Caller(grants=(Grant(digest=None, roles=frozenset({Role.ADMIN})),), known=False)


class Callers(Protocol):
    """Tells who sends a request, by the API keys in it."""

    def caller(self, keys: Sequence[bytes]) -> Caller:
        """Who it is; somebody unknown if the keys are none of ours, or if there are several."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request needs: a role, for one function, for all of them, or (neither) for any at all."""

    role: Role
    function: str | None = None
    all: bool = False


class Access:
    """The rules of one gateway. `callers` is None where no API key is needed."""

    def __init__(self, callers: Callers | None, settings: GatewaySettings) -> None:
        self.callers = callers
        self._trusted_origins = frozenset(origin.encode() for origin in settings.cors_origins)
        private = callers is None and not settings.allow_anonymous and is_loopback(settings.host)
        self._only_host = settings.host if private else None

    def to_function(self, head: Head, name: str) -> Problem | None:
        """Why the request may not invoke the function of this name, be there one or not."""
        return self._refusal(Need(role=Role.INVOKE, function=name), self._caller(head), head)

    def to_some_function(self, head: Head) -> Problem | None:
        """Why the request may not invoke any function, while it is not known which one it is for."""
        return self._refusal(Need(role=Role.INVOKE), self._caller(head), head)

    def to_the_rest(self, scope: Scope, head: Head) -> Caller | Problem:
        """Who the caller is, for a path that is no function's, or why this is not for that one."""
        caller = self._caller(head)
        need = need_at(scope["path"], scope["method"])
        if need is None:
            return caller
        return self._refusal(need, caller, head) or self._not_from_here(scope) or caller

    def _not_from_here(self, scope: Scope) -> Problem | None:
        if not is_gateways(scope["path"]):
            return None
        if self._only_host is not None and (problem := unknown_host(scope, self._only_host)):
            return problem
        return cross_site(scope, self._trusted_origins)

    def _caller(self, head: Head) -> Caller:
        return EVERYBODY if self.callers is None else self.callers.caller(head.keys)

    def _refusal(self, need: Need, caller: Caller, head: Head) -> Problem | None:
        return None if self.callers is None else refusal(need, caller, presented=len(head.keys))


def refusal(need: Need, caller: Caller, *, presented: int) -> Problem | None:
    """Why the caller may not have what the request needs. `presented`: how many keys it came with."""
    if presented and not caller.known:
        several = f"This request has {presented} different API keys; send one."
        detail = several if presented > 1 else "The gateway does not know the API key of this request."
        return Problem(code=Code.UNAUTHORIZED, detail=detail)
    if _fits(need, caller):
        return None
    if caller.known:
        detail = f"The API key of this request is not one that may {_ASKED_FOR[need.role]}."
        return Problem(code=Code.FORBIDDEN, detail=detail)
    detail = "This needs an API key, sent as Authorization: Bearer KEY or as X-API-Key: KEY."
    return Problem(code=Code.UNAUTHORIZED, detail=detail)


def _fits(need: Need, caller: Caller) -> bool:
    if need.function is not None:
        return caller.may(need.role, need.function)
    return caller.may_for_all(need.role) if need.all else caller.may_for_some(need.role)


def need_at(path: str, method: str) -> Need | None:
    """What a request needs for a path that is no function's; None if it is open to all.

    Where nothing is, it is as if a function of unknown name were: nobody is told more.
    """
    if not is_gateways(path):
        return Need(role=Role.INVOKE, all=True)
    if path in _OPEN:
        return None
    if method not in _READING:
        return Need(role=Role.ADMIN)
    return Need(role=Role.READ, all="/".join(path.split("/", 3)[:3]) in _OF_ALL_FUNCTIONS)


def cross_site(scope: Scope, trusted_origins: frozenset[bytes] = frozenset()) -> Problem | None:
    """Whether a web page of another site is behind a request that changes something.

    Browsers say so in `Sec-Fetch-Site`, old ones only in `Origin`; programs send neither. A page of a trusted
    origin may. The reasons are in https://words.filippo.io/csrf/.
    """
    if scope["method"] in _READING:
        return None
    sites, origins = values_of(scope, b"sec-fetch-site"), values_of(scope, b"origin")
    if sites:
        ours = all(site in {b"same-origin", b"none"} for site in sites)
    else:
        hosts = values_of(scope, b"host")
        ours = all([origin.partition(b"://")[2]] == hosts for origin in origins)
    if ours or (origins and trusted_origins.issuperset(origins)):
        return None
    detail = "A web page of another site cannot change anything here; --cors-origins names those that may."
    return Problem(code=Code.CROSS_SITE, detail=detail)


def unknown_host(scope: Scope, host: str) -> Problem | None:
    """Whether a request names a host that is not this machine. `host`: where the gateway listens.

    A web page can have its own name lead to 127.0.0.1 and is then of the same site as the gateway; but the
    browser still sends that name.
    """
    for value in values_of(scope, b"host"):
        name = _without_port(value.decode("latin-1")).lower()
        if not (is_loopback(name) or name == host.lower()):
            detail = (
                "A gateway without API keys is for this machine alone, and this is no name of it: "
                "ask it as 127.0.0.1 or localhost, give it keys, or start it with --allow-anonymous."
            )
            return Problem(code=Code.UNKNOWN_HOST, detail=detail)
    return None


def _without_port(text: str) -> str:
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
