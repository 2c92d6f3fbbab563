"""The architecture page keeps up with the code: the diagram is the table's, the matrix's tests exist."""

import re
from pathlib import Path

from quarterhour.lifecycle import diagram

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_diagram_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE


def test_each_row_of_the_crash_matrix_has_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| [AST][0-9]+ \|", line)]
    named = [test for row in rows for test in re.findall(r"`(test_\w+)`", row)]
    source = (ROOT / "tests" / "process" / "test_crash_matrix.py").read_text()
    defined = re.findall(r"^async def (test_\w+)", source, re.MULTILINE)
    assert len(named) == len(rows)
    assert set(named) == set(defined)
