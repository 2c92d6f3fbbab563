"""Opening a connection to NATS: each server has one try at first, and as many as it takes later."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
import nkeys
import structlog
from nats.aio.client import Client

from quarterhour.broker.nats.access import Access
from quarterhour.broker.nats.address import Address
from quarterhour.broker.nats.link import Link
from quarterhour.clock import Clock
from quarterhour.errors import BrokerUnavailable, SettingsError

__all__ = ["open_link", "running"]

log = structlog.get_logger()

CONNECT_S = 3.0
RECONNECT_EVERY_S = 0.2
PING_EVERY_S = 10
PINGS_UNANSWERED_MAX = 2
CLOSE_S = 2.0

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')  # lowered by nats-py
_VERBS = {"publish": "publish", "subscription": "subscribe"}


@asynccontextmanager
async def open_link(
    address: Address, access: Access, *, name: str, inbox: str, lease_s: float, clock: Clock
) -> AsyncIterator[Link]:
    """A connection to one of the servers; once it has been there, it is tried again for ever.

    Raises `BrokerUnavailable`, soon, if none of them can be reached or lets us in at first.
    """
    client = _Client()
    link = Link(client, address, inbox=inbox, lease_s=lease_s, clock=clock)
    try:
        await _connect(client, link, address, access.options | {"name": name})
        async with running(link, link.watch()):
            await link.hear_replies()
            yield link
    finally:
        link.close()
        with suppress(TimeoutError, nats.errors.Error, OSError):
            async with asyncio.timeout(CLOSE_S):
                await client.close()


@asynccontextmanager
async def running(link: Link, *jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `jobs`, which never end by themselves, while entered; one that fails is the connection's end.

    A task group would do, but it wraps what the caller raises into an exception group.
    """

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("broker_adapter_failed", broker=link.place, exc_info=error)
            link.close()

    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _NoTls(nats.errors.Error):
    """The server offers no encryption, where it was asked for."""


class _WantsTls(nats.errors.Error):
    """The server wants encryption, where none was asked for."""


class _Client(Client):
    """nats-py's own, except that encryption, and where to go, is what the URL says, not what the server says.

    By itself it would talk to a `tls://` server in the clear, password included, if that server, or
    whoever has come between, says that it knows no TLS; and guess at certificates for `nats://`. And it
    would try every address that a cluster has ever named, without the user and password of --broker.
    """

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """Asked for when the server wants TLS."""
        if not self._encrypts:
            raise _WantsTls
        return super().ssl_context

    def _connect_command(self) -> bytes:
        """What logs in, made when the server has said what it wants."""
        if self._encrypts and not self._server_info.get("tls_required"):
            raise _NoTls
        try:
            return super()._connect_command()
        except (SettingsError, nkeys.NkeysError, ValueError) as error:
            # A file that was written anew and will not do. Others would end nats-py's task, and all tries.
            raise nats.errors.Error(str(error)) from error

    async def _process_connect_init(self) -> None:
        """Log in, on a new connection: nats-py leaves it open where that fails, for every try one more."""
        try:
            await super()._process_connect_init()
        except BaseException:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - nats-py's own
        """Hear what the server says, but for the addresses of others."""
        said = {name: value for name, value in info.items() if name != "connect_urls"}
        await super()._process_info(said, initial_connection)

    @property
    def _encrypts(self) -> bool:
        return self._current_server is not None and self._current_server.uri.scheme == "tls"


async def _connect(client: Client, link: Link, address: Address, options: dict[str, Any]) -> None:
    failures: list[Exception] = []
    all_failed = asyncio.Event()

    async def on_error(error: Exception) -> None:
        if (denied := _DENIED.search(str(error))) is not None:
            link.on_denied(_VERBS[denied[1]], denied[2])
        elif link.connected:
            log.warning("broker_error", broker=address.place, why=repr(error))
        elif connecting.done():
            link.on_still_away(_why(error, address))
        elif not all_failed.is_set():
            failures.append(error)
            if len(failures) >= len(address.servers):
                all_failed.set()

    connecting = asyncio.create_task(
        client.connect(
            servers=list(address.servers),
            **options,
            error_cb=on_error,
            disconnected_cb=link.on_away,
            reconnected_cb=link.on_back,
            closed_cb=link.on_closed,
            reconnect_time_wait=RECONNECT_EVERY_S,  # type: ignore[arg-type] # fractions work
            max_reconnect_attempts=-1,
            ping_interval=PING_EVERY_S,
            max_outstanding_pings=PINGS_UNANSWERED_MAX,
            pending_size=0,  # or it waits by itself, for ever, and cannot be cancelled; see `Link.publish`
            skip_subject_validation=True,  # `Layout` has checked every name
        )
    )
    # nats-py would go round for ever; here each server has one try.
    giving_up = asyncio.create_task(all_failed.wait())
    try:
        await asyncio.wait({connecting, giving_up}, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tried = connecting.done()
        for task in (connecting, giving_up):
            task.cancel()
        await asyncio.gather(connecting, giving_up, return_exceptions=True)
    error = connecting.exception() if tried else (failures or [TimeoutError()])[-1]
    if error is not None:
        all_failed.set()
        raise BrokerUnavailable(_why(error, address)) from None


def _why(error: BaseException, address: Address) -> str:
    match error:
        case _NoTls():
            return (
                f"The broker at {address.place} offers no TLS: set it up there, or write nats:// in --broker."
            )
        case _WantsTls():
            return f"The broker at {address.place} wants TLS: write tls:// instead of nats:// in --broker."
        case ssl.SSLCertVerificationError():
            return (
                f"The certificate of the broker at {address.place} is not trusted: {error.verify_message}. "
                "Name the authority that issued it with ca=FILE in --broker."
            )
    if address.encrypted and isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError):
        # Since TLS 1.3 a server looks at our certificate after the handshake, and often ends without a word.
        return (
            f"The broker at {address.place} ended the encrypted connection ({error}). "
            "It may want a certificate that it trusts: cert= and key= in --broker."
        )
    if "authorization" in str(error).lower():
        return f"The broker at {address.place} does not accept this {_login(address)}; see --broker."
    reason = getattr(error, "strerror", None) or str(error) or "no answer"
    return f"The broker at {address.place} cannot be reached ({reason}). Does it run, and is --broker right?"


def _login(address: Address) -> str:
    named = {"creds": "credentials file", "nkey": "nkey", "token": "token"}
    return next((text for name, text in named.items() if name in address.files), "user and password")
