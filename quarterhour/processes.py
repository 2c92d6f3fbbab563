"""What a child process knows of its parent: whether it is still there.

A parent gives each child the reading end of a pipe and keeps the writing end to itself. Nothing is
ever written; the end of the pipe means that the parent is gone, however it went. That works on every
Unix, needs no polling and cannot mistake another process for the parent.
"""

import asyncio
import os

__all__ = ["LIFELINE", "parent_gone"]

LIFELINE = "QUARTERHOUR_LIFELINE"


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
