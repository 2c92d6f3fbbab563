"""When `up` is ready: both kinds of function can be called. Asked of the gateway, over HTTP."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import structlog

__all__ = ["functions_when_ready", "only"]

POLL_S = 0.05
STILL_WAITING_S = 10.0  # after this long without being ready, say what is missing
ANSWER_S = 5.0
NO_CHECK_TIME = 0x200000  # OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which `ssl` has no name

log = structlog.get_logger()

_Functions = list[dict[str, Any]]


async def functions_when_ready(
    url: str, *, certificate: Path | None, key: str | None, runners: int, check_hope: Callable[[], None]
) -> _Functions:
    """The functions, once the gateway at `url` is ready and knows of `runners` runners.

    `certificate` is the gateway's own, `key` an API key that may read, if it has any. `check_hope` is called
    now and then and raises when there is none.

    A runner announces its functions before its first sign of life, but the two may reach the gateway in
    the other order: so it must have read of each that a runner serves, and as some may have changed since
    the last start, the list counts once it came out the same twice.
    """
    before: _Functions | None = None
    warn_at = time.monotonic() + STILL_WAITING_S
    async with httpx.AsyncClient(
        base_url=url,
        headers={} if key is None else {"authorization": f"Bearer {key}"},
        verify=True if certificate is None else only(certificate),
        timeout=ANSWER_S,
        trust_env=False,
    ) as client:
        while True:
            found = await _look(client, runners)
            if isinstance(found, list) and found == before:
                return found
            if isinstance(found, str) and time.monotonic() >= warn_at:
                log.warning("not_ready_yet", waiting_for=found)
                warn_at = time.monotonic() + STILL_WAITING_S
            check_hope()
            before = found if isinstance(found, list) else None
            await asyncio.sleep(POLL_S)


def only(certificate: Path) -> ssl.SSLContext:
    """Trusts whoever has this certificate, and nobody else, whatever it says and whoever signed it.

    Of a chain that is the first one: with the others it would trust whatever else they have signed.
    """
    leaf, end, _ = certificate.read_bytes().partition(b"-----END CERTIFICATE-----")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    context.load_verify_locations(cadata=(leaf + end).decode("ascii", errors="ignore"))
    return context


async def _look(client: httpx.AsyncClient, runners: int) -> _Functions | str:
    """The functions, or what is still missing."""
    try:
        if not (await client.get("/readyz")).is_success:
            return "the gateway's connection to the broker"
        targets = (await client.get("/v1/runners/targets")).raise_for_status().json()
        if len(targets) < runners:
            return f"{runners - len(targets)} of {runners} runners"
        listed = (await client.get("/v1/functions")).raise_for_status().json()
        if unread := listed["unread"]:
            return f"what the runners announced of {', '.join(unread)}"
        functions: _Functions = listed["functions"]
        return functions
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return "the gateway"
