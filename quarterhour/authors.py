"""The authors' API: what a function may raise to say how its failure is to be handled.

This module and the package's `__init__` are loaded inside workers, under the interpreter of the
function, so they import nothing at all.
"""

__all__ = ["DoNotRetry", "RetryAfter"]


class DoNotRetry(Exception):  # noqa: N818 - it names what is to be done, not what went wrong
    """Raised by a background function that knows that trying again is useless: it fails for good."""


class RetryAfter(Exception):  # noqa: N818 - it names what is to be done, not what went wrong
    """Raised by a background function that knows when trying again makes sense.

    `delay_s` (seconds, 0 or more) replaces the delay of the function's retry policy for this one
    retry; the number of retries stays what the policy says.
    """

    def __init__(self, delay_s: float, message: str = "") -> None:
        """`delay_s`: seconds until the next attempt. `message`: what to show as the error."""
        delay_s = float(delay_s)
        if not 0 <= delay_s < float("inf"):
            text = f"RetryAfter needs a delay of 0 or more seconds, not {delay_s!r}."
            raise ValueError(text)
        super().__init__(message or f"retry after {delay_s:g} s")
        self.delay_s = delay_s
