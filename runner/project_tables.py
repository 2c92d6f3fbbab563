"""What a project says of its functions outside their own files: TOML tables and `.env` files, in order.

`[functions."report-daily"]` speaks of one function, `[functions."report-*"]` of all whose names match.
It finds and orders what is said; `runner.manifest` checks it.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from quarterhour.project_file import ProjectFile
from runner.environment import DOTENV, NOTHING, Dotenv, read_dotenv
from runner.manifest import KEYS, Said
from runner.scan import Found

__all__ = ["Project"]

_WILD = re.compile(r"[*?\[]")  # none of them can be in a function's name

# What Netlify's own builds read in these tables; it has no meaning here.
_NETLIFY_KEYS = frozenset(
    {"deno_import_map", "external_node_modules", "ignored_node_modules", "included_files", "node_bundler"}
)


class Project:
    """The project around a functions folder, as it stands now. `file` is its TOML, if it has one."""

    def __init__(self, file: ProjectFile | None, *, folder: Path, working_directory: Path) -> None:
        """`folder` holds the functions. Raises `SettingsError`: `functions` is no table."""
        self._toml = file.path.name if file else ""
        self._folder = folder
        self._tables = file.table("functions") if file else {}
        self._globs = sorted(filter(_is_glob, self._tables), key=_specific_first)
        places = [file.path.parent] if file else [working_directory, folder.parent]
        path = next((place / DOTENV for place in places if (place / DOTENV).exists()), None)
        self._dotenv = read_dotenv(path, DOTENV) if path else NOTHING

    def said_of(self, found: Found) -> tuple[list[Said], tuple[str, ...]]:
        """What is said of a function, what counts most first, and sentences about lines that say nothing."""
        keys = [found.name, *(key for key in self._globs if fnmatchcase(found.name, key))]
        tables = [self._table(key) for key in keys if isinstance(self._tables.get(key), dict)]
        place = f"{found.place.rpartition('/')[0]}/{DOTENV}"
        alone = found.path.parent == self._folder  # a file on its own has no folder of its own
        own = NOTHING if alone else read_dotenv(found.path.parent / DOTENV, place)
        return [*tables, *_said(own, place), *_said(self._dotenv, DOTENV)], own.warnings

    def warnings(self, found: Sequence[Found]) -> tuple[str, ...]:
        """Sentences about what concerns no function of those that were found."""
        return (*self._dotenv.warnings, *self._table_warnings({one.name for one in found}))

    def _table(self, key: str) -> Said:
        values = {name: value for name, value in self._tables[key].items() if name not in _NETLIFY_KEYS}
        return Said(place=self._place(key), values=values, in_source=False)

    def _place(self, key: str) -> str:
        return f'{self._toml}: [functions."{key}"]'

    def _table_warnings(self, names: set[str]) -> Iterator[str]:
        for key, value in self._tables.items():
            if isinstance(value, dict):
                if not any(fnmatchcase(name, key) for name in names):
                    what = (
                        "matches no function" if _is_glob(key) else "says something of a function that is not"
                    )
                    yield f"{self._place(key)} {what} in the folder."
            elif key in names or key in KEYS:
                yield (
                    f"{self._toml}: [functions] {key} says nothing about a function; "
                    f'what does is in tables such as [functions."hello"].'
                )


def _is_glob(key: str) -> bool:
    return _WILD.search(key) is not None


def _specific_first(glob: str) -> tuple[int, int, str]:
    """What begins with more plain characters is more specific, and then what has more characters."""
    return -len(_WILD.split(glob, maxsplit=1)[0]), -len(glob), glob


def _said(dotenv: Dotenv, place: str) -> list[Said]:
    values: dict[str, Any] = {"environment": dict(dotenv.variables)}
    return [Said(place=place, values=values, in_source=False)] if dotenv.variables else []
