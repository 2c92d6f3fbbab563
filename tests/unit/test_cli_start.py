"""`quarterhour gateway` and `quarterhour runner`, up to where their packages begin."""

import importlib

import click
import pytest

from quarterhour.cli import start


@pytest.mark.parametrize(("command", "package"), [(start.gateway, "gateway"), (start.runner, "runner")])
def test_others_are_kept_out_before_what_takes_long_is_imported(
    command: click.Command, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def imported(name: str) -> None:
        order.append(name)
        raise ImportError

    with monkeypatch.context() as patch:
        patch.setattr(start, "keep_others_out", lambda: order.append("others are kept out"))
        patch.setattr(importlib, "import_module", imported)
        with pytest.raises(ImportError):
            command.main([], standalone_mode=False)
    assert order == ["others are kept out", f"{package}.__main__"]
