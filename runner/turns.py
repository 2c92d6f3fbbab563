"""Turns: which function's queue is looked at next, so that none waits behind another. Pure."""

from collections import deque
from collections.abc import Iterable

__all__ = ["Turns"]


class Turns:
    """Functions that may have work, in the order in which they are served.

    A function is in one of three places: idle, in line, or out (its queue is being pulled). A bell
    for one that is out is remembered, so that work that came during a pull is never overlooked.
    """

    def __init__(self, functions: Iterable[str] = ()) -> None:
        self._known = frozenset(functions)
        self._line: deque[str] = deque()
        self._out: dict[str, bool] = {}  # name → rung meanwhile

    def serve(self, functions: Iterable[str]) -> None:
        """From now on just `functions` are known; bells for others are passed over."""
        self._known = frozenset(functions)
        self._line = deque(name for name in self._line if name in self._known)

    def ring(self, functions: Iterable[str]) -> None:
        """These functions may have work."""
        for name in functions:
            if name in self._out:
                self._out[name] = True
            elif name in self._known and name not in self._line:
                self._line.append(name)

    def next(self) -> str | None:
        """The function whose turn it is, which is out until `back`; None if there is no work."""
        if not self._line:
            return None
        name = self._line.popleft()
        self._out[name] = False
        return name

    def back(self, name: str, *, more: bool) -> None:
        """The pull of `name` has ended; `more`: its queue may hold more."""
        rung = self._out.pop(name)
        if more or rung:
            self.ring((name,))

    def share(self, free: int) -> int:
        """How many of `free` slots the function whose turn it is may take: all, or its fair part."""
        return max(1, free // (1 + len(self._line)))
