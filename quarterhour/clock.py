"""Time as an argument: everything that asks for the time is handed a `Clock`."""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "boot_s"]

# A lease must run out while the machine is suspended too. Linux has a clock of its own for that;
# the monotonic clock of macOS counts the sleep already.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_s() -> float:
    """Seconds on a clock that never jumps and runs on while the machine is suspended."""
    return time.clock_gettime(_BOOT)


class Clock(Protocol):
    """What the rooms need to know about time."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def boot(self) -> float:
        """Seconds on a clock that never jumps and runs on while the machine is suspended."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def boot(self) -> float:
        """Seconds on a clock that never jumps and runs on while the machine is suspended."""
        return boot_s()
