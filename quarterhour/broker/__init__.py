"""The broker: a port, and the adapters behind it, found by the scheme of a URL."""

from importlib.metadata import entry_points
from urllib.parse import urlsplit

from quarterhour.broker.port import Broker, BrokerOptions, Connect
from quarterhour.errors import SettingsError

__all__ = ["Broker", "BrokerOptions", "connect_for"]

GROUP = "quarterhour.brokers"


def connect_for(url: str) -> Connect:
    """The `connect` of the adapter that an installed package provides for the scheme of `url`.

    `url` may name several servers of a cluster, separated by commas; the first one's scheme counts.
    Raises `SettingsError` for a scheme that nobody provides.
    """
    scheme = urlsplit(url.split(",")[0].strip()).scheme
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name == scheme:
            connect: Connect = entry.load()
            return connect
    known = ", ".join(sorted(f"{name}://" for name in found.names))
    message = f"No installed broker understands {scheme}:// in --broker; known are {known}."
    raise SettingsError(message)
