"""What a function says about itself, checked and brought together into its manifest. Pure.

Every key has one row in `_KEYS`: what it may be, in code and in words. A value that it may not be
becomes the manifest's error; the function is announced all the same, and its other keys hold.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterhour.function import BACKGROUND_SUFFIX, PREFIX, Manifest, default_route
from quarterhour.retry import RetryPolicy
from quarterhour.route import GATEWAYS, PATH_LENGTH_MAX, compiled
from quarterhour.schedule import is_schedule
from runner.environment import VARIABLE

__all__ = ["KEYS", "Limits", "Reading", "Said", "read_manifest"]

TIMEOUT_S_MAX = 1e9  # the operator's limit is what counts
RETRIES_MAX = 100
RETRY_DELAY_S_MAX = 24 * 3600
CONCURRENCY_MAX = 10_000
MEMORY_MIB_MIN = 64
MEMORY_MIB_MAX = 1024 * 1024
PATHS_MAX = 100

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a method, RFC 9110
_SHOWN_MAX = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The operator's limits of one attempt, in seconds."""

    synchronous_s: float
    background_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one place says. `place` begins the sentences about it: `functions/hello.py: config`."""

    place: str
    values: Mapping[Any, Any]
    in_source: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A manifest, the variables that its function gets, and sentences for the log."""

    manifest: Manifest
    environment: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def read_manifest(
    name: str, runtime: str, said: Sequence[Said], limits: Limits, *, error: str | None = None
) -> Reading:
    """The manifest of a function. Of two places that say something of one key, the first one counts.

    So it is with each variable of `environment`, whose tables are brought together.
    `error`: why the function cannot run, as far as that is known already.
    """
    errors = [error] if error else []
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    environment: dict[str, str] = {}
    for one in said:
        checked, wrong = _check(one)
        errors += wrong
        environment = dict(checked.get("environment", ())) | environment
        for key in checked.keys() - values.keys():
            values[key], places[key] = checked[key], one.place
    if taken := [path for path in values.get("path", ()) if _is_taken(path, name)]:
        errors.append(f"{places['path']}: path is {_shown(taken[0])}, but {_TAKEN}")
        del values["path"]
    background = values.get("background", name.endswith(BACKGROUND_SUFFIX))
    limit_s = limits.background_s if background else limits.synchronous_s
    timeout_s = values.get("timeout", limit_s)
    warnings: tuple[str, ...] = ()
    if timeout_s > limit_s:
        warnings = (_capped(places["timeout"], timeout_s, limit_s, background=background),)
    if "excluded_path" in values and "path" not in values:
        warnings += (f"{places['excluded_path']}: excluded_path does nothing without a path.",)
    policy = RetryPolicy() if background else RetryPolicy(retries=0)
    manifest = Manifest(
        name=name,
        runtime=runtime,
        background=background,
        timeout_s=min(timeout_s, limit_s),
        retry=RetryPolicy(
            retries=values.get("retries", policy.retries),
            delays_s=values.get("retry_delay", policy.delays_s),
        ),
        error=" ".join(errors) or None,
        **{field: values[key] for key, field in _FIELDS.items() if key in values},
    )
    return Reading(manifest=manifest, environment=tuple(sorted(environment.items())), warnings=warnings)


def _check(said: Said) -> tuple[dict[str, Any], list[str]]:
    """The values that are allowed, as the manifest wants them, and a sentence for each other one."""
    values, errors = {}, []
    for key, value in said.values.items():
        name = key if said.in_source else _IN_CAMEL_CASE.get(key, key)
        rule = KEYS.get(name) if isinstance(name, str) else None
        if rule is None:
            errors.append(f"{said.place}: {_shown(key)} is no key; known are {', '.join(KEYS)}.")
        elif rule.toml_only and said.in_source:
            errors.append(f"{said.place}: {key} can be set in quarterhour.toml or netlify.toml only.")
        else:
            try:
                values[name] = rule.read(value)
            except _NotAllowedError as error:
                what = error.what or f"{key} is {_shown(value)}, but"
                errors.append(f"{said.place}: {what} must be {rule.allowed}.")
    return values, errors


def _capped(place: str, timeout_s: float, limit_s: float, *, background: bool) -> str:
    option = "--background-limit" if background else "--synchronous-limit"
    return f"{place}: timeout is {timeout_s:g}, more than {option}, so that {limit_s:g} seconds apply."


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to write down a number of thousands of digits
        return "a huge number"
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


