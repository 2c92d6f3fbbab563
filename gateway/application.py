"""The gateway's rooms, put together for one broker: an ASGI application and the tasks that feed it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import structlog
from quart import Quart

from gateway.access import Access
from gateway.api.routes import ApiRooms, add_routes
from gateway.api.statuses import Statuses
from gateway.asgi import App
from gateway.background import Accepter, Backlog, StoreRoom
from gateway.bodies import LargeBodies
from gateway.body import BodyLimits, Memory
from gateway.calls import Caller, watch_calls
from gateway.cors import Cors
from gateway.directory import Functions, Runners, watch_functions, watch_runners
from gateway.edge import Edge, EdgeRooms
from gateway.invoking import Invoker, InvokerRooms
from gateway.keyring import Keyring
from gateway.metrics import Metrics
from gateway.pressure import Pressure
from gateway.problems import Code, Problem
from gateway.schedules import Schedules
from gateway.shedding import Shedding
from gateway.upkeep import Upkeep
from quarterhour.broker import Broker
from quarterhour.clock import Clock
from quarterhour.function import Manifest
from quarterhour.settings import GatewaySettings

__all__ = ["Gateway"]

API_BODY_BYTES_MAX = 1024 * 1024

log = structlog.get_logger()


class Gateway:
    """One gateway. `app` is what a server serves, with `shedding`; `tasks` have to run meanwhile."""

    def __init__(
        self,
        settings: GatewaySettings,
        broker: Broker,
        clock: Clock,
        stopping: asyncio.Event,
        keyring: Keyring | None,
        *,
        body: BodyLimits | None = None,
    ) -> None:
        self._keyring = keyring
        self._broker = broker
        self._clock = clock
        self._stopping = stopping
        self._pressure = Pressure(settings.requests_max, settings.lateness_s)
        self.metrics = Metrics()
        self.metrics.watch(self._pressure)
        self.functions = Functions()
        self.shedding = Shedding(self._pressure, self.functions, self.metrics, stopping)
        self.runners = Runners()
        self._backlog = Backlog()
        self._room = StoreRoom()
        self._caller = Caller(broker, self.runners, clock.boot)
        self._upkeep = Upkeep(
            broker=broker,
            functions=self.functions,
            backlog=self._backlog,
            room=self._room,
            metrics=self.metrics,
            clock=clock,
            waiting_age_s=settings.waiting_age_s,
        )
        self._schedules = Schedules(broker, self.functions, clock)
        self.app = cast("App", self._application(settings, body or BodyLimits()))

    def _application(self, settings: GatewaySettings, body: BodyLimits) -> Quart:
        app = Quart("gateway", static_folder=None)
        access = Access(self._keyring, settings)
        app.config["MAX_CONTENT_LENGTH"] = API_BODY_BYTES_MAX
        add_routes(
            app,
            ApiRooms(
                functions=self.functions,
                runners=self.runners,
                statuses=Statuses(self._broker, self._clock, self._stopping),
                queue=self._broker,
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
                access=access,
                invoker=self._invoker(settings, access),
                memory=Memory(settings.body_memory_bytes_max),
                stopping=self._stopping,
                header_bytes_max=settings.header_bytes_max,
                cors=Cors(settings.cors_origins),
                body=body,
            ),
        )
        app.asgi_app = edge  # type: ignore[method-assign, assignment]
        return app

    def _invoker(self, settings: GatewaySettings, access: Access) -> Invoker:
        rooms = InvokerRooms(
            broker=self._broker,
            functions=self.functions,
            backlog=self._backlog,
            room=self._room,
            caller=self._caller,
            accepter=Accepter(self._broker, self._backlog, self._room),
            access=access,
            bodies=LargeBodies(self._broker, waiting_age_s=settings.waiting_age_s),
            metrics=self.metrics,
            pressure=self._pressure,
            shedding=self.shedding,
            clock=self._clock,
        )
        return Invoker(rooms, settings)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run for as long as the gateway serves."""
        return [
            watch_functions(self._broker, self.functions, self._functions_changed),
            watch_runners(self._broker, self.runners, self._clock.boot),
            watch_calls(self._caller),
            self._upkeep.run(),
            self._schedules.run(),
            *([] if self._keyring is None else [self._keyring.watch()]),
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
