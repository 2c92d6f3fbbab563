"""Invoking: a request to a function becomes an invocation, and what comes of that becomes its answer.

Here is the order in which a request can fail: who asks, whether it is taken on, when it is due, its body, the
broker, the function. What each of them means is decided in its own room.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import structlog

from gateway.access import Access
from gateway.admission import Admitted, Decision, Unknown, admit
from gateway.arrival import Arrival, log_cut, relay_response, send_answer
from gateway.asgi import Answer
from gateway.background import Accepter, Backlog, StoreRoom
from gateway.bodies import LargeBodies
from gateway.calls import Caller, Relayed
from gateway.delay import due_at_of
from gateway.directory import Functions
from gateway.idempotency import key_of, key_text
from gateway.metrics import Metrics
from gateway.pressure import Pressure
from gateway.problems import Code, Problem, problem_answer
from gateway.request import function_name, request_of
from gateway.response import NOT_FOUND, accepted, outcome_answer
from gateway.routes import at_default_route
from gateway.shedding import WEIGHED, Shedding
from quarterhour.body import Claim
from quarterhour.broker.port import Connection, Stream
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, EnvelopeError, KeyReused, TooLarge
from quarterhour.function import Manifest
from quarterhour.invocation import Invocation
from quarterhour.outcome import Response, Succeeded
from quarterhour.settings import GatewaySettings

__all__ = ["Invoker", "InvokerRooms"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokerRooms:
    """What invoking works with."""

    broker: Connection
    functions: Functions
    backlog: Backlog
    room: StoreRoom
    caller: Caller
    accepter: Accepter
    access: Access
    bodies: LargeBodies
    metrics: Metrics
    pressure: Pressure
    shedding: Shedding
    clock: Clock


class Invoker:
    """Serves requests to functions."""

    def __init__(self, rooms: InvokerRooms, settings: GatewaySettings) -> None:
        self._rooms = rooms
        self._settings = settings

    async def serve(self, request: Arrival) -> None:
        """Answer the request, whole or as its response comes."""
        if request.destination is not None:
            manifest: Manifest | None = request.destination.manifest
            name: str | None = request.destination.manifest.name
        else:
            name = function_name(request.raw_path)
            known = None if name is None else self._rooms.functions.by_name.get(name)
            manifest = at_default_route(known, request.scope["method"])
        try:
            answer = await self._counted(request, name, manifest)
            if not request.begun:
                await send_answer(answer, request)
        finally:
            if request.unwanted:
                await self._rooms.bodies.forget(request.unwanted)

    async def _counted(self, request: Arrival, name: str | None, manifest: Manifest | None) -> Answer:
        pressure = self._rooms.pressure
        pressure.under_way += 1
        try:
            answer = await self._answer(request, name, manifest)
        finally:
            pressure.under_way -= 1
        self._rooms.metrics.request(manifest, answer.status)
        return answer

    async def _answer(self, request: Arrival, name: str | None, manifest: Manifest | None) -> Answer:
        access = self._rooms.access
        if access.callers is not None and (refused := access.to_function(request.head, name or "")):
            return problem_answer(refused)
        # What is no name is no function, whatever is known at the moment.
        decision = Unknown() if name is None else self._decide(request, name, manifest)
        match decision:
            case Unknown():
                return NOT_FOUND
            case Problem():
                return problem_answer(decision)
            case Admitted(manifest=admitted, full=full):
                due_at = due_at_of(request.head, admitted, now=self._rooms.clock.now())
                if isinstance(due_at, Problem):
                    return problem_answer(due_at)
                # A synchronous function has it among its headers: what it means is the author's business.
                key = key_text(request.head.idempotency) if admitted.background else None
                if isinstance(key, Problem):
                    return problem_answer(key)
                request.key = key
                if full is not None and (refused := await self._refused_unless_known(full, admitted, key)):
                    return problem_answer(refused)
                body = await self._read(admitted, request, due_at)
                if isinstance(body, Problem):
                    return problem_answer(body)
                return await self._run(self._invocation(admitted, request, body, due_at), admitted, request)
            case _:
                assert_never(decision)

    def _decide(self, request: Arrival, name: str, manifest: Manifest | None) -> Decision:
        rooms = self._rooms
        rooms.pressure.arrival()
        decision = admit(
            manifest,
            connected=rooms.broker.connected,
            ready=rooms.functions.ready,
            waiting=rooms.backlog.waiting(name),
            waiting_max=self._settings.waiting_max,
            left_bytes=rooms.room.left_bytes,
            call_scheduled=self._settings.call_scheduled,
        )
        if not isinstance(decision, Admitted):
            return decision
        # Asked of those alone who are refused if it complains, so that they are the share that has to be.
        return rooms.shedding.complaint(weighed=WEIGHED in request.scope.get("state", ())) or decision

    async def _refused_unless_known(
        self, full: Problem, manifest: Manifest, key: str | None
    ) -> Problem | None:
        """Nothing new is queued; but a repeat is to be answered as the first one, whoever waits by now."""
        try:
            known = key is not None and await self._rooms.accepter.knows(manifest.name, key)
        except BrokerUnavailable as error:
            detail = f"{error} Nothing was started or queued."
            return Problem(code=Code.BROKER_UNAVAILABLE, detail=detail)
        return None if known else full

    async def _read(
        self, manifest: Manifest, request: Arrival, due_at: float | None
    ) -> bytes | Claim | Problem | None:
        """The body, once all of it has come.

        Whoever still sends is not under way. A client takes as long as it likes for that, so that a few slow
        ones would have everybody else refused; what they cost is bounded by their connections and the memory
        of bodies. But any number may be sending, and done at once: so there has to be room in the end, too.
        """
        rooms = self._rooms
        request.digest = None if request.key is None else hashlib.sha256()

        async def keep(chunks: AsyncIterator[bytes]) -> Claim:
            delay_s = 0.0 if due_at is None else max(0.0, due_at - rooms.clock.now())
            return await rooms.bodies.keep(
                request.id, manifest, chunks, delay_s=delay_s, digest=request.digest
            )

        rooms.pressure.under_way -= 1
        try:
            body = await request.incoming.read(self._settings.request_bytes_max, keep)
        except BrokerUnavailable as error:
            log.warning("body_not_stored", function=manifest.name, why=str(error))
            detail = f"{error} Nothing was started or queued."
            return Problem(code=Code.BROKER_UNAVAILABLE, detail=detail)
        finally:
            rooms.pressure.under_way += 1
        overloaded = rooms.shedding.complaint(weighed=True)
        if isinstance(body, bytes) and request.digest is not None:
            request.digest.update(body)
        if isinstance(body, Claim) and (overloaded or not manifest.background):
            request.unwanted.append(body)
        if overloaded and not isinstance(body, Problem):
            return overloaded
        return body

    def _invocation(
        self, manifest: Manifest, request: Arrival, body: bytes | Claim | None, due_at: float | None
    ) -> Invocation:
        now = self._rooms.clock.now()
        return Invocation(
            id=request.id,
            function=manifest.name,
            mode=manifest.mode,
            attempt=1,
            accepted_at=now,
            due_at=now if due_at is None else max(due_at, now),
            request=request_of(
                request.scope,
                request.head,
                request.raw_path,
                request_id=request.id,
                trusted=self._settings.trusted_proxies,
                params=request.destination.params if request.destination else {},
            ),
            body=None if isinstance(body, Claim) else body,
            claim=body if isinstance(body, Claim) else None,
            trace=request.head.trace,
        )

    async def _run(self, invocation: Invocation, manifest: Manifest, request: Arrival) -> Answer:
        try:
            if manifest.background:
                return await self._accept(invocation, request)
            return await self._call(invocation, manifest, request)
        except BrokerUnavailable as error:
            detail = f"{error} It is not known whether the invocation was taken on."
            problem = Problem(code=Code.BROKER_UNAVAILABLE, detail=detail)
        except KeyReused as error:
            problem = Problem(code=Code.IDEMPOTENCY_KEY_REUSED, detail=str(error))
        except TooLarge as error:
            problem = Problem(code=Code.BODY_TOO_LARGE, detail=str(error))
        except EnvelopeError as error:
            problem = Problem(code=Code.BAD_REPLY, detail=str(error))
        except Exception:
            # A fault of ours in one request: the client gets an answer of ours, not a server's.
            log.exception("request_failed", function=manifest.name, invocation=invocation.id)
            problem = Problem(code=Code.INTERNAL, detail="The gateway failed; its log says why.")
        log.warning("request_refused", function=manifest.name, code=problem.code, why=problem.detail)
        return problem_answer(problem)

    async def _accept(self, invocation: Invocation, request: Arrival) -> Answer:
        key = None
        if request.key is not None and request.digest is not None:
            key = key_of(request.key, invocation, request.digest.digest())
        stored = None
        try:
            stored = await self._rooms.accepter.accept(invocation, key)
        except (KeyReused, TooLarge):
            stored = ""  # for certain; otherwise it may be stored all the same
            raise
        finally:
            if invocation.claim is not None and stored not in {None, invocation.id}:
                request.unwanted.append(invocation.claim)
        if stored == invocation.id:
            self._rooms.metrics.accepted(invocation.function)
        request.id = stored  # what the client knows the invocation by, whichever request was first
        return accepted(stored, replayed=stored != invocation.id)

    async def _call(self, invocation: Invocation, manifest: Manifest, request: Arrival) -> Answer:
        result = await self._rooms.caller.call(invocation, manifest, partial(_relay_stream, request))
        if isinstance(result, Relayed):
            return Answer(status=result.status)
        if isinstance(result, Succeeded) and result.response.claim is not None:
            request.unwanted.append(result.response.claim)
            if result.response.size_bytes <= self._settings.response_bytes_max:
                return await self._send_large(request, result.response, result.response.claim)
        if isinstance(result, Problem):
            if request.begun:
                log_cut(request, result.detail)
            return problem_answer(result)
        return outcome_answer(
            result,
            expose_errors=self._settings.expose_errors,
            body_bytes_max=self._settings.response_bytes_max,
        )

    async def _send_large(self, request: Arrival, head: Response, claim: Claim) -> Answer:
        """Send a response whose body lies in the broker."""
        await relay_response(request, head, self._rooms.bodies.read(claim))
        return Answer(status=head.status)


async def _relay_stream(request: Arrival, stream: Stream) -> None:
    await relay_response(request, stream.head, stream.chunks)
