"""Who wins: the function's own file, its table, tables for several, `.env` files, the operator, the rest."""

import itertools
import re
from pathlib import Path

import pytest

from quarterhour.settings import RunnerSettings, load
from runner.catalog import Catalog, Entry, load_catalog
from runner.environment import parse_dotenv
from runner.wiring import _worker_environment

HANDLER = "def handler(event, context): ...\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for file in ("functions/report-daily/index.py", "functions/report-weekly.py", "functions/other.py"):
        write(tmp_path, file, HANDLER)
    return tmp_path


def write(project: Path, file: str, text: str) -> None:
    path = project / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(project: Path, working_directory: Path | None = None) -> Catalog:
    return load_catalog(
        project / "functions",
        working_directory=working_directory or project,
        synchronous_limit_s=60,
        background_limit_s=900,
    )


def environment(entry: Entry) -> dict[str, str]:
    assert entry.code is not None, entry.manifest.error
    return dict(entry.code.environment)


# From the highest to the lowest; the last two are those of every worker, over which a function's own go.
PLACES = (
    ("quarterhour.toml", '[functions."report-daily".environment]\nWORD = "table"\n', "table"),
    ("quarterhour.toml", '[functions."report-*".environment]\nWORD = "glob"\n', "glob"),
    ("functions/report-daily/.env", "WORD=own\n", "own"),
    (".env", "WORD=project\n", "project"),
)


@pytest.mark.parametrize(("high", "low"), list(itertools.combinations(range(len(PLACES)), 2)))
def test_of_two_places_the_higher_one_sets_a_variable(project: Path, high: int, low: int) -> None:
    for file, text, _ in (PLACES[high], PLACES[low]):
        with (project / file).open("a") as toml:
            toml.write(text)
    assert environment(read(project).entries["report-daily"]) == {"WORD": PLACES[high][2]}


def test_the_page_has_the_places_in_this_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "functions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| (.*)$", page.partition("\n## Environment\n")[2], re.MULTILINE)
    words = [
        '[functions."report-daily".environment]',
        '[functions."report-*".environment]',
        "`functions/report-daily/.env`",
        "`.env`",
        "`--function-environment",
        "`PATH`, `HOME`, `LANG` and `TZ`",
    ]
    assert len(rows) == len(words) == len(PLACES) + 2
    for row, word in zip(rows, words, strict=True):
        assert word in row


def test_the_example_of_the_page_is_read_as_it_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "functions.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```\n# \.env\n(.*?)```", page, re.DOTALL)
    read = parse_dotenv(text.encode(), ".env")
    assert read.warnings == ()
    assert dict(read.variables) == {
        "SMTP_URL": "smtp://localhost:1025",
        "GREETING": "two\nlines",
        "SECRET": "a$b # c",
    }


def test_variables_of_all_places_come_together(project: Path) -> None:
    write(project, ".env", "A=1\nB=1\nC=1\nD=1\n")
    write(project, "functions/report-daily/.env", "B=2\nC=2\nD=2\n")
    several = '[functions."report-*".environment]\nC = "3"\nD = "3"\n'
    write(project, "quarterhour.toml", several + '[functions.report-daily.environment]\nD = "4"\n')
    entries = read(project).entries
    assert environment(entries["report-daily"]) == {"A": "1", "B": "2", "C": "3", "D": "4"}
    assert environment(entries["report-weekly"]) == {"A": "1", "B": "1", "C": "3", "D": "3"}
    assert environment(entries["other"]) == {"A": "1", "B": "1", "C": "1", "D": "1"}


def test_the_operator_s_names_come_before_what_every_function_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "HOME", "LANG", "TZ", "LISTED", "UNLISTED", "QUARTERHOUR_BROKER"):
        monkeypatch.setenv(name, name.lower())
    settings = RunnerSettings(broker="memory://", function_environment=("LISTED", "GONE"))
    assert _worker_environment(settings) == {
        name: name.lower() for name in ("PATH", "HOME", "LANG", "TZ", "LISTED")
    }


