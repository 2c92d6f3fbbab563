"""An invocation, and what is wrong with asking for one, as a small page for a browser.

Pure: what the API shows goes in, HTML comes out. Most of what is on the page was written by somebody's
function, or by whoever called it, so that everything is escaped and the page may load and run nothing.
It refreshes itself without a script, until the invocation has its end.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.problems import Problem
from quarterhour.lifecycle import FINAL, State
from quarterhour.retry import BuryReason

__all__ = ["CONTENT_TYPE", "HEADERS", "REFRESH_S", "duration", "invocation_page", "problem_page"]

CONTENT_TYPE = "text/html; charset=utf-8"
REFRESH_S = 2

_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "page.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}

# Not said by colour alone: a sign for the eye, and the word itself.
_SIGNS: Mapping[str, str] = {
    State.DELAYED: "◷",
    State.WAITING: "◷",
    State.RUNNING: "▶",
    State.RETRYING: "↻",
    State.SUCCEEDED: "✓",
    State.DEAD: "✕",
    State.CANCELLED: "⊘",
}

_WHY_DEAD: Mapping[str, str] = {
    BuryReason.FAILED: "failed and is not tried again",
    BuryReason.TIMED_OUT: "took too long and is not tried again",
    BuryReason.CRASHED: "crashed and is not tried again",
    BuryReason.EXPIRED: "had waited for too long before it could start",
    BuryReason.RUNNER_LOST: "was lost with one runner after another and is not tried again",
}

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def invocation_page(shape: Mapping[str, Any], *, now: float, refresh: bool) -> str:
    """The page of an invocation, given as `invocation_shape` makes it.

    `now`: Unix seconds. `refresh`: whether a page that is not final may ask to be loaded again.
    """
    final = shape["state"] in FINAL
    return _ENVIRONMENT.get_template("invocation.html").render(
        shape=shape,
        sign=_SIGNS[shape["state"]],
        sentence=_sentence(shape, now),
        attempts=_attempts(shape),
        result=_pretty(shape["result"]),
        final=final,
        refresh_s=REFRESH_S if refresh and not final else None,
        now=now,
    )


def problem_page(problem: Problem) -> str:
    """The page of a problem; where asking again makes sense it does so by itself."""
    return _ENVIRONMENT.get_template("problem.html").render(
        problem=problem, refresh_s=problem.kind.retry_after_s
    )


def duration(seconds: float) -> str:
    """A length of time for people: 120 ms, 2.1 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{min(seconds, 59.9):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _sentence(shape: Mapping[str, Any], now: float) -> str:
    """What the state means in this case."""
    attempt, reason = shape["attempt"], shape["reason"]
    match shape["state"]:
        case State.DELAYED:
            return f"It is due {_in(_unix(shape['due_at']) - now)}."
        case State.WAITING:
            return (
                f"Attempt {attempt} waits for a runner, for {duration(now - _unix(shape['due_at']))} so far."
            )
        case State.RUNNING:
            return f"Attempt {attempt} has been running for {duration(now - _unix(shape['started_at']))}."
        case State.RETRYING:
            when = _in(_unix(shape["next_attempt_at"]) - now)
            return f"Attempt {attempt} did not succeed; the next one starts {when}."
        case State.SUCCEEDED:
            took = _took(shape["started_at"], shape["finished_at"])
            return f"Attempt {attempt} succeeded in {took}."
        case State.DEAD:
            return f"Attempt {attempt} {_WHY_DEAD[reason]}. What is known of it is kept as a dead letter."
        case _:
            return "Somebody cancelled it."


def _in(seconds: float) -> str:
    return f"in {duration(seconds)}" if seconds > 0 else "now"


def _attempts(shape: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The attempts as rows, the latest first; one that runs is the first of them."""
    ended = [
        {**attempt, "took": _took(attempt["started_at"], attempt["finished_at"])}
        for attempt in reversed(shape["attempts"])
    ]
    if shape["state"] != State.RUNNING:
        return ended
    running = {"attempt": shape["attempt"], "outcome": "running", "started_at": shape["started_at"]}
    return [{**running, "took": None, "runner": shape["runner"], "error": None, "logs": ""}, *ended]


def _pretty(result: Any) -> str | None:
    if result is None or isinstance(result, str):
        return result
    return orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _took(started_at: str, finished_at: str) -> str:
    return duration(_unix(finished_at) - _unix(started_at))


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _visible(value: object) -> object:
    """Text with a sign in the place of each character that a browser would pass over, or take ill."""
    return _UNSEEN.sub(_sign, value) if type(value) is str else value


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "�"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_visible,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["clock"] = _clock
_ENVIRONMENT.globals["style"] = Markup(_STYLE)  # noqa: S704 - our own file
