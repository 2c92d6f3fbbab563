"""Where Node is: the package first, then PATH, and never one that is too old."""

from pathlib import Path

import pytest

from runner.sandbox.node import find
from runner.sandbox.node.find import find_node
from runner.sandbox.runtime import Missing


def program(folder: Path, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "node"
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(find, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


def test_none() -> None:
    with pytest.raises(
        Missing, match=r'pip install "quarterhour\[node\]"` brings it along, or put it on PATH'
    ):
        find_node()


@pytest.mark.parametrize("version", ["v22.18.0", "v22.20.1", "v24.0.0", "v100.1.2"])
def test_new_enough(tmp_path: Path, version: str) -> None:
    expected = program(tmp_path / "path", version)
    assert find_node() == expected


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("v22.17.9", "is 22.17."), ("v9.99.0", "is 9.99."), ("hello", "is no Node.js at all.")],
)
def test_too_old(tmp_path: Path, version: str, sentence: str) -> None:
    path = program(tmp_path / "path", version)
    with pytest.raises(Missing) as caught:
        find_node()
    assert str(caught.value).endswith(f" {path} {sentence}")


def test_the_package_goes_first_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(tmp_path / "path", "v24.0.0")
    packaged = program(tmp_path / "new", "v22.18.0")
    monkeypatch.setattr(find, "_packaged", lambda: packaged)
    assert find_node() == packaged
    monkeypatch.setattr(find, "_packaged", lambda: program(tmp_path / "old", "v20.18.0"))
    assert find_node() == on_path
