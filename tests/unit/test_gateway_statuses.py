"""Waiting for an invocation's end: who listens too late for the news of it still hears of it soon."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.api import statuses as module
from gateway.api.statuses import Statuses
from quarterhour.broker.port import Status
from quarterhour.clock import SystemClock
from quarterhour.lifecycle import State
from quarterhour.record import Record, waiting
from tests.broker.worlds import invocation


class Records:
    """One invocation, of whose end nobody is told."""

    def __init__(self) -> None:
        self.record = waiting(invocation())

    async def status(self, invocation_id: str) -> Status:
        return Status(record=self.record)

    @asynccontextmanager
    async def changes(self, invocation_id: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        yield asyncio.sleep

    async def read(self, function: str, invocation_id: str) -> Record | None:
        return self.record

    async def write(self, record: Record) -> Record:
        return record


async def test_an_end_that_was_not_heard_is_seen_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 60.0)
    records = Records()
    statuses = Statuses(records, SystemClock(), asyncio.Event())
    began = time.monotonic()
    waits = asyncio.create_task(statuses.status(records.record.id, 60))
    await asyncio.sleep(0)  # it has looked, and listens
    records.record = replace(records.record, state=State.SUCCEEDED)
    status = await waits
    assert status is not None
    assert status.record.state is State.SUCCEEDED
    assert time.monotonic() - began < 30
