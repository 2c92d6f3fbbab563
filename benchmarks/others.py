"""What else the machine did during a measure: figures from a busy machine are to be told apart."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.processes import busy_s
from benchmarks.report import Report

__all__ = ["watching_others"]


@contextmanager
def watching_others(report: Report) -> Iterator[None]:
    """Note how many processors processes that are none of ours used while this is entered."""
    began, (all_before_s, ours_before_s) = time.monotonic(), busy_s(os.getpid())
    yield
    all_s, ours_s = busy_s(os.getpid())
    others_s = (all_s - all_before_s) - (ours_s - ours_before_s)
    report.others_cores.append(max(0.0, others_s / (time.monotonic() - began)))
