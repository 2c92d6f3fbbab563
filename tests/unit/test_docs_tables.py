"""The tables of what is impossible keep up with the code: each of their lines names a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def rows(page: str, heading: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    table = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ")][1:]  # after its head


@pytest.mark.parametrize(
    ("page", "heading"),
    [("security.md", "The attacker's list"), ("reliability.md", "What people leave other systems for")],
)
def test_each_line_names_a_test_that_exists(page: str, heading: str) -> None:
    assert len(rows(page, heading)) > 5
    for row in rows(page, heading):
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, f"{row} names no test"
        for path, test in named:
            source = (ROOT / path).read_text()
            assert re.search(rf"^(async )?def {test}\b", source, re.MULTILINE), f"{path} has no {test}"
