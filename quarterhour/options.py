"""The kinds of values that options have: how each is read, what is allowed, how it is written again.

It knows nothing of the options themselves (`quarterhour.settings`) and never looks at the environment.
"""

import ipaddress
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterhour.keys import Grant, line_of, parse_lines
from quarterhour.users import Users, parse_users

__all__ = [
    "Kind",
    "Network",
    "Option",
    "broker_url",
    "choice",
    "file",
    "folder",
    "host",
    "interpreter",
    "key_lines",
    "label",
    "networks",
    "number",
    "origins",
    "switch",
    "users",
    "variables",
    "whole",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LIST_MAX = 1000
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What values an option takes.

    `read(value, base)` makes the setting out of text or a TOML value and raises `ValueError` for
    anything but `allowed`, which ends the sentence "must be ...". `base` is the folder to which a
    relative path is relative. `write` is the inverse of `read`, for handing settings to a child.
    `empty` says whether "" is a value; otherwise an empty variable counts as one that is not set.
    `hidden`: a value is never shown, since it may hold a secret; the `ValueError` then says what is wrong.
    """

    metavar: str
    allowed: str
    read: Callable[[object, Path], Any]
    write: Callable[[Any], str] = str
    empty: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting of a process: `field` of its settings object, `--name` on its command line."""

    field: str
    name: str
    kind: Kind
    help: str

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """What it is called in the environment."""
        return "QUARTERHOUR_" + self.name.replace("-", "_").upper()


def number(low: float, high: float, what: str = "a number") -> Kind:
    """A number from `low` to `high`."""

    def read(value: object, _base: Path) -> float:
        parsed = float(_digits(value))
        if not (math.isfinite(parsed) and low <= parsed <= high):
            raise ValueError
        return parsed

    return Kind(metavar="N", allowed=f"{what} from {low:.15g} to {high:.15g}", read=read, write=_shortest)


def _shortest(value: float) -> str:
    text = f"{value:.15g}"  # 60, not 60.0
    return text if float(text) == value else repr(value)


def whole(low: int, high: int, what: str = "a whole number") -> Kind:
    """A whole number from `low` to `high`."""

    def read(value: object, _base: Path) -> int:
        parsed = int(_digits(value))
        if not low <= parsed <= high or parsed != float(_digits(value)):
            raise ValueError
        return parsed

    return Kind(metavar="N", allowed=f"{what} from {low} to {high}", read=read)


def choice(*allowed: str) -> Kind:
    """One of a few words."""

    def read(value: object, _base: Path) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Kind(metavar="|".join(allowed), allowed=" or ".join(allowed), read=read)


def switch() -> Kind:
    """On or off."""

    def read(value: object, _base: Path) -> bool:
        if isinstance(value, bool):
            return value
        word = _text(value).lower()
        if word not in _TRUE | _FALSE:
            raise ValueError
        return word in _TRUE

    return Kind(metavar="", allowed="true or false", read=read, write=lambda on: "true" if on else "false")


def host() -> Kind:
    """A host name or an address, without a port."""
    # A longer part of a name, or an empty one, is none that could be looked up.
    pattern = r"(?=.{1,255}\Z)(?:[A-Za-z0-9_:%-]{1,63}\.)*[A-Za-z0-9_:%-]{0,63}"
    return _matching(pattern, "HOST", "a host name or an address, without a port")


def label() -> Kind:
    """A short name that is safe in a broker's subjects."""
    return _matching(r"[A-Za-z0-9_-]{1,32}", "NAME", "1 to 32 of A-Z a-z 0-9 _ -")


def broker_url() -> Kind:
    """Where a broker is; the adapter of its scheme reads the rest."""
    allowed = "an address such as nats://HOST:4222 (several, separated by commas, for a cluster)"
    return _matching(r"[a-z][a-z0-9+.-]*://\S*", "URL", allowed)


def variables() -> Kind:
    """Names of environment variables."""
    allowed = "names of environment variables, separated by commas"
    pattern = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

    def read(value: object, _base: Path) -> tuple[str, ...]:
        names = _list(value)
        if not all(pattern.fullmatch(name) for name in names):
            raise ValueError
        return names

    return Kind(metavar="NAME,NAME", allowed=allowed, read=read, write=",".join, empty=True)


def networks() -> Kind:
    """Networks such as 10.0.0.0/8; a single address is a network of one."""

    def read(value: object, _base: Path) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(text) for text in _list(value))

    def write(value: tuple[Network, ...]) -> str:
        return ",".join(str(network) for network in value)

    allowed = "networks such as 10.0.0.0/8 or addresses, separated by commas"
    return Kind(metavar="NETWORK,...", allowed=allowed, read=read, write=write, empty=True)


