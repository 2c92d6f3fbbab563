"""docs/errors.md has a heading for each code of a problem, with its status and its title, and no other."""

import json
import re
from pathlib import Path

from gateway.problems import KINDS, Code, Problem
from quarterhour.retry import BuryReason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### `(\w+)`\n\n(.+)\n\n(.+)", re.MULTILINE)


def test_each_code_has_its_heading_with_status_and_title() -> None:
    expected = {}
    for code, kind in KINDS.items():
        line = f"{kind.status} · {kind.title}"
        if kind.retry_after_s is not None:
            line += f" · `Retry-After: {kind.retry_after_s}`"
        expected[str(code)] = line
    assert {code: line for code, line, _ in SECTION.findall(PAGE)} == expected
    assert len(SECTION.findall(PAGE)) == len(Code)


def test_what_closes_the_connection_says_so() -> None:
    sections = dict(zip(*[iter(re.split(r"^### `(\w+)`\n", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
    said = {code for code, text in sections.items() if "The connection is closed." in text}
    assert said == {code for code, kind in KINDS.items() if kind.close}


def test_the_example_is_a_problem() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    problem = Problem(code=Code.BUSY, detail="Every runner that serves report is busy.")
    assert json.loads(example) == problem.to_json()


def test_the_two_other_answers_are_there() -> None:
    assert "\n### 404 `Function not found...`\n" in PAGE
    assert "\n### 500 of a function that failed\n" in PAGE


def rows(heading: str) -> set[str]:
    """What the first column of the table under a heading names."""
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_each_reason_of_a_dead_letter_has_its_row() -> None:
    assert rows("reason") == set(BuryReason)


def test_each_error_that_a_runner_finds_has_its_row() -> None:
    files = [path for room in ("runner", "quarterhour") for path in (ROOT / room).rglob("*.py")]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r'Error\(\s*type="(\w+)"', sources))
    worker = (ROOT / "runner" / "sandbox" / "python" / "worker.py").read_text(encoding="utf-8")
    named |= set(re.findall(r"^class (\w+)\(Exception\)", worker, re.MULTILINE))
    assert rows("type") == named - {"Cancelled"}  # nobody sees it as an error: the state says it


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        text = (ROOT / "docs" / file).read_text(encoding="utf-8") if file else PAGE
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target
