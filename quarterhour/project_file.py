"""The project's file: `quarterhour.toml` or `netlify.toml`, found and read. It never checks what is in it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterhour.errors import SettingsError

__all__ = ["NAMES", "ProjectFile", "find_project_file", "read_project_file"]

NAMES = ("quarterhour.toml", "netlify.toml")
_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """A file that was read: where it is and its tables. Paths in it are relative to its folder."""

    path: Path
    data: dict[str, Any]

    def table(self, name: str) -> dict[str, Any]:
        """The table `[name]`, empty if there is none. Raises `SettingsError` if it is no table."""
        table = self.data.get(name, {})
        if not isinstance(table, dict):
            text = f"{self.path}: {name} is {table!r}, but must be a table, [{name}]."
            raise SettingsError(text)
        return table


def find_project_file(directory: Path, functions: Path | None = None) -> Path | None:
    """The file in `directory`, else the one beside the folder `functions`; None without one.

    Where both names are in one folder, `quarterhour.toml` is the one that counts.
    """
    folders = [directory] if functions is None else [directory, functions.parent]
    for folder in folders:
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def read_project_file(path: Path) -> ProjectFile:
    """The tables of the file. Raises `SettingsError` with a sentence that names the file."""
    try:
        data = path.read_bytes()
        if len(data) > _BYTES_MAX:
            text = f"{path} has {len(data)} bytes, but at most {_BYTES_MAX} are read."
            raise SettingsError(text)
        return ProjectFile(path=path, data=tomllib.loads(data.decode()))
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}."
        raise SettingsError(text) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        text = f"{path} is not valid TOML: {error}."
        raise SettingsError(text) from None