def users() -> Kind:
    """One user, or a range of user ids."""

    def read(value: object, _base: Path) -> Users:
        return parse_users(str(value) if type(value) is int else _text(value))

    allowed = "the name or the number of a user other than root, or a range of numbers such as 200000-200999"
    return Kind(metavar="USER|N-N", allowed=allowed, read=read)


def origins() -> Kind:
    """Origins of web pages, such as https://app.example.com, or `*` for all."""
    allowed = "origins such as https://app.example.com, separated by commas, or *"
    pattern = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?|\*")

    def read(value: object, _base: Path) -> tuple[str, ...]:
        found = _list(value)
        if not all(pattern.fullmatch(one) for one in found):
            raise ValueError
        return found

    return Kind(metavar="ORIGIN,...", allowed=allowed, read=read, write=",".join, empty=True)


def key_lines() -> Kind:
    """The lines of a file of API keys, with `;` or line ends between them."""
    allowed = "lines as in a file of API keys, with ; between"

    def read(value: object, _base: Path) -> tuple[Grant, ...]:
        if not isinstance(value, str | list) or not all(isinstance(line, str) for line in value):
            message = f"must be {allowed}"
            raise ValueError(message)
        try:
            grants = parse_lines(re.split(r"[;\n]", value) if isinstance(value, str) else value)
        except ValueError as error:
            message = f"has a bad line; {error}"
            raise ValueError(message) from None
        if not grants and value != "":
            message = "has no key in it, and so nobody would need one; leave it out if that is meant"
            raise ValueError(message)
        return grants

    def write(grants: tuple[Grant, ...]) -> str:
        return "; ".join(map(line_of, grants))

    return Kind(metavar="LINE;...", allowed=allowed, read=read, write=write, empty=True, hidden=True)


def folder() -> Kind:
    """A folder; whether it exists is for those who use it to say."""
    return _place("DIR", "the path of a folder")


def file() -> Kind:
    """A file; whether it exists is for those who use it to say."""
    return _place("FILE", "the path of a file")


def interpreter() -> Kind:
    """A program: a path, or a name that is found on PATH."""

    def read(value: object, base: Path) -> Path:
        text = _text(value)
        found = shutil.which(_path(text, base) if "/" in text else text)
        if found is None:
            raise ValueError
        # Not resolved: an environment's python is a link, and only under its own name finds its packages.
        return Path(found).absolute()

    return Kind(metavar="PYTHON", allowed="a Python interpreter that can be run", read=read)


def _place(metavar: str, allowed: str) -> Kind:
    def read(value: object, base: Path) -> Path:
        text = _text(value)
        if not text or "\0" in text:
            raise ValueError
        return _path(text, base)

    return Kind(metavar=metavar, allowed=allowed, read=read)


def _matching(pattern: str, metavar: str, allowed: str) -> Kind:
    compiled = re.compile(pattern)

    def read(value: object, _base: Path) -> str:
        text = _text(value)
        if not compiled.fullmatch(text):
            raise ValueError
        return text

    return Kind(metavar=metavar, allowed=allowed, read=read)


def _path(text: str, base: Path) -> Path:
    return base / os.path.expanduser(text)  # noqa: PTH111 - Path's own raises for a user that is not there


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - one kind of error for "not allowed"
    return value


def _digits(value: object) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError  # noqa: TRY004 - as in _text
    return value


def _list(value: object) -> tuple[str, ...]:
    if isinstance(value, list):
        items = tuple(_text(item).strip() for item in value)
    else:
        items = tuple(item for part in _text(value).split(",") if (item := part.strip()))
    if len(items) > _LIST_MAX:
        raise ValueError
    return items
