"""docs/settings.md is what the definitions of the options make of it."""

from pathlib import Path

from quarterhour.cli.settings_page import page
from quarterhour.settings import OPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_made_from_the_definitions() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "Write it anew: python -m quarterhour.cli.settings_page > docs/settings.md"
    )


def test_every_option_is_on_it() -> None:
    text = page()
    for option in OPTIONS.values():
        assert f"| `{option.flag}` | `{option.variable}` | `{option.name}` |" in text


def test_nothing_breaks_the_tables() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert {row.count("|") for row in rows[:-1]} == {7}
    assert rows[-1].count("|") == 5
