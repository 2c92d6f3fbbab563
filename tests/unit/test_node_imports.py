"""What runs in a Node worker imports Node's standard library and its own files, and nothing else."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "runner" / "sandbox" / "node"
FILES = sorted(FOLDER.rglob("*.mjs"))
IMPORTED = re.compile(r"(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)(['\"])(.+?)\1", re.MULTILINE)


def strangers(text: str) -> set[str]:
    return {name for _, name in IMPORTED.findall(text) if not name.startswith(("node:", "./"))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_worker_is_of_the_standard_library(path: Path) -> None:
    # What is meant for the functions themselves stands in comments and in sentences.
    lines = path.read_text(encoding="utf-8").splitlines()
    assert strangers("\n".join(line for line in lines if not line.lstrip().startswith("//"))) == set()


def test_the_files_are_there() -> None:
    assert {"worker.mjs", "event.mjs", "quarterhour.mjs"} <= {path.name for path in FILES}


def test_a_stranger_is_found() -> None:
    assert strangers("import a from 'left-pad';\nimport 'b';\nawait import('c');") == {"left-pad", "b", "c"}
