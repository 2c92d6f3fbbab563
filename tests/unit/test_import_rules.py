"""What runs under the interpreter of a function imports the standard library and nothing else.

The other import rules are contracts in pyproject.toml; these cannot be, since a contract can only name
what is forbidden. The authors' API is the one exception: it imports nothing itself.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNNERS_SIDE = {"__init__.py", "config.py", "install.py", "runtime.py"}  # they run in the runner
FOLDERS = [ROOT / "runner" / "sandbox" / name for name in ("guarding", "python")]
WORKER = sorted(path for folder in FOLDERS for path in folder.glob("*.py") if path.name not in RUNNERS_SIDE)
AUTHORS = [ROOT / "quarterhour" / "__init__.py", ROOT / "quarterhour" / "authors.py"]
SHARED = sorted((ROOT / "functions" / "mailer").glob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that the file names in an import, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, level=level):
                yield "." * level + (module or "")


def strangers(path: Path, *known: str) -> set[str]:
    return {
        name
        for name in imported(path)
        if name not in known and name.split(".", maxsplit=1)[0] not in sys.stdlib_module_names
    }


@pytest.mark.parametrize("path", WORKER, ids=lambda path: path.name)
def test_the_worker_is_of_the_standard_library(path: Path) -> None:
    # `quarterhour` is the authors' API here; its siblings a worker is given by path.
    siblings = [other.stem for other in WORKER]
    assert strangers(path, "quarterhour", "quarterhour.authors", *siblings) == set()


@pytest.mark.parametrize("path", AUTHORS, ids=lambda path: path.name)
def test_the_authors_api_is_of_the_standard_library(path: Path) -> None:
    assert strangers(path, "quarterhour.authors") == set()


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.name)
def test_the_example_mailer_is_of_the_standard_library(path: Path) -> None:
    assert strangers(path, "mailer", "mailer.mail", "mailer.delivery") == set()


def test_the_files_are_there() -> None:
    assert {"confinement.py", "worker.py", "zygote.py"} <= {path.name for path in WORKER}


def test_a_stranger_is_found(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "import os\ndef f():\n    import orjson\n    from runner.slots import Slots\n    from . import x\n"
    )
    assert strangers(path) == {"orjson", "runner.slots", "."}
