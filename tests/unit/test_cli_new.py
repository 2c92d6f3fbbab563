"""`quarterhour new`: what it writes, what it says, what it refuses, and that what it writes works."""

import email
import email.policy
import importlib.util
import json
import re
import subprocess
import sys
from email.message import EmailMessage
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from click.testing import CliRunner, Result

from quarterhour import DoNotRetry, RetryAfter
from quarterhour.cli.main import main
from runner.catalog import Entry, load_catalog
from tests.node import node
from tests.unit.functions import INVOCATION, call

ROOT = Path(__file__).parents[2]
KINDS = ["hello", "import-background", "send-email", "send-email-background"]
SCRIPTS = [
    *(f"hello{suffix}" for suffix in (".js", ".mjs", ".ts", ".mts")),
    *(f"import-background{suffix}" for suffix in (".js", ".mjs", ".ts", ".mts")),
    *("send-email.js", "send-email-background.ts", "json.js"),
]
GOOD = {"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("QUARTERHOUR_FUNCTIONS", "SMTP_URL", "MAIL_FROM", "OUTBOX_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["new", *arguments], prog_name="quarterhour")


def written(name: str) -> Any:
    """The module that `new NAME` has written, loaded."""
    result = run(name)
    assert result.exit_code == 0, result.output
    path = Path("functions") / f"{name}.py"
    spec = importlib.util.spec_from_file_location("written by new", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(folder: Path, name: str) -> Entry:
    catalog = load_catalog(
        folder / "functions", working_directory=folder, synchronous_limit_s=60, background_limit_s=900
    )
    assert catalog.warnings == ()
    return catalog.entries[name]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_a_function_without_a_complaint(folder: Path, name: str) -> None:
    assert run(name).exit_code == 0
    manifest = entry(folder, name).manifest
    assert (manifest.error, manifest.background) == (None, name.endswith("-background"))
    source = (folder / "functions" / f"{name}.py").read_text()
    assert f"localhost:8888/.netlify/functions/{name}" in source
    assert "NAME" not in source
    assert max(map(len, source.splitlines())) <= 110


@pytest.mark.parametrize("file", SCRIPTS)
def test_a_suffix_says_the_language(folder: Path, file: str) -> None:
    node()
    name, kind = file.partition(".")[0], "background" if "-background." in file else "synchronous"
    lines = run(file).output.splitlines()
    assert lines[0] == f"Wrote functions/{file}, a {kind} function."
    assert lines[2] == "Start it:  quarterhour up"
    manifest = entry(folder, name).manifest
    assert (manifest.error, manifest.background) == (None, kind == "background")
    source = (folder / "functions" / file).read_text()
    assert f"localhost:8888/.netlify/functions/{name}\n" in source
    assert "NAME" not in source
    assert max(map(len, source.splitlines())) <= 110


def test_types_are_all_that_tells_typescript_from_javascript() -> None:
    typed = r": Request|: Context( & \{[^}]*\})?|: Promise<[^>]*>+|: string\[\]|: unknown"
    for kind in ("synchronous", "background"):
        script, types = (
            (files("quarterhour.cli") / "templates" / f"{kind}.{end}").read_text().partition("*/")[2]
            for end in ("js", "ts")
        )
        types = types.replace("import type { Context } from '@netlify/functions';\n", "")
        types = types.replace("(error as Error)", "error")
        assert script.split() == re.sub(typed, "", types).split()


def test_python_may_be_said_as_well(folder: Path) -> None:
    assert run("hello.py").output.startswith("Wrote functions/hello.py,")
    assert "is there already" in refused("hello.js")


@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_it_wrote_and_how_to_go_on(name: str) -> None:
    lines = run(name).output.splitlines()
    kind = "background" if name.endswith("-background") else "synchronous"
    assert lines[0] == f"Wrote functions/{name}.py, a {kind} function."
    environment = " --function-environment SMTP_URL,MAIL_FROM" if name.startswith("send-email") else ""
    url = f"http://127.0.0.1:8888/.netlify/functions/{name}"
    assert lines[2:] == [
        f"Start it:  quarterhour up{environment}",
        f"Call it:   curl -i -H 'content-type: application/json' -d '{{}}' {url}",
    ]


def test_another_folder_is_made(folder: Path) -> None:
    output = run("hello", "--functions", "a b/c").output
    assert (folder / "a b" / "c" / "hello.py").is_file()
    assert "Wrote a b/c/hello.py," in output
    assert "quarterhour up --functions 'a b/c'\n" in output


def test_the_folder_is_the_one_that_up_would_serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "quarterhour.toml").write_text('[quarterhour]\nfunctions = "mine"')
    assert "Wrote mine/hello.py," in run("hello").output
    monkeypatch.setenv("QUARTERHOUR_FUNCTIONS", str(folder / "yours"))
    assert "Wrote yours/hello.py," in run("hello").output
    assert "Wrote ours/hello.py," in run("hello", "--functions", "ours").output


