"""Large bodies as the gateway has to do with them: how long they are kept, and when they are removed."""

from collections.abc import AsyncIterator, Collection
from typing import Protocol

import structlog

from quarterhour.body import BodyKind, Claim
from quarterhour.broker import port
from quarterhour.errors import BrokerError
from quarterhour.function import Manifest

__all__ = ["LargeBodies", "kept_s"]

UPLOAD_S = 600.0  # more than a body may take to come
DAY_S = 24 * 3600.0  # what a function may ask for between two attempts; and a margin

log = structlog.get_logger()


class Digest(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None:
        """Take further bytes in."""


class LargeBodies:
    """Keeps the bodies that are too large for an envelope. `waiting_age_s`: how long work may wait."""

    def __init__(self, broker: port.Bodies, *, waiting_age_s: float) -> None:
        self._broker = broker
        self._waiting_age_s = waiting_age_s

    async def keep(
        self,
        invocation_id: str,
        manifest: Manifest,
        chunks: AsyncIterator[bytes],
        *,
        delay_s: float,
        digest: Digest | None,
    ) -> Claim:
        """Store the body of a request to a function; `digest` sees all of it."""
        if digest is not None:
            chunks = _digested(chunks, digest)
        return await self._broker.keep_body(
            BodyKind.WORK if manifest.background else BodyKind.REQUEST,
            invocation_id,
            chunks,
            keep_s=kept_s(manifest, delay_s=delay_s, waiting_age_s=self._waiting_age_s),
        )

    def read(self, claim: Claim) -> AsyncIterator[bytes]:
        """A body, piece by piece. Raises `BodyLost`, `BrokerUnavailable`."""
        return self._broker.read_body(claim)

    async def forget(self, claims: Collection[Claim]) -> None:
        """Remove what nobody needs any more; what cannot be removed now ends by itself, or is swept."""
        for claim in claims:
            try:
                await self._broker.remove_body(claim)
            except BrokerError as error:
                log.info("body_not_removed", invocation=claim.id, kind=claim.kind, why=str(error))


def kept_s(manifest: Manifest, *, delay_s: float, waiting_age_s: float) -> float:
    """How long a body can be needed at most, by all attempts together. Its dead letter comes on top of it."""
    if not manifest.background:
        return UPLOAD_S + manifest.timeout_s
    attempts = manifest.retry.retries + 1
    return UPLOAD_S + delay_s + attempts * (waiting_age_s + manifest.timeout_s + DAY_S)


async def _digested(chunks: AsyncIterator[bytes], digest: Digest) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
