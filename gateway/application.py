"""The gateway's rooms, put together for one broker: an ASGI application and the tasks that feed it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import structlog
from quart import Quart

from gateway.api.routes import ApiRooms, add_routes
from gateway.api.statuses import Statuses
from gateway.asgi import App
from gateway.background import Accepter, Backlog
from gateway.body import BodyLimits
from gateway.calls import Caller, watch_calls
from gateway.directory import Functions, Runners, watch_functions, watch_runners
from gateway.edge import Edge, EdgeRooms
from gateway.metrics import Metrics
from gateway.problems import Code, Problem
from gateway.schedules import Schedules
from gateway.upkeep import Upkeep
from quarterhour.broker import Broker
from quarterhour.clock import Clock
from quarterhour.function import Manifest
from quarterhour.settings import GatewaySettings

__all__ = ["Gateway"]

API_BODY_BYTES_MAX = 1024 * 1024

log = structlog.get_logger()


class Gateway:
    """One gateway. `app` is what a server serves; `tasks` have to run meanwhile."""

    def __init__(
        self,
        settings: GatewaySettings,
        broker: Broker,
        clock: Clock,
        stopping: asyncio.Event,
        body: BodyLimits | None = None,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._stopping = stopping
        self.metrics = Metrics()
        self.functions = Functions()
        self.runners = Runners()
        self._backlog = Backlog()
        self._caller = Caller(broker, self.runners, clock.boot)
        self._upkeep = Upkeep(
            broker=broker,
            functions=self.functions,
            backlog=self._backlog,
            metrics=self.metrics,
            clock=clock,
            waiting_age_s=settings.waiting_age_s,
        )
        self._schedules = Schedules(broker, self.functions, clock)
        self.app = cast("App", self._application(settings, body or BodyLimits()))

    def _application(self, settings: GatewaySettings, body: BodyLimits) -> Quart:
        app = Quart("gateway", static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = API_BODY_BYTES_MAX
        add_routes(
            app,
            ApiRooms(
                functions=self.functions,
                runners=self.runners,
                statuses=Statuses(self._broker, self._clock, self._stopping),
                metrics=self.metrics,
                clock=self._clock,
                ready=self._not_ready,
            ),
        )
        edge = Edge(
            cast("App", app.asgi_app),
            EdgeRooms(
                broker=self._broker,
                functions=self.functions,
                backlog=self._backlog,
                caller=self._caller,
                accepter=Accepter(self._broker, self._backlog),
                metrics=self.metrics,
                clock=self._clock,
                body=body,
            ),
            settings,
        )
        app.asgi_app = edge  # type: ignore[method-assign, assignment]
        return app

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run for as long as the gateway serves."""
        return [
            watch_functions(self._broker, self.functions, self._functions_changed),
            watch_runners(self._broker, self.runners, self._clock.boot),
            watch_calls(self._caller),
            self._upkeep.run(),
            self._schedules.run(),
        ]

    def _functions_changed(self, new: list[Manifest], gone: list[str]) -> None:
        self.metrics.withdrawn(gone)
        self.metrics.announced(new)
        for manifest in new:
            if manifest.error is not None:
                log.error("function_cannot_run", function=manifest.name, error=manifest.error)

    def _not_ready(self) -> Problem | None:
        if self._stopping.is_set():
            return Problem(code=Code.NOT_READY, detail="The gateway is about to end.")
        if not self._broker.connected:
            return Problem(
                code=Code.BROKER_UNAVAILABLE, detail="The gateway has no connection to its broker."
            )
        if not self.functions.ready:
            return Problem(code=Code.NOT_READY, detail="The functions have not been read yet.")
        return None