class _NotAllowedError(Exception):
    """A value is none that its key may have. `what` names it where the value must not be shown."""

    def __init__(self, what: str = "") -> None:
        super().__init__(what)
        self.what = what


def _require(allowed: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not allowed:
        raise _NotAllowedError


def _truth(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _number(value: Any, least: float, most: float) -> float:
    _require(isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most)
    return float(value)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        _require(isinstance(value, int) and not isinstance(value, bool) and least <= value <= most)
        return int(value)

    return read


def _timeout(value: Any) -> float:
    seconds = _number(value, 0, TIMEOUT_S_MAX)
    _require(seconds > 0)
    return seconds


def _delays(value: Any) -> tuple[float, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    _require(1 <= len(items) <= RETRIES_MAX)
    return tuple(_number(item, 0, RETRY_DELAY_S_MAX) for item in items)


def _schedule(value: Any) -> str:
    _require(isinstance(value, str) and is_schedule(value))
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    _require(bool(items) and all(isinstance(item, str) for item in items))
    return tuple(items)


def _paths(value: Any) -> tuple[str, ...]:
    paths = _texts(value)
    _require(len(paths) <= PATHS_MAX and all(map(_is_path, paths)))
    return tuple(dict.fromkeys(paths))


def _is_path(text: str) -> bool:
    try:
        compiled(text)
    except ValueError:
        return False
    return True


def _is_taken(path: str, function: str) -> bool:
    """Whether all that the path matches belongs to the gateway, or to a function's default route."""
    return path != default_route(function) and any(map(compiled(path).is_below, (*GATEWAYS, PREFIX)))


def _methods(value: Any) -> tuple[str, ...]:
    methods = _texts(value)
    _require(all(map(_TOKEN.fullmatch, methods)))
    return tuple(method.upper() for method in methods)


def _variables(value: Any) -> tuple[tuple[str, str], ...]:
    _require(isinstance(value, dict))
    for name, text in value.items():
        if not (VARIABLE.fullmatch(name) and isinstance(text, str) and "\0" not in text):
            what = f"environment, with its variable {_shown(name)},"  # the value may be a secret
            raise _NotAllowedError(what)
    return tuple(value.items())


def _returned_status(value: Any) -> str:
    _require(value in ("fail", "ignore"))
    return str(value)


@dataclass(frozen=True, slots=True)
class _Key:
    read: Callable[[Any], Any]
    allowed: str
    toml_only: bool = False


_PATHS = (
    "a path such as '/users/:id', as URLPattern has it: it begins with / and has at most "
    f"{PATH_LENGTH_MAX} characters; or a list of 1 to {PATHS_MAX} such"
)
_TAKEN = (
    f"must be none of the gateway's own addresses ({', '.join(GATEWAYS)} and what is below them), "
    f"and below {PREFIX} none but the function's own."
)

KEYS: Mapping[str, _Key] = {
    "background": _Key(_truth, "true or false"),
    "schedule": _Key(_schedule, "a cron expression, or @hourly, @daily, @weekly, @monthly or @yearly"),
    "path": _Key(_paths, _PATHS),
    "excluded_path": _Key(_paths, _PATHS),
    "method": _Key(_methods, "an HTTP method such as 'GET', or a list of methods"),
    "timeout": _Key(_timeout, "a number of seconds above 0"),
    "retries": _Key(_whole(0, RETRIES_MAX), f"a whole number from 0 to {RETRIES_MAX}"),
    "retry_delay": _Key(
        _delays, f"a number of seconds from 0 to {RETRY_DELAY_S_MAX}, or a list of 1 to {RETRIES_MAX} such"
    ),
    "concurrency": _Key(_whole(1, CONCURRENCY_MAX), f"a whole number from 1 to {CONCURRENCY_MAX}"),
    "memory": _Key(
        _whole(MEMORY_MIB_MIN, MEMORY_MIB_MAX),
        f"a whole number of MiB from {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}",
    ),
    "environment": _Key(_variables, "a table of variables with text values", toml_only=True),
    "returned_status": _Key(_returned_status, "'fail' or 'ignore'"),
}

# Netlify's names of keys, which stand in the TOML files of their users.
_IN_CAMEL_CASE: Mapping[Any, str] = {"excludedPath": "excluded_path"}

# The keys that are a field of the manifest as they are.
_FIELDS: Mapping[str, str] = {
    "schedule": "schedule",
    "path": "path",
    "excluded_path": "excluded_path",
    "method": "method",
    "concurrency": "concurrency",
    "memory": "memory_mib",
    "returned_status": "returned_status",
}