def test_a_folder_elsewhere_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"Wrote {tmp_path}/there/hello.py," in run("hello", "--functions", str(tmp_path / "there")).output


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(
    "there",
    ["hello.py", "hello.js", "hello.mts", "hello/hello.py", "hello/index.js", "hello/index.py"],
)
def test_nothing_that_is_there_is_touched(folder: Path, there: str) -> None:
    path = folder / "functions" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert f"functions/{there} is there already" in refused("hello")
    assert path.read_text() == "mine"
    assert [file for file in (folder / "functions").rglob("*") if file.is_file()] == [path]


def test_not_even_a_link_to_nowhere(folder: Path) -> None:
    (folder / "functions").mkdir()
    (folder / "functions" / "hello.py").symlink_to(folder / "nowhere.py")
    assert "is there already" in refused("hello")
    assert not (folder / "nowhere.py").exists()


def test_a_folder_without_a_function_is_no_hindrance(folder: Path) -> None:
    (folder / "functions" / "hello").mkdir(parents=True)
    (folder / "functions" / "hello" / "shared.py").touch()
    assert run("hello").exit_code == 0


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "../a", "a.b", "é", "x" * 129, "a\nb", ".js", "a.cjs", "a.b.js"]
)
def test_what_is_no_name_is_refused(folder: Path, name: str) -> None:
    assert "is no name of a function: it has 1 to 128 of the characters" in refused(name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["json", "email.py", "random", "__init__", "__init__.js"])
def test_a_name_that_python_needs_itself_is_refused(name: str) -> None:
    assert f"would stand in the way of Python's own {name.partition('.')[0]}" in refused(name)


@pytest.mark.parametrize("name", ["test", "x" * 128, "A-b_9", "email-background"])
def test_other_names_are_allowed(folder: Path, name: str) -> None:
    assert run(name).exit_code == 0
    assert entry(folder, name).manifest.error is None


def test_a_folder_that_cannot_be_written_is_one_sentence(folder: Path) -> None:
    (folder / "functions").write_text("a file")
    assert refused("hello") == "Error: functions cannot be made: File exists.\n"


def test_a_bad_setting_is_one_sentence(folder: Path) -> None:
    (folder / "quarterhour.toml").write_text("[quarterhour]\nfunctions = 5")
    assert "must be the path of a folder" in refused("hello")


def test_it_is_in_the_help() -> None:
    assert "quarterhour new hello" in CliRunner().invoke(main, ["--help"]).output
    text = run("--help").output
    assert "new send-email-background" in text
    assert "--functions DIR" in text


def test_there_is_a_template_for_each_kind_and_no_other() -> None:
    names = {file.name for file in (files("quarterhour.cli") / "templates").iterdir() if file.is_file()}
    kinds = {f"{kind}.{end}" for kind in ("synchronous", "background") for end in ("py", "js", "ts")}
    assert names == kinds | {"send-email.py", "send-email-background.py"}


def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = ZipFile(wheel).namelist()
    for folder in ("quarterhour/cli/templates", "gateway/api/templates"):
        there = sorted(path.name for path in (ROOT / folder).iterdir() if path.is_file())
        assert sorted(Path(name).name for name in names if name.startswith(f"{folder}/")) == there != []


def test_the_two_that_send_mail_differ_in_their_handler_only() -> None:
    sources = [
        (files("quarterhour.cli") / "templates" / f"{name}.py").read_text().partition("def mail_of")[2]
        for name in ("send-email", "send-email-background")
    ]
    assert sources[0] == sources[1] != ""


# What they do


