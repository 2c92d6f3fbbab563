"""Load by HTTP while faults are made: every 202 is remembered with its id, everything else is counted.

Most requests are ordinary; some are sent by halves, some by clients that vanish, some very slowly. Some
of what is accepted is cancelled, before it runs or while it does.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from quarterhour.clock import boot_s
from quarterhour.lifecycle import FINAL
from tests.faults.functions import FUNCTIONS, Function

__all__ = ["Accepted", "Cancel", "Load"]

AT_ONCE_MAX = 200  # requests under way; more are not begun, so that a gateway that hangs costs no memory
ANSWER_S = 15.0
LOOK_EVERY_S = 0.1
RECENT = 200
ODD_SHARE = 0.06  # of the requests are no ordinary ones
CANCEL_SHARE = 0.05  # of what is accepted is cancelled
CANCEL_AFTER_S_MAX = 3.0
SAYS_IT = (200, 409)  # it is cancelled, or had ended before
BODY = b'{"some": "thing"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A 202. `at`: when it was received, on the boot clock."""

    id: str
    function: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """What came of cancelling an invocation: the status of the answer, and when it came (boot s).

    0: there was no answer, or none that says it, so that nobody knows.
    """

    status: int
    at: float


@dataclass
class Load:
    """Requests to `urls` in turn, so many a second; what came of them."""

    urls: Sequence[str]
    per_second: float
    chance: random.Random
    accepted: list[Accepted] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)  # "background 503" and the like
    not_known: int = 0  # background requests that may or may not have been stored
    ends: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)  # as they were seen, and when
    cancels: dict[str, Cancel] = field(default_factory=dict)
    skipped: int = 0
    _under_way: int = 0

    async def run(self, until: float) -> None:
        """Send until `until` (`time.monotonic`), then wait for the answers that are still to come."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with (
            httpx.AsyncClient(timeout=ANSWER_S, limits=limits, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._look(http, until))
            while time.monotonic() < until:
                await asyncio.sleep(self.chance.expovariate(self.per_second))
                if self._under_way >= AT_ONCE_MAX:
                    self.skipped += 1
                    continue
                group.create_task(self._one(http, self._next()))

    async def _look(self, http: httpx.AsyncClient, until: float) -> None:
        """Ask for this and that invocation meanwhile: an end that was once seen has to stay."""
        while time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.accepted:
                id = self.chance.choice(self.accepted[-RECENT:]).id
                with suppress(httpx.HTTPError):
                    answer = await http.get(f"{self.chance.choice(self.urls)}/v1/invocations/{id}")
                    if answer.status_code == 200 and (status := answer.json())["state"] in FINAL:
                        self.ends.setdefault(id, (status, boot_s()))

    async def some(self, http: httpx.AsyncClient, count: int) -> list[str]:
        """So many ordinary background requests; the ids of those that were accepted."""
        before = len(self.accepted)
        background = [each for each in FUNCTIONS.values() if each.background and each.share]
        chosen = [(self.chance.choice(self.urls), self.chance.choice(background)) for _ in range(count)]
        await asyncio.gather(*(self._ordinary(http, *one) for one in chosen))
        return [one.id for one in self.accepted[before:]]

    def _next(self) -> tuple[str, Function, bool]:
        functions = list(FUNCTIONS.values())
        (function,) = self.chance.choices(functions, [each.share for each in functions])
        return self.chance.choice(self.urls), function, self.chance.random() < ODD_SHARE

    async def _one(self, http: httpx.AsyncClient, what: tuple[str, Function, bool]) -> None:
        url, function, odd = what
        self._under_way += 1
        try:
            if odd:
                await self._odd(url, function)
                return
            id = await self._ordinary(http, url, function)
            if id is not None and self.chance.random() < CANCEL_SHARE:
                await asyncio.sleep(self.chance.uniform(0.0, CANCEL_AFTER_S_MAX))
                await self._cancel(http, id)
        finally:
            self._under_way -= 1

    async def _cancel(self, http: httpx.AsyncClient, id: str) -> None:
        self.cancels[id] = Cancel(status=0, at=math.inf)
        try:
            answer = await http.delete(f"{self.chance.choice(self.urls)}/v1/invocations/{id}")
        except httpx.HTTPError as error:
            self.answers[f"cancel {type(error).__name__}"] += 1
            return
        self.answers[f"cancel {answer.status_code}"] += 1
        if answer.status_code in SAYS_IT:
            self.cancels[id] = Cancel(status=answer.status_code, at=boot_s())

    async def _ordinary(self, http: httpx.AsyncClient, url: str, function: Function) -> str | None:
        """Send a request; the id of the invocation if it was accepted."""
        headers = {"content-type": "application/json"}
        if function.delay_s_max:
            headers["x-quarterhour-delay"] = f"{self.chance.uniform(0.3, function.delay_s_max):.2f}"
        kind = "background" if function.background else "synchronous"
        try:
            answer = await http.post(f"{url}{_path(function.name)}", content=BODY, headers=headers)
        except httpx.ConnectError:
            self.answers[f"{kind} not connected"] += 1
        except httpx.HTTPError as error:
            self.answers[f"{kind} {type(error).__name__}"] += 1
            self.not_known += function.background
        else:
            self.answers[f"{kind} {answer.status_code}"] += 1
            if answer.status_code == 202:
                id = answer.headers["x-nf-request-id"]
                self.accepted.append(Accepted(id=id, function=function.name, at=boot_s()))
                return str(id)
            self.not_known += function.background
        return None

    async def _odd(self, url: str, function: Function) -> None:
        """A request that no decent client sends; what it comes to is not known, or nothing."""
        host, _, port = url.removeprefix("http://").partition(":")
        send = self.chance.choice([self._half_sent, self._vanishing, self._slowly])
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    await send(reader, writer, function)
                finally:
                    writer.transport.abort()

    async def _half_sent(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, function: Function
    ) -> None:
        self.answers["half-sent"] += 1
        request = _request("unsent-background")
        writer.write(request[: self.chance.randrange(1, len(request))])
        await writer.drain()
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))

    async def _vanishing(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, function: Function
    ) -> None:
        self.answers["vanished"] += 1
        self.not_known += function.background
        writer.write(_request(function.name))
        await writer.drain()
        await asyncio.sleep(self.chance.uniform(0.0, 0.02))

    async def _slowly(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, function: Function
    ) -> None:
        self.answers["slow"] += 1
        self.not_known += function.background
        request = _request(function.name)
        for start in range(0, len(request), 20):
            writer.write(request[start : start + 20])
            await writer.drain()
            await asyncio.sleep(self.chance.uniform(0.0, 0.2))
        await reader.read(1024)


def _path(function: str) -> str:
    return f"/.netlify/functions/{function}"


def _request(function: str) -> bytes:
    head = f"POST {_path(function)} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(BODY)}\r\n\r\n"
    return head.encode() + BODY
