"""What may become part of an address inside a broker: checked once more, right where one is built.

A name that is no name is a programming error by the time it gets here, hence `ValueError`: what
clients send was checked at the gateway's edge.
"""

from quarterhour.function import is_function_name
from quarterhour.ids import is_invocation_id

__all__ = ["function_token", "invocation_token", "process_token", "runner_token"]


def function_token(name: str) -> str:
    """`name`, if it may name a function."""
    if not is_function_name(name):
        message = f"{name!r} cannot name a function: it takes 1 to 128 of A-Z a-z 0-9 _ -."
        raise ValueError(message)
    return name


def runner_token(name: str) -> str:
    """`name`, if it may name a runner; the same rule as for functions."""
    if not is_function_name(name):
        message = f"{name!r} cannot name a runner: it takes 1 to 128 of A-Z a-z 0-9 _ -."
        raise ValueError(message)
    return name


def process_token(name: str) -> str:
    """`name`, if it may name a kind of process; the same rule as for functions."""
    if not is_function_name(name):
        message = f"{name!r} cannot name a process: it takes 1 to 128 of A-Z a-z 0-9 _ -."
        raise ValueError(message)
    return name


def invocation_token(text: str) -> str:
    """`text`, if it may be the id of an invocation."""
    if not is_invocation_id(text):
        message = f"{text!r} is no invocation id: it takes a UUID in lower case."
        raise ValueError(message)
    return text