@pytest.mark.parametrize(
    ("query", "body", "greeting"),
    [
        ({}, "{}", "world"),
        ({}, None, "world"),
        ({"name": "Ada"}, None, "Ada"),
        ({}, '{"name": "Bob"}', "Bob"),
    ],
)
def test_the_synchronous_one_greets(query: dict[str, str], body: str | None, greeting: str) -> None:
    answer = call(written("hello").handler, body, queryStringParameters=query)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"message": f"Hello, {greeting}!"})


@pytest.mark.parametrize("body", [None, "", "{}"])
def test_the_background_one_has_a_sample(body: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(written("import-background").handler, body) == {"done": ["a, done", "sample, done"]}
    assert capsys.readouterr().out == f"attempt 1 of invocation {INVOCATION}\n"


def test_the_background_one_works_on_items() -> None:
    assert call(written("import-background").handler, '{"items": [1]}') == {"done": ["1, done"]}


@pytest.mark.parametrize("body", ["no json", "[]", "5", '{"items": "one"}'])
def test_the_background_one_does_not_retry_a_bad_request(body: str) -> None:
    with pytest.raises(DoNotRetry, match="must be JSON such as"):
        call(written("import-background").handler, body)


def test_the_background_one_says_when_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = written("import-background")

    def refuse(seconds: float) -> None:
        raise ConnectionResetError(54, "reset")

    monkeypatch.setattr(module.time, "sleep", refuse)
    with pytest.raises(RetryAfter, match=r"away: \[Errno 54\] reset") as raised:
        call(module.handler, "{}")
    assert raised.value.delay_s == 30


def outbox(folder: Path) -> EmailMessage:
    path = folder / ".quarterhour" / "outbox" / f"{INVOCATION}.eml"
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


@pytest.mark.parametrize("body", [json.dumps(GOOD), json.dumps(GOOD).encode()])
def test_a_mail_goes_into_the_outbox(folder: Path, body: str | bytes) -> None:
    answer = call(written("send-email").handler, body)
    said = f"Written to .quarterhour/outbox/{INVOCATION}.eml. To send it, set SMTP_URL."
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"message": said})
    mail = outbox(folder)
    assert (mail["to"], mail["subject"], mail["from"]) == (GOOD["to"], "Hi", "quarterhour@example.org")
    assert mail["message-id"] == f"<{INVOCATION}@quarterhour>"
    assert mail.get_content() == "Hello, Ada.\n"


@pytest.mark.parametrize("body", [None, "{}"])
def test_a_sample_in_the_background(folder: Path, body: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_FROM", "Me <me@example.org>")
    assert "Written" in call(written("send-email-background").handler, body)["message"]
    assert outbox(folder)["to"] == outbox(folder)["from"] == "Me <me@example.org>"


def test_several_recipients(folder: Path) -> None:
    call(written("send-email").handler, json.dumps({**GOOD, "to": ["Ada <a@example.org>", "b@example.org"]}))
    assert [one.addr_spec for one in outbox(folder)["to"].addresses] == ["a@example.org", "b@example.org"]


BAD = [
    "no json",
    "[1]",
    "5",
    *[json.dumps({**GOOD, "to": to}) for to in ("", "nobody", [], [1], {"a": 1}, 5)],
]
BAD += [json.dumps({**GOOD, "subject": subject}) for subject in ("Hi\r\nBcc: eve@example.org", 5)]


@pytest.mark.parametrize("body", BAD)
def test_a_bad_mail_is_refused(folder: Path, body: str) -> None:
    answer = call(written("send-email").handler, body)
    assert (answer["statusCode"], list(folder.glob(".quarterhour/outbox/*"))) == (400, [])
    assert "This is no mail: " in answer["body"]
    with pytest.raises(DoNotRetry, match="This is no mail: "):
        call(written("send-email-background").handler, body)


@pytest.mark.parametrize("url", ["mail.example.org", "http://mail.example.org", "smtp://", "smtp://a:1"])
def test_a_mail_server_that_does_not_take_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", url.replace("a:1", "127.0.0.1:1"))
    assert "set MAIL_FROM" in call(written("send-email").handler, "{}")["body"]
    monkeypatch.setenv("MAIL_FROM", "me@example.org")
    handler = written("send-email-background").handler
    with pytest.raises(OSError, match=r"SMTP_URL must be like|refused"):
        call(handler, "{}")
