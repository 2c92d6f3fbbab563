"""Every row has a case for each language that it is about, and every test is a case of some row."""

from collections import defaultdict
from pathlib import Path

import pytest

from tests.e2e.netlify.rows import LANGUAGES, ROWS


class Collected:
    """A plugin that keeps what pytest has collected."""

    items: list[pytest.Item]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = [item for item in session.items if item.path != Path(__file__)]


def test_every_row_has_a_case_for_each_language(capsys: pytest.CaptureFixture[str]) -> None:
    collected = Collected()
    flags = ["--collect-only", "-q", "-n0", "-p", "no:randomly"]
    assert pytest.main([*flags, str(Path(__file__).parent)], [collected]) == 0
    cases: defaultdict[str, set[str]] = defaultdict(set)
    for item in collected.items:
        rows = {name for mark in item.iter_markers("row") for name in mark.args}
        assert rows, f"{item.nodeid} is a case of no row"
        for name in rows:
            cases[name] |= languages_of(item)
    assert cases.keys() == ROWS.keys()
    missing = {name: set(one.languages) - cases[name] for name, one in ROWS.items()}
    assert {name: languages for name, languages in missing.items() if languages} == {}


def languages_of(item: pytest.Item) -> set[str]:
    """The one that it runs with; all of them if it has to do with none."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and "[" in item.name else {}
    return {str(parameters["language"])} if "language" in parameters else set(LANGUAGES)
