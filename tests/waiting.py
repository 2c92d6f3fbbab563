"""Waiting for a state: poll with a deadline. No test sleeps in the hope that a state comes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, overload

__all__ = ["eventually", "eventually_sync", "whole_lines"]

POLL_S = 0.01
POLL_S_MAX = 0.1  # for checks that take long themselves, so that waiting does not keep the machine busy

T = TypeVar("T")


@overload
async def eventually(
    check: Callable[[], Awaitable[T | None]], *, deadline_s: float = ..., what: str = ...
) -> T: ...
@overload
async def eventually(check: Callable[[], T | None], *, deadline_s: float = ..., what: str = ...) -> T: ...
async def eventually(check: Callable[[], Any], *, deadline_s: float = 30.0, what: str = "") -> Any:
    """The first true value of `check`, a plain or a coroutine function; at the deadline the test fails.

    `what` completes the sentence "Within 30 s it never came to be that ...".
    """
    ends_at = time.monotonic() + deadline_s
    while True:
        began = time.monotonic()
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        _fail_if_late(ends_at, deadline_s, what, value)
        took_s = time.monotonic() - began
        await asyncio.sleep(min(max(POLL_S, 2 * took_s), POLL_S_MAX))


def eventually_sync(check: Callable[[], T | None], *, deadline_s: float = 30.0, what: str = "") -> T:
    """The same for tests without an event loop."""
    ends_at = time.monotonic() + deadline_s
    while not (value := check()):
        _fail_if_late(ends_at, deadline_s, what, value)
        time.sleep(POLL_S)
    return value


def _fail_if_late(ends_at: float, deadline_s: float, what: str, value: object) -> None:
    if time.monotonic() > ends_at:
        message = (
            f"Within {deadline_s:g} s it never came to be that {what or 'the check was true'}: {value!r}"
        )
        raise AssertionError(message)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that somebody else appends to: what is just being written is no line yet."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
