"""The keyring: the API keys of a gateway, read again when their file changes. It decides nothing."""

import asyncio
import hmac
from collections.abc import Sequence
from pathlib import Path

import structlog

from gateway.access import Caller
from quarterhour.errors import SettingsError
from quarterhour.keys import Grant, check_number, digest_of, read_key_file
from quarterhour.listener import check_listener, has_keys
from quarterhour.settings import GatewaySettings

__all__ = ["Keyring", "open_keyring"]

UNKNOWN = Caller(grants=(), known=False)
LOOK_S = 0.5  # what changed counts once it was the same twice: nobody writes to it any more

log = structlog.get_logger()


def open_keyring(settings: GatewaySettings) -> "Keyring | None":
    """The keys that there are, None if none is needed.

    Raises `SettingsError` if the gateway must not listen like that.
    """
    in_file = check_listener(settings)
    return Keyring(settings.api_keys, settings.api_keys_file, in_file) if has_keys(settings) else None


class Keyring:
    """Knows callers by their keys. What `file` says can change, what is `given` cannot."""

    def __init__(self, given: Sequence[Grant], file: Path | None, in_file: Sequence[Grant]) -> None:
        self._given = tuple(given)
        self._file = file
        self._complaint: str | None = None
        self._use(tuple(in_file))

    def caller(self, keys: Sequence[bytes]) -> Caller:
        """Who sends a request with these keys, of which there may be but one.

        With a key that is known one may do what everybody may, and what its lines allow.
        """
        if not keys:
            return self._anonymous
        grants: tuple[Grant, ...] = ()
        if len(keys) == 1:
            digest = digest_of(keys[0])
            # All of them, each in constant time: how long it takes tells nothing of any key.
            grants = tuple(grant for known, grant in self._known if hmac.compare_digest(known, digest))
        return Caller(grants=(*grants, *self._anonymous.grants), known=True) if grants else UNKNOWN

    async def watch(self) -> None:
        """Use what the file says from now on; one that is broken or gone changes nothing, but is logged."""
        if self._file is None:
            return
        before: tuple[Grant, ...] | None = None
        while True:
            await asyncio.sleep(LOOK_S)
            found = await asyncio.to_thread(self._look, self._file)
            if found is not None and found == before and found != self._in_file:
                self._use(found)
                log.info("api_keys_read", file=str(self._file), lines=len(found))
            before = found

    def _look(self, file: Path) -> tuple[Grant, ...] | None:
        """What the file says, None if it cannot be told; each reason is logged once."""
        try:
            found = read_key_file(file)
            check_number(len(self._given) + len(found))
        except SettingsError as error:
            if str(error) != self._complaint:
                log.error("api_keys_not_read", why=f"{error} The keys from before still count.")  # noqa: TRY400
            self._complaint = str(error)
            return None
        self._complaint = None
        return found

    def _use(self, in_file: tuple[Grant, ...]) -> None:
        self._in_file = in_file
        grants = (*self._given, *in_file)
        self._known = [(grant.digest, grant) for grant in grants if grant.digest is not None]
        self._anonymous = Caller(grants=tuple(grant for grant in grants if grant.digest is None), known=False)
