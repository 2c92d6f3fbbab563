"""The runner's metrics; the only module here that knows the metrics library."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from quarterhour.errors import SettingsError
from quarterhour.function import Manifest, Mode
from quarterhour.outcome import Outcome
from quarterhour.retry import Bury, BuryReason, Disposition, Retry

__all__ = ["Metrics", "serve_metrics"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter

RESULTS = ("succeeded", "failed", "timed_out", "crashed", "cancelled")
# An attempt takes between a millisecond and a quarter of an hour; a queue up to six hours.
ATTEMPT_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900)
QUEUE_BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21600)
PORTS_TRIED_MAX = 100


class Metrics:
    """What happened on this runner. Every series of a served function starts at 0."""

    def __init__(self, *, slots: int) -> None:
        self.registry = CollectorRegistry()
        self._outcomes = Counter(
            "quarterhour_outcomes",
            "Attempts that ended, by what they came to.",
            ["function", "mode", "result"],
            registry=self.registry,
        )
        self._retries = Counter(
            "quarterhour_retries", "Attempts that will be repeated.", ["function"], registry=self.registry
        )
        self._dead_letters = Counter(
            "quarterhour_dead_letters",
            "Invocations set aside, by reason.",
            ["function", "reason"],
            registry=self.registry,
        )
        self._refused = Counter(
            "quarterhour_outcomes_refused",
            "Outcomes that came second and were dropped: another runner's word stood already.",
            ["function"],
            registry=self.registry,
        )
        self._attempt_s = Histogram(
            "quarterhour_attempt_duration_seconds",
            "How long attempts took.",
            ["function", "mode"],
            buckets=ATTEMPT_BUCKETS_S,
            registry=self.registry,
        )
        self._queue_s = Histogram(
            "quarterhour_queue_duration_seconds",
            "How long background invocations waited, from when they were due to the start of the attempt.",
            ["function"],
            buckets=QUEUE_BUCKETS_S,
            registry=self.registry,
        )
        self._running = Gauge(
            "quarterhour_running", "Attempts that run now.", ["function"], registry=self.registry
        )
        Gauge("quarterhour_slots", "How many attempts can run at a time.", registry=self.registry).set(slots)
        # `labels()` formats and locks; the hot path looks its series up in plain dicts.
        self._ended: dict[tuple[str, Mode, str], tuple[Counter, Histogram]] = {}
        self._gauges: dict[str, Gauge] = {}
        self.broker_connected = Gauge(
            "quarterhour_broker_connected", "1 while the broker answers.", registry=self.registry
        )

    def start_at_zero(self, functions: Iterable[Manifest]) -> None:
        """Make every series of these functions exist, so that `increase()` sees the first failure."""
        for manifest in functions:
            modes = {manifest.mode, *([Mode.SCHEDULED] if manifest.schedule is not None else [])}
            for mode in modes:
                for result in RESULTS:
                    self._outcomes.labels(manifest.name, mode, result)
                self._attempt_s.labels(manifest.name, mode)
            for reason in BuryReason:
                self._dead_letters.labels(manifest.name, reason)
            self._retries.labels(manifest.name)
            self._refused.labels(manifest.name)
            self._queue_s.labels(manifest.name)
            self._running.labels(manifest.name)

    def queued(self, function: str, waited_s: float) -> None:
        """A background attempt starts after `waited_s` on the queue."""
        self._queue_s.labels(function).observe(max(0.0, waited_s))

    @contextmanager
    def running(self, function: str) -> Iterator[None]:
        """An attempt runs while this is entered."""
        gauge = self._gauges.get(function)
        if gauge is None:
            gauge = self._gauges[function] = self._running.labels(function)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def ended(self, function: str, mode: Mode, outcome: Outcome, duration_s: float) -> None:
        """An attempt has its outcome."""
        key = (function, mode, outcome.result)
        series = self._ended.get(key)
        if series is None:
            series = self._outcomes.labels(*key), self._attempt_s.labels(function, mode)
            self._ended[key] = series
        outcomes, attempt_s = series
        outcomes.inc()
        attempt_s.observe(duration_s)

    def settled(
        self, function: str, mode: Mode, outcome: Outcome, disposition: Disposition, duration_s: float
    ) -> None:
        """A background attempt's outcome is on record, and so is what follows."""
        self.ended(function, mode, outcome, duration_s)
        match disposition:
            case Retry():
                self._retries.labels(function).inc()
            case Bury(reason=reason):
                self.buried(function, reason)

    def buried(self, function: str, reason: BuryReason) -> None:
        """An invocation became a dead letter."""
        self._dead_letters.labels(function, reason).inc()

    def refused(self, function: str) -> None:
        """An outcome came second."""
        self._refused.labels(function).inc()


def serve_metrics(metrics: Metrics, host: str, port: int) -> tuple[int, WSGIServer, threading.Thread]:
    """Answer Prometheus on the first free port from `port` up. Raises `SettingsError` if none is free."""
    for candidate in range(port, min(port + PORTS_TRIED_MAX, 65536)):
        try:
            server, thread = start_http_server(candidate, host, metrics.registry)
        except OSError as error:
            reason = error
        else:
            return candidate, server, thread
    message = (
        f"No port from {port} up can be used for metrics on {host}: {reason.strerror}; set --metrics-port."
    )
    raise SettingsError(message)
