"""What `.env` files say: variables for functions, and nothing else.

A value is taken as it stands: nothing in it is replaced, neither by the runner's own environment nor by
the file's other values, so that a password with a `$` in it stays what it is. Values are secrets: no
sentence here shows one. Pure but for `read_dotenv`, which opens the file.
"""

import io
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream

__all__ = ["DOTENV", "DOTENV_BYTES_MAX", "NOTHING", "VARIABLE", "Dotenv", "parse_dotenv", "read_dotenv"]

DOTENV = ".env"
DOTENV_BYTES_MAX = 64 * 1024
WARNINGS_MAX = 10
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dotenv:
    """The variables of a file, and a sentence about each line that is none."""

    variables: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


NOTHING = Dotenv(variables=(), warnings=())


def read_dotenv(path: Path, place: str) -> Dotenv:
    """The file at `path`, nothing if there is none. `place` is what sentences call it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for its other end
            return _unread(place, "is no regular file")
        with path.open("rb") as file:
            data = file.read(DOTENV_BYTES_MAX + 1)
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        return _unread(place, f"cannot be read: {error.strerror}")
    return parse_dotenv(data, place)


def parse_dotenv(data: bytes, place: str) -> Dotenv:
    """The variables in the bytes of a file. Of two lines for one variable the later one counts."""
    if len(data) > DOTENV_BYTES_MAX:
        return _unread(place, f"is larger than {DOTENV_BYTES_MAX} bytes, the most that such a file may have")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _unread(place, "is no text in UTF-8")
    variables, wrong = {}, []
    for binding in parse_stream(io.StringIO(text, newline="")):
        if binding.key is not None and _is_variable(binding):
            variables[binding.key] = binding.value or ""
        elif binding.error or binding.key is not None:
            wrong.append(_line(binding))
    return Dotenv(variables=tuple(variables.items()), warnings=tuple(_wrong(place, wrong)))


def _is_variable(binding: Binding) -> bool:
    name, value = binding.key or "", binding.value
    return VARIABLE.fullmatch(name) is not None and value is not None and "\0" not in value


def _line(binding: Binding) -> int:
    """The line in which what was read begins; the empty ones before it belong to it as well."""
    text = binding.original.string
    before = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\n|\r", before))


def _wrong(place: str, lines: Sequence[int]) -> list[str]:
    # Not even the name is shown: it may be the second line of a secret that was pasted without quotes.
    said = [f"{place}, line {line}, is no variable: write NAME=value." for line in lines[:WARNINGS_MAX]]
    return said if len(lines) <= WARNINGS_MAX else [*said, f"{place}: so are {len(lines)} lines in all."]


def _unread(place: str, why: str) -> Dotenv:
    return Dotenv(variables=(), warnings=(f"{place} {why}; none of its variables is set.",))
