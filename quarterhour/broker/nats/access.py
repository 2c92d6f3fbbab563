"""What lets us in: certificates and credentials, which lie in files so that no URL has to hold a secret.

The files are read once here, so that what is wrong with one is said at the start and with its name;
those with credentials are read again whenever a connection is made. It never connects.
"""

import re
import ssl
import stat
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

from quarterhour.broker.nats.address import Address
from quarterhour.errors import SettingsError

__all__ = ["Access", "open_access"]

FILE_BYTES_MAX = 64 * 1024
SECRETS = ("key", "creds", "nkey", "token")

_JWT = re.compile(rb"-+BEGIN NATS USER JWT-+\s+(\S+)")
_SEED = re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """`options` are those of nats-py; `warnings` are sentences for the log."""

    options: dict[str, Any]
    warnings: tuple[str, ...] = ()


def open_access(address: Address) -> Access:
    """What the files of `address` hold. Raises `SettingsError` that names the file."""
    options: dict[str, Any] = {}
    if address.encrypted:
        options["tls"] = _context(address)
    for name, read in _READERS.items():
        if (path := address.files.get(name)) is not None:
            options |= read(path)
    return Access(
        options=options,
        warnings=tuple(
            f"{address.files[name]} ({name}= of --broker) is a secret that every user of this machine can "
            f"read: chmod 600 {address.files[name]}"
            for name in SECRETS
            if name in address.files and address.files[name].stat().st_mode & stat.S_IROTH
        ),
    )


def _context(address: Address) -> ssl.SSLContext:
    """Servers must show a certificate for their name, by the authority in `ca=` or one that is known here."""
    files = address.files
    context = _authority(files["ca"]) if "ca" in files else ssl.create_default_context()
    if "cert" in files:
        key = files.get("key", files["cert"])
        for name, path in (("cert", files["cert"]), ("key", key)):
            _read(name, path)
        try:
            context.load_cert_chain(files["cert"], key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            message = (
                f"{files['cert']} and {key} (cert= and key= of --broker) are no certificate "
                f"with its unencrypted key, in PEM: {error}."
            )
            raise SettingsError(message) from None
    return context


def _authority(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=_read("ca", path).decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError, ValueError):
        raise _wrong(path, "ca", "certificates in PEM") from None


def _creds(path: Path) -> dict[str, Any]:
    # Not by nats-py: it would read a file without a JWT, one that is just written anew, for ever.
    def jwt() -> bytes:
        found = _JWT.search(_read("creds", path))
        if found is None:
            raise _wrong(path, "creds", "credentials of NATS, as `nsc generate creds` writes them,")
        return found[1]

    def sign(nonce: str) -> bytes:
        found = _SEED.search(_read("creds", path))
        return b64encode(_key(path, "creds", found[1] if found is not None else b"").sign(nonce.encode()))

    jwt()
    sign("")
    return {"user_jwt_cb": jwt, "signature_cb": sign}


def _nkey(path: Path) -> dict[str, Any]:
    _key(path, "nkey", _read("nkey", path)).wipe()
    return {"nkeys_seed": path}


def _token(path: Path) -> dict[str, Any]:
    def token() -> str:
        return _read("token", path).decode().strip()

    try:
        usable = bool(token())
    except UnicodeDecodeError:
        usable = False
    if not usable:
        raise _wrong(path, "token", "token")
    return {"token": token}


def _key(path: Path, name: str, seed: bytes) -> nkeys.KeyPair:
    try:
        return nkeys.from_seed(bytearray(seed.strip()))
    except (nkeys.NkeysError, ValueError, TypeError):
        raise _wrong(path, name, "user's seed (it begins with SU)") from None


def _read(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        message = f"{path} ({name}= of --broker) cannot be read: {error.strerror}."
        raise SettingsError(message) from None
    if len(data) > FILE_BYTES_MAX:
        message = f"{path} ({name}= of --broker) is larger than {FILE_BYTES_MAX} bytes."
        raise SettingsError(message)
    return data


def _wrong(path: Path, name: str, what: str) -> SettingsError:
    return SettingsError(f"{path} ({name}= of --broker) has no {what} in it.")


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {"creds": _creds, "nkey": _nkey, "token": _token}
