"""API keys: what one looks like, the lines that say what each allows, and what that comes to.

    sha256:<64 hexadecimal digits>  role[,role]  [function[,function]]  # comment
    anonymous                       invoke       webhook-*

The second kind of line is what is allowed without a key. A function may be a pattern with `*` and `?`. A key
is 256 random bits, so that its plain SHA-256 can be kept: slow hashes are for what can be guessed, and this
cannot, however fast anybody tries. No key is ever kept, and no line is ever shown.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from quarterhour.errors import SettingsError

__all__ = [
    "FILE_BYTES_MAX",
    "GRANTS_MAX",
    "PREFIX",
    "Grant",
    "Role",
    "check_number",
    "digest_of",
    "is_function_glob",
    "line_of",
    "new_key",
    "parse_lines",
    "read_key_file",
]

PREFIX = "qh_"
GRANTS_MAX = 1001  # a thousand, and the one that `up` adds: all of them are compared with a request's key
FILE_BYTES_MAX = 256 * 1024

_ANONYMOUS = "anonymous"
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_GLOB = re.compile(r"[A-Za-z0-9_*?-]{1,128}")
_COMMENT = re.compile(r"(?:^|\s)#.*")


class Role(StrEnum):
    """What a key may do. `ADMIN` includes the others."""

    INVOKE = "invoke"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One line: what a key allows, given by its SHA-256, or (`digest` is None) what nobody needs one for.

    `functions` are patterns of names; none means all functions.
    """

    digest: bytes | None
    roles: frozenset[Role]
    functions: tuple[str, ...] = ()

    def has(self, role: Role) -> bool:
        """Whether it allows this, be it for a single function."""
        return role in self.roles or Role.ADMIN in self.roles

    def allows(self, role: Role, function: str) -> bool:
        """Whether it allows this for the function."""
        return self.has(role) and (self.whole or any(fnmatchcase(function, one) for one in self.functions))

    @property
    def whole(self) -> bool:
        """Whether it is for all functions, those to come as well."""
        return not self.functions or "*" in self.functions


def new_key() -> str:
    """A key that nobody has ever seen."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def is_function_glob(text: str) -> bool:
    """Whether this can be a function, or a pattern of functions, in a line."""
    return _GLOB.fullmatch(text) is not None


def line_of(grant: Grant) -> str:
    """The line that says the same as `grant`."""
    who = _ANONYMOUS if grant.digest is None else f"sha256:{grant.digest.hex()}"
    roles = ",".join(role for role in Role if role in grant.roles)
    return "  ".join(filter(None, (who, roles, ",".join(grant.functions))))


def parse_lines(lines: Iterable[str]) -> tuple[Grant, ...]:
    """What the lines allow; a key may have several.

    Raises `ValueError` with the end of a sentence, "line 3: ...", which never shows what stands there.
    """
    grants = []
    for number, line in enumerate(lines, 1):
        words = _COMMENT.sub("", line).split()
        if not words:
            continue
        try:
            grants.append(_grant(words))
        except ValueError as error:
            message = f"line {number}: {error}"
            raise ValueError(message) from None
        if len(grants) > GRANTS_MAX:
            message = f"line {number}: there are more than {GRANTS_MAX} keys"
            raise ValueError(message)
    return tuple(grants)


def read_key_file(path: Path) -> tuple[Grant, ...]:
    """What a file of such lines allows. Raises `SettingsError`, which names the file and the line."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        message = f"The file of API keys, {path}, cannot be read: {error.strerror}."
        raise SettingsError(message) from None
    if len(content) > FILE_BYTES_MAX:
        message = f"The file of API keys, {path}, has more than {FILE_BYTES_MAX} bytes."
        raise SettingsError(message)
    try:
        return parse_lines(content.decode(errors="replace").splitlines())
    except ValueError as error:
        message = f"The file of API keys, {path}, {error}."
        raise SettingsError(message) from None


def check_number(count: int, *, most: int = GRANTS_MAX) -> None:
    """Raises `SettingsError` if there are more keys than may be, those in a file and the others together."""
    if count > most:
        message = (
            f"There are {count} API keys, in --api-keys-file and --api-keys together; {most} are allowed, "
            "since each is compared with that of every request."
        )
        raise SettingsError(message)


def _grant(words: Sequence[str]) -> Grant:
    if len(words) not in {2, 3}:
        message = "it must be a key's hash, its roles and, if not for all, its functions, with spaces between"
        raise ValueError(message)
    globs = tuple(words[2].split(",")) if len(words) == 3 else ()
    if not all(is_function_glob(glob) for glob in globs):
        message = "its functions must be names or patterns such as send-*, with commas between"
        raise ValueError(message)
    return Grant(digest=_digest(words[0]), roles=_roles(words[1]), functions=globs)


def _digest(word: str) -> bytes | None:
    if word == _ANONYMOUS:
        return None
    if word.startswith(PREFIX):
        message = (
            "it has a key where its hash should be; make a new key and its line with `quarterhour key new`"
        )
        raise ValueError(message)
    found = _DIGEST.fullmatch(word)
    if found is None:
        message = "it must begin with sha256: and 64 hexadecimal digits, or with anonymous"
        raise ValueError(message)
    return bytes.fromhex(found[1])


def _roles(word: str) -> frozenset[Role]:
    try:
        return frozenset(Role(role) for role in word.split(","))
    except ValueError:
        message = f"its roles must be of {', '.join(Role)}, with commas between"
        raise ValueError(message) from None
