"""How a process of ours ends: run to its end under uvloop, with a sentence instead of a traceback."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import suppress

import structlog
import uvloop

from quarterhour.errors import QuarterhourError

__all__ = ["run_process"]

log = structlog.get_logger()


def run_process(main: Coroutine[object, object, None]) -> None:
    """Run `main` to its end. Errors of ours end the process with a sentence each and exit status 1."""
    _finish_before_others()
    failed = False
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except* QuarterhourError as errors:
        sentences = dict.fromkeys(f"{error}" for error in _leaves(errors))
        for sentence in sentences:
            log.critical("ended", why=sentence)
        failed = True
    if failed:  # some versions of Python wrap what is raised up there
        sys.exit(1)


def _finish_before_others() -> None:
    """Ask the scheduler not to interrupt this process whenever it wakes another one up (Linux).

    A request wakes NATS, a runner, a worker and all of them back again. On a busy machine each message
    would cost a switch of processes; so several gather and go together. An idle one starts as soon as ever.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