@pytest.mark.parametrize("file", [".env", "functions/report-daily/.env"])
def test_dotenv_is_not_settings(project: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    write(project, file, "QUARTERHOUR_SLOTS=99\n")
    assert load(RunnerSettings, {"broker": "memory://"}, environment={}).slots == 16
    assert environment(read(project).entries["report-daily"]) == {"QUARTERHOUR_SLOTS": "99"}


def test_where_the_project_s_dotenv_is(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def word() -> str | None:
        return environment(read(project, elsewhere).entries["other"]).get("WORD")

    assert word() is None
    write(project, ".env", "WORD=beside the functions")
    assert word() == "beside the functions"
    write(elsewhere, ".env", "WORD=working directory")
    assert word() == "working directory"
    write(project, "quarterhour.toml", "")
    assert word() == "beside the functions", "that is where the project's file is"
    (project / ".env").unlink()
    assert word() is None


def test_the_functions_folder_itself_has_no_dotenv(project: Path) -> None:
    write(project, "functions/.env", "A=1")
    assert environment(read(project).entries["other"]) == {}


def test_values_are_in_no_manifest_and_bad_lines_in_no_error(project: Path) -> None:
    write(project, ".env", "A=secret\nsecret\n")
    write(project, "functions/report-daily/.env", "secret secret=secret\n")
    catalog = read(project)
    assert catalog.warnings == (
        ".env, line 2, is no variable: write NAME=value.",
        "functions/report-daily/.env, line 1, is no variable: write NAME=value.",
    )
    assert all(entry.manifest.error is None for entry in catalog.entries.values())
    assert "secret" not in str([entry.manifest for entry in catalog.entries.values()])


def test_a_key_comes_from_the_first_place_that_has_it(project: Path) -> None:
    write(project, "functions/report-weekly.py", HANDLER + "config = {'timeout': 1}")
    write(
        project,
        "netlify.toml",
        "[functions.report-weekly]\ntimeout = 2\nretries = 2\n"
        '[functions."report-*"]\ntimeout = 3\nretries = 3\nmemory = 300\nbackground = true\n'
        '[functions."*"]\ntimeout = 4\nretries = 4\nmemory = 400\nschedule = "@daily"\nbackground = false\n',
    )
    entries = read(project).entries
    weekly, daily, other = (entries[name].manifest for name in ("report-weekly", "report-daily", "other"))
    assert (weekly.timeout_s, weekly.retry.retries, weekly.memory_mib) == (1, 2, 300)
    assert (daily.timeout_s, daily.retry.retries, daily.memory_mib) == (3, 3, 300)
    assert (other.timeout_s, other.retry.retries, other.memory_mib) == (4, 4, 400)
    assert (weekly.background, daily.background, other.background) == (True, True, False)
    assert {each.schedule for each in (weekly, daily, other)} == {"@daily"}


def test_toml_wins_over_the_suffix_and_the_source_over_toml(project: Path) -> None:
    write(project, "functions/a-background.py", HANDLER)
    write(project, "functions/b-background.py", HANDLER + "config = {'background': True}")
    write(project, "quarterhour.toml", '[functions."*-background"]\nbackground = false\n')
    entries = read(project).entries
    assert not entries["a-background"].manifest.background
    assert entries["b-background"].manifest.background


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ("report-d*", "report-*"),
        ("report-*", "*"),
        ("r*", "*-daily"),
        ("report-*y", "report-*"),
        ("*-daily", "*daily"),
        ("report-[a-d]*", "report-*"),
        ("report-*a*", "report-*l*"),  # equally specific: by the alphabet
    ],
)
def test_the_more_specific_table_wins(project: Path, winner: str, loser: str) -> None:
    tables = [f'[functions."{glob}"]\ntimeout = {seconds}\n' for glob, seconds in ((winner, 1), (loser, 2))]
    for text in ("".join(tables), "".join(reversed(tables))):
        write(project, "quarterhour.toml", text)
        assert read(project).entries["report-daily"].manifest.timeout_s == 1


def test_case_counts(project: Path) -> None:
    write(project, "quarterhour.toml", '[functions."REPORT-*"]\ntimeout = 5\n')
    catalog = read(project)
    assert catalog.entries["report-daily"].manifest.timeout_s == 60
    assert catalog.warnings == (
        'quarterhour.toml: [functions."REPORT-*"] matches no function in the folder.',
    )


def test_a_bad_value_for_several_is_the_error_of_each(project: Path) -> None:
    write(project, "quarterhour.toml", '[functions."report-*"]\ntimeout = "soon"\nenvironment = {A = 5}\n')
    entries = read(project).entries
    for name in ("report-daily", "report-weekly"):
        error = entries[name].manifest.error or ""
        assert "quarterhour.toml: [functions.\"report-*\"]: timeout is 'soon'" in error
        assert "environment, with its variable 'A'" in error
    assert entries["other"].manifest.error is None
