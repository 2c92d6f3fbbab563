"""docs/functions.md: every example in it runs, and its tables are those of the code."""

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest

from quarterhour import DoNotRetry, RetryAfter
from quarterhour.clock import boot_s
from quarterhour.function import Mode
from quarterhour.invocation import Invocation, Request, encode_invocation, unpack
from quarterhour.outcome import Failed, Outcome, Response, Succeeded
from quarterhour.retry import RetryPolicy
from quarterhour.route import GATEWAYS, MATCHED_LENGTH_MAX, PATH_LENGTH_MAX, compiled
from runner.catalog import SOURCE_BYTES_MAX, Catalog, load_catalog
from runner.judge import judge
from runner.manifest import KEYS, PATHS_MAX
from runner.sandbox.python.context import Context
from runner.sandbox.python.event import make_event
from runner.sandbox.python.results import response_frame, value_frame
from tests.process.sandboxes import Collected, open_bench, response

PAGE = (Path(__file__).parents[2] / "docs" / "functions.md").read_text(encoding="utf-8")
PYTHON = re.compile(r"```python\n# functions/([\w-]+)\.py\n(.*?)```", re.DOTALL)
EXAMPLES: dict[str, str] = dict(PYTHON.findall(PAGE))
ID = "01930000-0000-7000-8000-000000000001"
JSON = (("content-type", "application/json"),)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with all examples of the page, and its TOML."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "functions").mkdir()
    for name, source in EXAMPLES.items():
        (tmp_path / "functions" / f"{name}.py").write_text(source, encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "quarterhour.toml").write_text(toml, encoding="utf-8")
    return tmp_path


def catalog(folder: Path) -> Catalog:
    return load_catalog(
        folder / "functions", working_directory=folder, synchronous_limit_s=60, background_limit_s=900
    )


def load(name: str) -> Callable[[dict[str, Any], Context], Any]:
    spec = importlib.util.spec_from_file_location(f"example {name}", Path("functions") / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler: Callable[[dict[str, Any], Context], Any] = module.handler
    return handler


def invocation(
    name: str, body: bytes | None, *, query: str = "", params: Mapping[str, str] | None = None, **more: Any
) -> Invocation:
    usual = Mode.BACKGROUND if name.endswith("-background") else Mode.SYNCHRONOUS
    return Invocation(
        id=ID,
        function=name,
        accepted_at=0,
        due_at=0,
        request=Request(
            method="POST",
            path=f"/.netlify/functions/{name}",
            query=query,
            headers=JSON,
            params=params or {},
        ),
        body=body,
        **{"attempt": 1, "mode": usual, **more},
    )


def run(name: str, body: bytes | None = b"{}", *, query: str = "", **more: Any) -> Outcome:
    """What an example comes to for a request: its envelope, event, context, result and judgement are real."""
    made = invocation(name, body, query=query, **more)
    header, rest = unpack(encode_invocation(made))
    context = Context(
        invocation_id=header["id"],
        function=name,
        memory_mib=1024,
        attempt=header["attempt"],
        limit_at=boot_s() + 60,
        errors=header["errors"],
        params=header.get("params", {}),
    )
    result = load(name)(make_event(header, rest if header["has_body"] else None), context)
    if isawaitable(result):
        result = asyncio.run(_awaited(result))
    frame = response_frame(result, 6_291_456) if made.mode is Mode.SYNCHRONOUS else value_frame(result)
    return judge(*frame, mode=made.mode, returned_status="fail")


async def _awaited(result: Any) -> Any:
    return await result


def value(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded)
    return json.loads(outcome.response.body if outcome.value is None else outcome.value)


def test_every_block_of_python_is_an_example() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == len(set(EXAMPLES))
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f'run("{name}"' not in tests] == []


def test_the_examples_are_served_without_a_complaint(folder: Path) -> None:
    found = catalog(folder)
    assert found.warnings == ()
    assert set(found.entries) == set(EXAMPLES)
    for name, entry in found.entries.items():
        assert entry.manifest.error is None
        assert entry.manifest.background == name.endswith("-background")


def test_what_the_file_says_wins_over_the_toml(folder: Path) -> None:
    entry = catalog(folder).entries["resize-background"]
    assert (entry.manifest.timeout_s, entry.manifest.memory_mib) == (120, 1024)
    assert entry.manifest.retry == RetryPolicy(retries=3, delays_s=(10, 60))
    assert entry.code
    assert entry.code.environment == (("QUALITY", "85"),)


def test_hello() -> None:
    for query, body in (("", b"Hello, world!"), ("name=Ada", b"Hello, Ada!")):
        outcome = run("hello", None, query=query)
        assert isinstance(outcome, Succeeded)
        assert outcome.response.body == body


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert value(run("report-background")) == {"report": "untitled.pdf"}
    assert value(run("report-background", b'{"title": "sales"}')) == {"report": "sales.pdf"}
    assert capsys.readouterr().out == f"attempt 1 of {ID}\n" * 2


def test_size() -> None:
    assert value(run("size", "Zoë".encode())) == {"bytes": 4}
    assert value(run("size", None)) == {"bytes": 0}


def test_login() -> None:
    outcome = run("login")
    assert isinstance(outcome, Succeeded)
    assert outcome.response.body.startswith(b"GIF89a")
    assert outcome.response.headers == (
        ("content-type", "image/gif"),
        ("set-cookie", "user=ada; HttpOnly"),
        ("set-cookie", "theme=dark"),
    )


def test_both() -> None:
    assert value(run("both")) == ["one says yes", "two says yes"]


