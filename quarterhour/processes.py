"""What our processes have in common: how they end, what they know of their parent, what others see of them.

A parent gives each child the reading end of a pipe and keeps the writing end to itself. Nothing is
ever written; the end of the pipe means that the parent is gone, however it went. That works on every
Unix, needs no polling and cannot mistake another process for the parent.
"""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from quarterhour.errors import QuarterhourError

__all__ = [
    "LIFELINE",
    "ParentGone",
    "background",
    "end_with_parent",
    "keep_others_out",
    "parent_gone",
    "raise_descriptors",
    "settle_memory",
    "stop_on_signals",
    "unless_stopped",
]

LIFELINE = "QUARTERHOUR_LIFELINE"
_PR_SET_DUMPABLE = 4

T = TypeVar("T")


class ParentGone(QuarterhourError):  # noqa: N818 - a state of affairs
    """Whoever started this process is gone: it ends at once, as if it had been killed too."""

    code = "parent_gone"


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set: the process is to end in good order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def keep_others_out() -> None:
    """Let no other process of this user look into this one (Linux): there are passwords in it.

    Its memory, environment and descriptors are root's alone from now on, and it leaves no core file.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_descriptors(wanted: int) -> int:
    """Have this process allowed so many open files, as far as it may; how many it is allowed then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # macOS has a limit of its own besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft


def settle_memory() -> None:
    """Tell the garbage collector that what is there now is there to stay: it need not look at it again.

    Each full collection would otherwise go through every module, tens of milliseconds long.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the coroutines while this is entered; an error in one of them ends the whole."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def unless_stopped(stop: asyncio.Event, doing: Awaitable[T]) -> T | None:
    """What `doing`, which stays in this task, comes to; None if `stop` is set first, which cancels it."""
    timer = asyncio.timeout(None)
    try:
        async with timer, background(_expire(timer, stop)):
            return await doing
    except TimeoutError:
        if timer.expired():
            return None
        raise


async def _expire(timer: asyncio.Timeout, stop: asyncio.Event) -> None:
    await stop.wait()
    timer.reschedule(asyncio.get_running_loop().time())


async def end_with_parent(stop: asyncio.Event) -> None:
    """Raise `ParentGone` when the parent that gave this process a lifeline is gone.

    `stop` is set as well: the cancellation that the error brings can get lost on its way, in a
    library's `wait_for` that is done in the same moment.
    """
    await parent_gone()
    stop.set()
    message = "The process that started this one is gone, so it ends too."
    raise ParentGone(message)


async def parent_gone() -> None:
    """Return when the parent that gave this process a lifeline is gone; without one, never."""
    text = os.environ.pop(LIFELINE, None)  # a pipe has one watcher, and functions need not know of it
    gone = asyncio.Event()
    if text is None:
        await gone.wait()
        return
    descriptor = int(text)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - it takes no keyword
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
