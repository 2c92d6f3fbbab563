"""The gateway's metrics; the only module here that knows the metrics library."""

import math
from collections.abc import Collection, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.pressure import Pressure
from quarterhour.broker.port import Depth, StoreUse
from quarterhour.function import Manifest, Mode
from quarterhour.retry import BuryReason

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter

# The answers of which alerts are made; they exist from the start, so that `increase()` sees the first.
FROM_THE_START = {
    Mode.SYNCHRONOUS: (200, 500, 502, 503, 504),
    Mode.BACKGROUND: (202, 429, 503),
    Mode.SCHEDULED: (),
}


class Metrics:
    """What happened at this gateway, and how deep the queues are.

    A name that is no announced function never becomes a label: it counts as the function "".
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter(
            "quarterhour_requests",
            "Requests to functions, by the status of the answer.",
            "function",
            "mode",
            "status",
        )
        self._accepted = self._counter(
            "quarterhour_accepted", "Background invocations that were accepted with 202.", "function"
        )
        self._dead_letters = self._counter(
            "quarterhour_dead_letters",
            "Invocations set aside, by reason; gateways set aside what expired while no runner took it.",
            "function",
            "reason",
        )
        self._waiting = self._gauge(
            "quarterhour_waiting", "Background invocations that wait for a runner.", "function"
        )
        self._delayed = self._gauge(
            "quarterhour_delayed",
            "Background invocations that were accepted for later and are not due yet.",
            "function",
        )
        self._oldest_s = self._gauge(
            "quarterhour_oldest_waiting_seconds",
            "How long the oldest waiting invocation has been due; 0 without one.",
            "function",
        )
        self._connected = self._gauge("quarterhour_broker_connected", "1 while the broker answers.")
        self._store_bytes = self._gauge("quarterhour_store_bytes", "What the broker has stored, in bytes.")
        self._store_limit_bytes = self._gauge(
            "quarterhour_store_limit_bytes",
            "What the broker stores at most, in bytes; infinite where nobody has said so.",
        )
        self._store_limit_bytes.set(math.inf)
        self._under_way = self._gauge(
            "quarterhour_requests_under_way", "Requests to functions that this gateway works on now."
        )
        self._late_s = self._gauge(
            "quarterhour_late_seconds",
            "How late everything is in this gateway; where it stays over --lateness-limit, some are refused.",
        )
        # `labels()` formats and locks; the hot path looks the series up in a plain dict.
        self._series: dict[tuple[str, str, int], Counter] = {}
        self._gauged: set[str] = set()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def watch(self, pressure: Pressure) -> None:
        """Show `pressure` whenever somebody looks."""
        self._under_way.set_function(lambda: pressure.under_way)
        self._late_s.set_function(lambda: pressure.late_s)

    def announced(self, manifests: Collection[Manifest]) -> None:
        """Let every series of these functions exist."""
        for manifest in manifests:
            for status in FROM_THE_START[manifest.mode]:
                self._series_of(manifest.name, manifest.mode, status)
            if manifest.background:
                self._accepted.labels(manifest.name)
            if manifest.has_queue:
                self._dead_letters.labels(manifest.name, BuryReason.EXPIRED)
                self._show(manifest.name, Depth(), now=0.0)
            else:
                self.withdrawn([manifest.name])  # it may have had a queue until now

    def withdrawn(self, names: Collection[str]) -> None:
        """These functions are no more: their queue gauges vanish, what was counted stays counted."""
        for name in self._gauged.intersection(names):
            self._waiting.remove(name)
            self._delayed.remove(name)
            self._oldest_s.remove(name)
            self._gauged.discard(name)

    def request(self, manifest: Manifest | None, status: int) -> None:
        """A request was answered; `manifest` is None if it was for no function."""
        name, mode = (manifest.name, manifest.mode.value) if manifest else ("", "")
        series = self._series.get((name, mode, status)) or self._series_of(name, mode, status)
        series.inc()

    def accepted(self, function: str) -> None:
        """A background invocation is on the queue."""
        self._accepted.labels(function).inc()

    def expired(self, function: str) -> None:
        """An invocation was set aside because it had waited too long."""
        self._dead_letters.labels(function, BuryReason.EXPIRED).inc()

    def depths(self, depths: Mapping[str, Depth], *, now: float) -> None:
        """How deep the queues of the announced functions are. `now`: Unix seconds."""
        for name, depth in depths.items():
            self._show(name, depth, now=now)

    def connected(self, *, connected: bool) -> None:
        """Whether the broker answers."""
        self._connected.set(1 if connected else 0)

    def store(self, use: StoreUse) -> None:
        """How full the broker's store is."""
        self._store_bytes.set(use.used_bytes)
        self._store_limit_bytes.set(math.inf if use.limit_bytes is None else use.limit_bytes)

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _show(self, name: str, depth: Depth, *, now: float) -> None:
        self._gauged.add(name)
        self._waiting.labels(name).set(depth.waiting)
        self._delayed.labels(name).set(depth.delayed)
        oldest_s = 0.0 if depth.oldest_due_at is None else max(0.0, now - depth.oldest_due_at)
        self._oldest_s.labels(name).set(oldest_s)

    def _series_of(self, name: str, mode: str, status: int) -> Counter:
        series = self._requests.labels(name, mode, str(status))
        self._series[name, mode, status] = series
        return series
