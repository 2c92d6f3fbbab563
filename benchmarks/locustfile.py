"""Load for where `wrk` is not installed: a user for each connection, who asks again once he is answered.

`load` starts it with Locust, headless, and reads its last line. What to ask for is in the environment:
`LOAD_METHOD` and `LOAD_PATH`. Locust's own statistics are whole milliseconds, so the times are kept here.
"""

import os
import time
from typing import Any

from locust import FastHttpUser, events, task

METHOD, PATH = os.environ["LOAD_METHOD"], os.environ["LOAD_PATH"]

times_ms: list[float] = []
failed = 0
began = time.perf_counter()


class Client(FastHttpUser):
    """One connection."""

    @task
    def ask(self) -> None:
        """One request."""
        self.client.request(METHOD, PATH)


def on_request(response_time: float, exception: BaseException | None, **_: Any) -> None:
    global failed  # noqa: PLW0603 - Locust knows no other place for a sum
    if exception is None:
        times_ms.append(response_time)
    else:
        failed += 1


def on_start(**_: Any) -> None:
    global began  # noqa: PLW0603
    began = time.perf_counter()


def on_stop(**_: Any) -> None:
    """Say what it came to, in the words of wrk's script: numbers, and times in microseconds."""
    duration_us = int((time.perf_counter() - began) * 1e6)
    times_ms.sort()
    count = len(times_ms)
    p50, p99 = (
        int(times_ms[min(count - 1, count * share // 100)] * 1000) if count else 0 for share in (50, 99)
    )
    print(f"RESULT {count + failed} {duration_us} {p50} {p99} {failed} 0", flush=True)


events.request.add_listener(on_request)  # type: ignore[no-untyped-call]
events.test_start.add_listener(on_start)  # type: ignore[no-untyped-call]
events.test_stop.add_listener(on_stop)  # type: ignore[no-untyped-call]
