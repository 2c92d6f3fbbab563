"""`quarterhour new NAME`: writes a first version of a function, which works as it stands.

What it writes are the files in `templates/`. It asks nothing and never touches a file that is there.
"""

import shlex
import sys
from importlib.resources import files
from pathlib import Path

import click

from quarterhour.cli.api import DEFAULT_URL
from quarterhour.cli.summary import curl
from quarterhour.errors import SettingsError
from quarterhour.function import BACKGROUND_SUFFIX, NAME_LENGTH_MAX, Mode, default_route, is_function_name
from quarterhour.settings import OPTIONS, UpSettings, load

__all__ = ["new"]

_EXAMPLES = """\b
Examples:
  quarterhour new hello                   a function whose caller waits for the answer
  quarterhour new import-background       one that answers 202 and runs in the background
  quarterhour new send-email              sends a mail, by SMTP or into a folder
  quarterhour new send-email-background   the same in the background
"""

_MAIL = ("send-email", "send-email-background")
_SUFFIXES = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
_FUNCTIONS = OPTIONS["functions"]


@click.command(epilog=_EXAMPLES)
@click.argument("name")
@click.option(
    _FUNCTIONS.flag,
    "functions",
    metavar=_FUNCTIONS.kind.metavar,
    help=f"{_FUNCTIONS.help}  [default: functions]",
)
def new(name: str, functions: str | None) -> None:
    """Write a new function, with comments that teach.

    If NAME ends in -background, it is a background function. No file that is there is touched.
    """
    _check_name(name)
    folder = _folder(functions)
    _check_free(folder, name)
    path = folder / f"{name}.py"
    _write(path, _source(name))
    click.echo(_what_next(name, path, functions))


def _check_name(name: str) -> None:
    if not is_function_name(name):
        hint = f" Do you mean {name[:-3]}?" if is_function_name(name.removesuffix(".py")) else ""
        text = (
            f"{name!r} is no name of a function: it has 1 to {NAME_LENGTH_MAX} "
            f"of the characters A-Z a-z 0-9 _ and -.{hint}"
        )
        raise click.ClickException(text)
    # `test` is no module that anything needs.
    if name == "__init__" or (name in sys.stdlib_module_names and name != "test"):
        text = (
            f"{name}.py would stand in the way of Python's own {name} when a function imports it; "
            f"choose another name, such as {name}-it."
        )
        raise click.ClickException(text)


def _folder(flag: str | None) -> Path:
    """The folder that `quarterhour up` would serve here."""
    try:
        return load(UpSettings, {} if flag is None else {"functions": flag}).functions
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _check_free(folder: Path, name: str) -> None:
    """Refuse a name that has a function: of two files for one name, only one is served."""
    stems = (folder / name, folder / name / name, folder / name / "index")
    for stem in stems:
        for suffix in _SUFFIXES:
            path = stem.with_name(stem.name + suffix)
            if path.exists() or path.is_symlink():
                text = f"{_shown(path)} is there already, and is not touched; choose another name."
                raise click.ClickException(text)


def _source(name: str) -> str:
    template = name
    if name not in _MAIL:
        template = Mode.BACKGROUND if name.endswith(BACKGROUND_SUFFIX) else Mode.SYNCHRONOUS
    file = files("quarterhour.cli") / "templates" / f"{template}.py"
    return file.read_text(encoding="utf-8").replace("NAME", name)


def _write(path: Path, source: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:  # refuses what came there a moment ago
            file.write(source)
    except OSError as error:
        text = f"{_shown(Path(error.filename or path))} cannot be made: {error.strerror}."
        raise click.ClickException(text) from None


def _what_next(name: str, path: Path, functions: str | None) -> str:
    up = "quarterhour up"
    if functions is not None:
        up += f" {_FUNCTIONS.flag} {shlex.quote(functions)}"
    if name in _MAIL:
        up += " --function-environment SMTP_URL,MAIL_FROM"
    kind = Mode.BACKGROUND if name.endswith(BACKGROUND_SUFFIX) else Mode.SYNCHRONOUS
    call = curl({"paths": [default_route(name)], "methods": []}, DEFAULT_URL)
    return f"Wrote {_shown(path)}, a {kind} function.\n\nStart it:  {up}\nCall it:   {call}"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
