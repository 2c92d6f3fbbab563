"""Writes `docs/settings.md` out of the definitions of the options.

    python -m quarterhour.cli.settings_page > docs/settings.md

A test holds the file and what is written here together.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from quarterhour.options import Option
from quarterhour.settings import GatewaySettings, RunnerSettings, UpSettings, options_of

__all__ = ["page"]

_INTRODUCTION = """\
# Settings

Everything that can be set, for each kind of process. This page is made from the definitions; `quarterhour
COMMAND --help` says the same.

A setting is taken from the first place that gives it:

1. a flag on the command line: `--slots 8`
2. a variable: `QUARTERHOUR_SLOTS=8`
3. a key of the table `[quarterhour]` in `quarterhour.toml` or `netlify.toml`, which is in the working
   directory or else beside the functions folder: `slots = 8`
4. the default

A value that is not allowed ends the process with one sentence, which names the place, the value and what is
allowed, and with exit status 1. Relative paths on the command line and in variables are relative to the
working directory, those in a file to the file's folder. Lists are written `A,B` on the command line and in
variables, and `A,B` or `["A", "B"]` in a file. A switch such as `--expose-errors` has its opposite,
`--no-expose-errors`; as a variable or key it is `true` or `false`.

The functions folder has Netlify's names in the file as well: `functions` in `[build]`, and `directory` in
`[functions]`; `[quarterhour]` wins over them. What a single function may say about itself is in
[functions.md](functions.md).
"""

_PROCESSES: tuple[tuple[str, str, Any], ...] = (
    (
        "quarterhour up",
        "Everything on this machine. It hands its settings on to its gateway and runners.",
        UpSettings,
    ),
    (
        "quarterhour gateway",
        "HTTP in, HTTP out. As many as you like, all with the same `--broker`.",
        GatewaySettings,
    ),
    (
        "quarterhour runner",
        "Runs functions. As many as you like, all with the same `--broker`.",
        RunnerSettings,
    ),
)

# What an option comes to that has no value.
_WITHOUT = {
    "broker": "its own NATS",
    "function_python": "its own",
    "cache_dir": "`cache` in the data directory",
    "advertise": "the metrics host",
}

_CLIENTS = """\
## `quarterhour list`, `invoke` and `status`

They talk to a gateway.

| flag | variable | default | meaning |
|---|---|---|---|
| `--url` | `QUARTERHOUR_URL` | `http://127.0.0.1:8888` | The gateway. |
|  | `QUARTERHOUR_API_KEY` | none | The API key that is sent along; no flag, since others can see those. |

`quarterhour new` has `--functions`, and writes into the folder that `quarterhour up` would serve.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "\n".join([_INTRODUCTION, *map(_section, _PROCESSES), _CLIENTS])


def _section(process: tuple[str, str, Any]) -> str:
    title, text, settings = process
    return "\n".join([f"## `{title}`", "", text, "", *_table(settings), ""])


def _table(settings: Any) -> Iterator[str]:
    yield "| flag | variable | key | default | what it is | allowed |"
    yield "|---|---|---|---|---|---|"
    for option, default in options_of(settings):
        names = f"`{option.flag}` | `{option.variable}` | `{option.name}`"
        yield f"| {names} | {_default(option, default)} | {option.help} | {option.kind.allowed} |"


def _default(option: Option, default: object) -> str:
    if default is dataclasses.MISSING:
        return "must be given"
    return _WITHOUT.get(option.field, "none") if default in (None, ()) else f"`{option.kind.write(default)}`"


if __name__ == "__main__":
    print(page(), end="")
