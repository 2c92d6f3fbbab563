"""What people read on standard output: which functions there are and how to call them. Pure text."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quarterhour.route import compiled, example

__all__ = ["address", "curl", "curl_options", "reachable", "summary", "table"]

_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - not bound, only replaced
_ERROR_CHARACTERS_MAX = 500


def address(host: str, port: int, *, tls: bool) -> str:
    """The URL under which this machine reaches a gateway that listens on `host`."""
    shown = _ANY.get(host) or (f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def reachable(function: Mapping[str, Any]) -> str | None:
    """A path at which the function is: one that is fixed if there is one, None if there is no simple one."""
    paths = function["paths"]
    return next(filter(None, (*(compiled(path).literal for path in paths), *map(example, paths))), None)


def curl_options(*, certificate: Path | None, keys: bool) -> str:
    """What curl needs in order to be let in: a certificate that it cannot know, and the caller's own key."""
    known = "" if certificate is None else f"--cacert {shlex.quote(str(certificate))} "
    return known + ('-H "Authorization: Bearer $QUARTERHOUR_API_KEY" ' if keys else "")


def curl(function: Mapping[str, Any], base: str, options: str = "") -> str | None:
    """A command line that calls the function and works as it stands, None if that takes more than we know.

    `options`: as `curl_options` makes them.
    """
    path = reachable(function)
    if path is None:
        return None
    url = shlex.quote(base + path)
    methods = function["methods"] or ["POST"]
    if "POST" in methods:
        return f"curl -i {options}-H 'content-type: application/json' -d '{{}}' {url}"
    match methods[0]:
        case "GET":
            return f"curl -i {options}{url}"
        case "HEAD":
            return f"curl -I {options}{url}"
        case method:
            return f"curl -i {options}-X {shlex.quote(method)} {url}"


def summary(functions: Sequence[Mapping[str, Any]], *, base: str, folder: Path, options: str = "") -> str:
    """Every function with its `curl`, or how to write the first one."""
    if not functions:
        return _how_to_begin(folder, base, options)
    lines = [f"{len(functions)} function{'s' if len(functions) != 1 else ''} in {folder}/:", ""]
    for function in functions:
        lines.append(f"  {function['name']}  {_about(function)}")
        lines.append(f"    {_how_to_call(function, base, options)}")
    return "\n".join([*lines, ""])


def table(functions: Sequence[Mapping[str, Any]]) -> str:
    """The functions as a table for a terminal."""
    if not functions:
        return "No functions are known: write one into the folder that `quarterhour up` or a runner serves."
    header = ("NAME", "MODE", "URL", "SCHEDULE", "NEXT RUN", "ERROR")
    rows = [header] + [
        (
            str(function["name"]),
            str(function["mode"]),
            " ".join(function["paths"]),
            str(function.get("schedule") or "-"),
            _time(function.get("next_run")),
            _one_line(function.get("error") or "-"),
        )
        for function in functions
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    )


def _time(moment: str | None) -> str:
    """An ISO time of the API to the second, for people."""
    return "-" if moment is None else moment[:19].replace("T", " ") + "Z"


def _about(function: Mapping[str, Any]) -> str:
    shown = reachable(function)  # by the command below
    paths = [path for path in function["paths"] if shown is None or compiled(path).literal != shown]
    return f"({', '.join(filter(None, (function['mode'], function.get('schedule'), *paths)))})"


def _how_to_call(function: Mapping[str, Any], base: str, options: str) -> str:
    if error := function.get("error"):
        return f"cannot run: {_one_line(error)}"
    return curl(function, base, options) or f"call it at a path that matches {' or '.join(function['paths'])}"


def _how_to_begin(folder: Path, base: str, options: str) -> str:
    return f"""\
There is no function in {folder}/ yet. Write the first one, {folder / "hello.py"}:

    def handler(event, context):
        return {{"statusCode": 200, "body": "Hello!"}}

Start again, and call it:

    curl -i {options}{base}/.netlify/functions/hello
"""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ERROR_CHARACTERS_MAX else f"{line[:_ERROR_CHARACTERS_MAX]}…"
