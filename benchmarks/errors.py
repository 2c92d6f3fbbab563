"""How a benchmark ends that cannot give an honest figure: with a sentence, at once."""

from typing import NoReturn

__all__ = ["give_up"]


def give_up(message: str) -> NoReturn:
    """End the benchmark; everything that it started ends with it."""
    raise SystemExit(message)
