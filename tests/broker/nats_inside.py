"""Looking into a NATS server past the adapter, for tests of what only NATS does."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import nats
import orjson
import pytest
from nats.aio.client import Client

from quarterhour.broker.nats.link import Msg
from quarterhour.broker.nats.pulls import Pull

__all__ = ["Inside", "look_inside", "pulling_patiently"]

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """JetStream's own view of a namespace."""

    client: Client
    namespace: str

    async def api(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        payload = orjson.dumps(body) if body is not None else b""
        answer: dict[str, Any] = orjson.loads(
            (await self.client.request(f"$JS.API.{name}", payload, timeout=30)).data
        )
        assert "error" not in answer, answer
        return answer

    async def count(self, subjects: str = ">") -> int:
        return len(await self.subjects(subjects))

    async def subjects(self, subjects: str = ">") -> list[str]:
        body = {"subjects_filter": f"{self.namespace}.{subjects}"}
        state = (await self.api(f"STREAM.INFO.{self.namespace}", body))["state"]
        return list(state.get("subjects") or {})

    async def queue(self, function: str = "report") -> dict[str, Any]:
        return await self.api(f"CONSUMER.INFO.{self.namespace}.fn-{function}")

    async def waiting(self, function: str = "report") -> int:
        """How many the queue has seen and not delivered."""
        count: int = (await self.queue(function))["num_pending"]
        return count

    async def consumers(self) -> set[str]:
        return set((await self.api(f"CONSUMER.NAMES.{self.namespace}"))["consumers"] or ())

    async def message(self, subject: str) -> tuple[dict[str, str], bytes]:
        """Headers and payload of what lies at a subject."""
        name = f"$JS.API.DIRECT.GET.{self.namespace}.{self.namespace}.{subject}"
        found = await self.client.request(name, timeout=30)
        return found.headers or {}, found.data

    async def put(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Store a message the way a stranger would."""
        answer = await self.client.request(
            f"{self.namespace}.{subject}", payload, headers=headers, timeout=30
        )
        assert b"error" not in answer.data, answer.data


@asynccontextmanager
async def look_inside(url: str, namespace: str) -> AsyncIterator[Inside]:
    """A view into the namespace at `url`."""
    client = await nats.connect(url)
    try:
        yield Inside(client=client, namespace=namespace)
    finally:
        await client.close()


@contextmanager
def pulling_patiently() -> Iterator[None]:
    """A pull goes on until the server has ended it.

    Else it is given up after a second at the latest, and where a process stands still for so long, what
    comes then is given back, to come again under a higher number.
    """
    hurried = Pull.next

    async def patient(self: Pull, timeout_s: float) -> Msg:
        return await hurried(self, timeout_s + PATIENCE_S)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pull, "next", patient)
        yield
