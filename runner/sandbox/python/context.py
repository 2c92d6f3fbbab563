"""The context: what a handler may ask about its invocation.

Netlify's names and those that Lambda's Python authors know, for the same values. Standard library
only, since it runs under the interpreter of the function. It never stops anything: the guard keeps
the limit, the context only tells how far away it is.

JavaScript's `done`, `fail` and `succeed` are not here: a Python handler has always returned or raised.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Context"]

# The clock of the limit: the one that runs through suspension (see `quarterhour.clock`).
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Context:
    """One for each attempt.

    `invocation_id` is the same in every attempt, `attempt` (1 is the first) tells them apart, and
    `errors` are those of the earlier ones, oldest first, as {"type", "message", ...}. `limit_at` is
    when the attempt is killed, in seconds on the boot clock. `params` are the parts of the path that the
    function's route has names for, by these names, as they were sent.
    """

    # No __slots__: decorators of the authors' may keep something here, as they do with Lambda's.

    function_version = "$LATEST"
    identity = None

    def __init__(
        self,
        *,
        invocation_id: str,
        function: str,
        memory_mib: int,
        attempt: int,
        limit_at: float,
        errors: list[dict[str, Any]],
        params: dict[str, str] | None = None,
    ) -> None:
        self.aws_request_id = self.awsRequestId = invocation_id
        self.function_name = self.functionName = function
        self.memory_limit_in_mb = self.memoryLimitInMB = memory_mib
        # Not None: Netlify's handlers look for `user` and `identity` in it.
        self.client_context: dict[str, Any] = {}
        self.clientContext = self.client_context
        self.callbackWaitsForEmptyEventLoop = True
        self.attempt = attempt
        self.errors = errors
        self.params = params or {}
        self._limit_at = limit_at

    @property
    def invoked_function_arn(self) -> str:
        """A name with the parts of an Amazon Resource Name, for code that takes the last of them."""
        return f"arn:quarterhour:lambda:local:000000000000:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        """What the logs of all the function's invocations have in common."""
        return f"/quarterhour/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        """What the logs of this invocation have in common: its id."""
        return self.aws_request_id

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the attempt is killed, 0 when that moment has come."""
        return max(0, int((self._limit_at - time.clock_gettime(_BOOT)) * 1000))

    def __repr__(self) -> str:
        return f"Context({self.function_name}, {self.aws_request_id}, attempt {self.attempt})"

    # Netlify's names.
    functionVersion = function_version  # noqa: N815
    invokedFunctionArn = invoked_function_arn  # noqa: N815
    logGroupName = log_group_name  # noqa: N815
    logStreamName = log_stream_name  # noqa: N815
    getRemainingTimeInMillis = get_remaining_time_in_millis  # noqa: N815
