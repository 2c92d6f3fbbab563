"""The commands that people know, as processes."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.netlify.cli import run
from tests.e2e.netlify.layouts import SUFFIXES
from tests.e2e.netlify.rows import JAVASCRIPT, row
from tests.e2e.netlify.sites import Site
from tests.e2e.wire import PREFIX

pytestmark = pytest.mark.asyncio(loop_scope="module")


@row("create")
async def test_new_writes_a_function(tmp_path: Path, language: str) -> None:
    file = f"hello{SUFFIXES[language][0]}"
    (tmp_path / "functions").mkdir()
    status, _, said = await run("new", file if language == JAVASCRIPT else "hello", folder=tmp_path)
    assert (status, said) == (0, "")
    assert [path.name for path in (tmp_path / "functions").iterdir()] == [file]


@row("list")
async def test_list_shows_the_functions(site: Site) -> None:
    status, shown, _ = await run("list", url=site.url)
    assert status == 0
    lines = {line.split()[0]: line.split() for line in shown.splitlines()}
    assert lines["echo"][1:3] == ["synchronous", f"{PREFIX}/echo"]
    assert lines["notes-background"][1] == "background"
    assert lines["modern-crew"][2:5] == ["/crew/:ship/:name", "/crew", "/files/*"]


@row("invoke")
@pytest.mark.parametrize("data", ["@body.json", "-"])
async def test_invoke_sends_a_body_and_a_query_and_prints_the_answer(
    site: Site, tmp_path: Path, data: str
) -> None:
    body = json.dumps({"a": "ö"})
    (tmp_path / "body.json").write_text(body)
    target = ("invoke", "echo", "--path", f"{PREFIX}/echo/a?x=1&y=%20", "--data", data)
    status, shown, errors = await run(*target, url=site.url, folder=tmp_path, stdin=body)
    event = json.loads(shown)["event"]
    assert (status, errors) == (0, "")
    assert (event["httpMethod"], json.loads(event["body"])) == ("POST", {"a": "ö"})
    assert event["queryStringParameters"] == {"x": "1", "y": " "}


@row("exit-status")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("fails",), 1, "fails answered 500"),
        (("returns", "--data", '{"statusCode": 404}'), 1, "returns answered 404"),
    ],
    ids=["500", "404"],
)
async def test_the_exit_status(site: Site, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended, _, errors = await run("invoke", *arguments, url=site.url)
    assert (ended, said in errors) == (status, True)


@row("invoke", "exit-status")
async def test_a_background_function(site: Site) -> None:
    succeeded, dead = await asyncio.gather(
        run("invoke", "notes-background", "--wait", url=site.url),
        run("invoke", "hopeless-background", "--wait", url=site.url),
    )
    assert (succeeded[0], json.loads(succeeded[1])["body"]) == (0, "for nobody")
    assert (dead[0], "TypeError: no such thing" in dead[1]) == (1, True)
