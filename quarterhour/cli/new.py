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
  quarterhour new hello.js                the same in JavaScript; hello.ts in TypeScript
  quarterhour new send-email              sends a mail, by SMTP or into a folder
  quarterhour new send-email-background   the same in the background
"""

_MAIL = ("send-email", "send-email-background")
_SUFFIXES = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
_TEMPLATES = {".py": ".py", ".js": ".js", ".mjs": ".js", ".ts": ".ts", ".mts": ".ts"}
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

    It is in Python, or in what the suffix of NAME says: .js, .mjs, .ts or .mts. If the name ends in
    -background, it is a background function. No file that is there is touched.
    """
    name, suffix = _parts(name)
    _check_name(name, suffix)
    folder = _folder(functions)
    _check_free(folder, name)
    path = folder / f"{name}{suffix}"
    _write(path, _source(name, suffix))
    click.echo(_what_next(name, path, functions))


def _parts(name: str) -> tuple[str, str]:
    """The function's name and the suffix of its file."""
    suffix = next((suffix for suffix in _TEMPLATES if name.endswith(suffix)), "")
    return name.removesuffix(suffix), suffix or ".py"


def _check_name(name: str, suffix: str) -> None:
    if not is_function_name(name):
        text = (
            f"{name!r} is no name of a function: it has 1 to {NAME_LENGTH_MAX} of the characters "
            f"A-Z a-z 0-9 _ and -, and then one of {' '.join(_TEMPLATES)} or nothing."
        )
        raise click.ClickException(text)
    # `test` is no module that anything needs.
    needed = suffix == ".py" and name in sys.stdlib_module_names and name != "test"
    if needed or name == "__init__":
        text = (
            f"{name}{suffix} would stand in the way of Python's own {name} when a function imports it; "
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


def _source(name: str, suffix: str) -> str:
    template = name
    if suffix != ".py" or name not in _MAIL:
        template = Mode.BACKGROUND if name.endswith(BACKGROUND_SUFFIX) else Mode.SYNCHRONOUS
    file = files("quarterhour.cli") / "templates" / f"{template}{_TEMPLATES[suffix]}"
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
    if path.suffix == ".py" and name in _MAIL:
        up += " --function-environment SMTP_URL,MAIL_FROM"
    kind = Mode.BACKGROUND if name.endswith(BACKGROUND_SUFFIX) else Mode.SYNCHRONOUS
    call = curl({"paths": [default_route(name)], "methods": []}, DEFAULT_URL)
    return f"Wrote {_shown(path)}, a {kind} function.\n\nStart it:  {up}\nCall it:   {call}"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
