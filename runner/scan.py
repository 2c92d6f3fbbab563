"""Finding functions: which files of a folder are functions, and what keeps a file from being one.

It looks at names and at nothing else; no file is opened here. The rules are Netlify's, for every runtime.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarterhour.errors import SettingsError
from quarterhour.function import NAME_LENGTH_MAX, is_function_name
from runner.sandbox.runtimes import SUFFIXES

__all__ = ["Found", "Scan", "scan"]

_NO_FUNCTIONS = frozenset({"__init__"})  # Python's own file; it says that the folder is a package


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The file of a function. `place` is how messages call it: relative, beginning with the folder's name."""

    name: str
    runtime: str
    path: Path
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a folder holds: at most one file for each name, sorted by name, and sentences about the rest."""

    found: tuple[Found, ...]
    warnings: tuple[str, ...]


def scan(folder: Path) -> Scan:
    """The functions in `folder`. Raises `SettingsError`: no such folder, or two languages for one name."""
    candidates, warnings = _candidates(folder)
    by_name: dict[str, list[Found]] = {}
    for found in candidates:
        by_name.setdefault(found.name, []).append(found)
    chosen = []
    for name, files in sorted(by_name.items()):
        if not is_function_name(name):
            warnings += [_no_name(found) for found in files]
            continue
        _refuse_two_languages(files)
        chosen.append(files[0])
        warnings += [_shadowed(found, files[0]) for found in files[1:]]
    return Scan(found=tuple(chosen), warnings=tuple(warnings))


def _candidates(folder: Path) -> tuple[list[Found], list[str]]:
    """Every file that is a function by its place and suffix; of one name, the one that counts first."""
    entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    candidates, warnings = [], []
    for entry in entries:
        if _is_folder(entry):
            try:
                inside = {path.name for path in entry.iterdir()}
            except OSError as error:
                warnings.append(f"{_printable(f'{folder.name}/{entry.name}')}: {error.strerror}.")
                continue
            ordered = _ordered((entry.name, "index"), inside)
            candidates += [_found(folder, entry.name, f"{entry.name}/{file}") for file in ordered]
    files = {entry.name for entry in entries if not _is_folder(entry)}
    stems = sorted({Path(name).stem for name in files} - _NO_FUNCTIONS)
    candidates += [_found(folder, Path(file).stem, file) for file in _ordered(stems, files)]
    return candidates, warnings


def _ordered(stems: Iterable[str], names: Collection[str]) -> list[str]:
    """Those of `names` that are a stem with a suffix of a function, in the order of precedence."""
    return [stem + suffix for stem in stems for suffix in SUFFIXES if stem + suffix in names]


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where a folder may not be entered


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        message = (
            f"The functions folder {folder} cannot be read: {error.strerror}. "
            f"Create it, or name another one with --functions."
        )
        raise SettingsError(message) from None


def _found(folder: Path, name: str, inner: str) -> Found:
    return Found(
        name=name,
        runtime=SUFFIXES[Path(inner).suffix],
        path=folder / inner,
        place=_printable(f"{folder.name}/{inner}"),
    )


def _refuse_two_languages(candidates: Sequence[Found]) -> None:
    first = candidates[0]
    for other in candidates[1:]:
        if other.runtime != first.runtime:
            message = (
                f"{first.place} and {other.place} are both the function {first.name!r}, "
                f"in two languages. Rename or remove one of them."
            )
            raise SettingsError(message)


def _shadowed(found: Found, chosen: Found) -> str:
    return f"{found.place} is not served: {chosen.place} is the function {chosen.name!r}."


def _no_name(found: Found) -> str:
    return (
        f"{found.place} is not served: a function's name has 1 to {NAME_LENGTH_MAX} "
        f"of the characters A-Z a-z 0-9 _ and -."
    )


def _printable(text: str) -> str:
    """`text` without the lone surrogates and control characters that a file name may have."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