async def worker_run(name: str, path: str = "") -> tuple[Response, bytes]:
    """What a real worker sends: the head of the response, and its body, in one piece or bit by bit."""
    sink = Collected()
    async with open_bench(Path("functions")) as bench:
        request = Request(method="GET", path=f"/.netlify/functions/{name}{path}")
        code = bench.function(EXAMPLES[name], name=name)
        answer = response(await bench.run(code, request=request, sink=sink))
    return sink.head or answer, b"".join(sink.chunks) or answer.body


async def test_count() -> None:
    head, body = await worker_run("count")
    assert (head.headers, body) == ((("content-type", "text/plain"),), b"1\n2\n3\n")


async def test_shop() -> None:
    assert await worker_run("shop", "/cart") == (
        Response(headers=(("content-type", "text/plain"),), body=b"You asked for /cart"),
        b"You asked for /cart",
    )


def test_import() -> None:
    with pytest.raises(DoNotRetry, match="Say where"):
        run("import-background")
    busy = b'{"source": "busy"}'
    with pytest.raises(RetryAfter, match="come back later") as raised:
        run("import-background", busy)
    assert raised.value.delay_s == 30
    assert value(run("import-background", busy, attempt=2)) == {"imported from": "busy", "after errors": []}


def test_charge() -> None:
    assert value(run("charge-background", b'{"amount": 5}')) == {"charged": 5}
    assert value(run("charge-background", b'{"amount": 5}')) == {"charged": 0}


def test_nightly(capsys: pytest.CaptureFixture[str]) -> None:
    run("nightly", b'{"next_run": "2030-01-31T03:00:00.000Z"}', mode=Mode.SCHEDULED)
    assert capsys.readouterr().out == "the next one is due at 2030-01-31T03:00:00.000Z\n"


def test_resize() -> None:
    assert value(run("resize-background")) == {"memory": 1024}


def test_user() -> None:
    for params, text in (({"id": "7"}, b"This is 7."), ({}, b"This is you.")):
        outcome = run("user", None, params=params)
        assert isinstance(outcome, Succeeded)
        assert outcome.response.body == text


def test_the_paths_match_as_their_table_says(folder: Path) -> None:
    table = PAGE.partition("| `path` | matches |")[2].partition("\n\n")[0]
    rows = [row.replace("\\|", "\0").split("|") for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) == 7
    for _, path, matches, params, _ in rows:
        pattern = compiled(path.strip(" `").replace("\0", "|"))
        does, _, not_this = matches.partition(", but not ")
        found = [pattern.match(one) for one in re.findall("`([^`]+)`", does)]
        assert found[0] == json.loads(params.strip(" `"))
        assert None not in found
        assert [pattern.match(one) for one in re.findall("`([^`]+)`", not_this)] in ([], [None])
    listed = catalog(folder).entries["user"].manifest
    assert (listed.path, listed.method) == (("/users/:id", "/me"), ("GET", "HEAD"))
    assert [path for path in GATEWAYS if f"`{path}`" not in PAGE] == []
    assert (PATHS_MAX, PATH_LENGTH_MAX, MATCHED_LENGTH_MAX) == (100, 1024, 8192)


def test_the_event_is_that_of_the_request() -> None:
    ((request, event),) = re.findall(r"```\n(POST .*?)```\n\nit is\n\n```json\n(.*?)```", PAGE, re.DOTALL)
    head, _, body = request.strip().partition("\n\n")
    line, *headers = head.splitlines()
    method, target, _ = line.split()
    path, _, query = target.partition("?")
    pairs = [[name.lower(), text] for name, text in (header.split(": ") for header in headers)]
    made = {"method": method, "path": path, "query": query, "headers": pairs, "scheme": "http"}
    assert make_event(made, body.encode()) == json.loads(event)


def test_the_context_has_every_name_on_the_page() -> None:
    table = PAGE.partition("## The context")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)[()]*`", row) for row in table.splitlines() if row.startswith("| `")]
    context = Context(
        invocation_id=ID, function="hello", memory_mib=512, attempt=1, limit_at=boot_s() + 60, errors=[]
    )
    named = {name for row in rows for name in row if name not in {"type", "message", "None"}}
    assert {name for name in named if not hasattr(context, name)} == set()
    public = {name for name in dir(context) if not name.startswith("_")}
    assert public - named == {"callbackWaitsForEmptyEventLoop"}  # which says nothing to Python


def test_every_key_of_config_has_its_row() -> None:
    table = PAGE.partition("| key | what it may be |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(KEYS)


def test_the_limits_are_those_of_the_code() -> None:
    assert SOURCE_BYTES_MAX == 1024 * 1024
    assert "| the function's own file | 1 MiB |" in PAGE
    assert RetryPolicy() == RetryPolicy(retries=2, delays_s=(60, 120))


@pytest.mark.parametrize(("status", "retry"), [(400, False), (499, False), (500, True), (503, True)])
def test_a_returned_status_is_judged_as_the_page_says(status: int, retry: bool) -> None:
    frame = value_frame({"statusCode": status})
    outcome = judge(*frame, mode=Mode.BACKGROUND, returned_status="fail")
    assert isinstance(outcome, Failed)
    assert outcome.retry is retry
    assert isinstance(judge(*frame, mode=Mode.BACKGROUND, returned_status="ignore"), Succeeded)


def test_the_names_of_files_are_those_that_are_found(folder: Path) -> None:
    for path in ("a/a.py", "b/index.py", "c/words.py", "words/__init__.py"):
        file = folder / "functions" / path
        file.parent.mkdir()
        file.write_text("def handler(event, context): ...")
    assert set(catalog(folder).entries) - set(EXAMPLES) == {"a", "b"}


def test_the_examples_need_nothing_but_python() -> None:
    imported = {
        word
        for source in EXAMPLES.values()
        for word in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    }
    assert imported - sys.stdlib_module_names == {"quarterhour"}
