"""What must be right before a gateway listens: who may come in, and the certificate if it speaks TLS.

`up` and the gateway ask it of their settings at the start. It opens no socket.
"""

import ipaddress
import ssl
from pathlib import Path

from quarterhour.errors import SettingsError
from quarterhour.keys import GRANTS_MAX, Grant, check_number, read_key_file
from quarterhour.settings import GatewaySettings, UpSettings

__all__ = ["check_listener", "has_keys", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`: a loopback address, or localhost."""
    name = host.lower().removeprefix("[").removesuffix("]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def has_keys(settings: GatewaySettings | UpSettings) -> bool:
    """Whether there are API keys, so that one is needed."""
    return bool(settings.api_keys) or settings.api_keys_file is not None


def check_listener(
    settings: GatewaySettings | UpSettings, *, keys_max: int = GRANTS_MAX
) -> tuple[Grant, ...]:
    """What the file of API keys allows. Raises `SettingsError` if the gateway must not listen like that."""
    in_file = () if settings.api_keys_file is None else read_key_file(settings.api_keys_file)
    if settings.api_keys_file is not None and not in_file:
        message = (
            f"The file of API keys, {settings.api_keys_file}, has no key in it: nobody could do anything. "
            "`quarterhour key new --role admin` makes one, and its line for the file."
        )
        raise SettingsError(message)
    check_number(len(settings.api_keys) + len(in_file), most=keys_max)
    if not (has_keys(settings) or settings.allow_anonymous) and (way := _way_in(settings)):
        message = (
            f"{way} lets other machines in, and there are no API keys: make one with "
            "`quarterhour key new --role admin`, put its line into a file and name that with "
            "--api-keys-file; or let everybody do everything with --allow-anonymous."
        )
        raise SettingsError(message)
    _check_certificate(settings.tls_cert, settings.tls_key)
    return in_file


def _way_in(settings: GatewaySettings | UpSettings) -> str | None:
    """What lets other machines in, if anything does."""
    if not is_loopback(settings.host):
        return f"--host {settings.host}"
    return "A proxy, which --trusted-proxies names," if settings.trusted_proxies else None


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        message = "--tls-cert and --tls-key belong together: give both of them, or none."
        raise SettingsError(message)
    for flag, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            message = f"{flag} is {path}, which cannot be read: {error.strerror}."
            raise SettingsError(message) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        message = (
            f"--tls-cert is {certificate}, which holds no certificate; it must be one, or a chain, in PEM."
        )
        raise SettingsError(message) from None
    try:
        context.load_cert_chain(certificate, key, password="")  # or OpenSSL would ask for it on the terminal
    except ssl.SSLError as error:
        raise SettingsError(_bad_key(error, certificate, key)) from None


def _bad_key(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"--tls-key {key} is not the key of --tls-cert {certificate}: take the two that belong together."
        )
    return (
        f"--tls-key is {key}, which holds no key that can be used; it must be one in PEM, without a password."
    )
