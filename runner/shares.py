"""Shares: how many of a runner's slots the background work of one function may have. Pure.

Functions take turns, so short runs never keep others waiting. But one with a long queue and long runs would
soon hold every slot of every runner, and then a lone invocation of another function, or a call, would
wait for a quarter of an hour: so one slot in sixteen is not for what takes long.
"""

from collections.abc import Collection

__all__ = ["Shares"]

LONG_S = 0.1  # others can wait for so long
SLOTS_FOR_ONE = 16  # that are left for each one that is kept free


class Shares:
    """Counts the slots that functions have, or have been promised."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._alone = True
        self._had: dict[str, int] = {}
        self._long: dict[str, bool] = {}  # by function: how its last run was

    def serve(self, functions: Collection[str]) -> None:
        """These share the runner from now on."""
        self._alone = len(functions) < 2
        self._long = {name: long for name, long in self._long.items() if name in functions}

    def left(self, name: str) -> int:
        """How many more slots the function may have now."""
        kept = 0 if self._alone or not self._long.get(name, True) else self._total // SLOTS_FOR_ONE
        return max(0, self._total - kept - self._had.get(name, 0))

    def take(self, name: str, count: int) -> None:
        """So many are promised to the function."""
        self._had[name] = self._had.get(name, 0) + count

    def give_back(self, name: str, count: int = 1) -> None:
        """So many of them are free again."""
        self._had[name] = self._had.get(name, 0) - count
        if not self._had[name]:
            del self._had[name]

    def ran(self, name: str, took_s: float) -> None:
        """A run of the function has ended; what is not known to be short counts as long."""
        self._long[name] = took_s > LONG_S
