import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quarterhour.cli.api import trusts_proxies
from quarterhour.cli.main import main

ID = "01900000-0000-7000-8000-000000000001"

HELLO = {
    "name": "hello",
    "mode": "synchronous",
    "url": "/.netlify/functions/hello",
    "paths": ["/.netlify/functions/hello"],
    "methods": [],
    "schedule": None,
    "error": None,
}
BROKEN = {
    "name": "broken-background",
    "mode": "background",
    "url": "/.netlify/functions/broken-background",
    "paths": ["/.netlify/functions/broken-background"],
    "methods": [],
    "schedule": "@hourly",
    "next_run": "2030-01-31T08:00:00.000Z",
    "error": "SyntaxError: invalid syntax\n(broken.py, line 1)",
}


def known(name: str, *paths: str, methods: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "paths": paths or (f"/.netlify/functions/{name}",), "methods": methods}


def ended(state: str, **more: Any) -> dict[str, Any]:
    facts = {"id": ID, "function": "report-background", "mode": "background", "state": state, "attempt": 1}
    return {**facts, **more}


class Stub(ThreadingHTTPServer):
    """A gateway whose answers are written down beforehand; `seen` are the requests that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}
        self.seen: list[tuple[str, str, str | None, bytes | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers.setdefault(path, []).append((status, headers, data))


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        length = self.headers.get("content-length")
        body = None if length is None else self.rfile.read(int(length))
        if not self.path.startswith("/v1/functions/"):  # to look a function up is not to call it
            self.server.seen.append((self.command, self.path, self.headers.get("content-type"), body))
        answers = self.server.answers[self.path]
        status, headers, data = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with Stub() as stub:
        thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("QUARTERHOUR_URL", stub.url)
        for name in ("hello", "report-background"):
            stub.answer(f"/v1/functions/{name}", known(name))
        yield stub
        stub.shutdown()
        thread.join()


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, prog_name="quarterhour")


def test_list_prints_a_table(gateway: Stub) -> None:
    gateway.answer("/v1/functions", {"functions": [HELLO, BROKEN]})
    lines = run("list").stdout.splitlines()
    assert [re.split(r"  +", line, maxsplit=5) for line in lines] == [
        ["NAME", "MODE", "URL", "SCHEDULE", "NEXT RUN", "ERROR"],
        ["hello", "synchronous", "/.netlify/functions/hello", "-", "-", "-"],
        [
            "broken-background",
            "background",
            "/.netlify/functions/broken-background",
            "@hourly",
            "2030-01-31 08:00:00Z",
            "SyntaxError: invalid syntax (broken.py, line 1)",
        ],
    ]


def test_list_without_functions_says_what_to_do(gateway: Stub) -> None:
    gateway.answer("/v1/functions", {"functions": []})
    assert run("list").stdout.startswith("No functions are known: write one")


def test_list_prints_json_for_programs(gateway: Stub) -> None:
    gateway.answer("/v1/functions", {"functions": [HELLO]})
    assert json.loads(run("list", "--json").stdout) == {"functions": [HELLO]}


def test_invoke_prints_the_body_and_nothing_else(gateway: Stub) -> None:
    gateway.answer("/.netlify/functions/hello", b"Hello, Ada")
    result = run("invoke", "hello", "--data", '{"name": "Ada"}')
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"Hello, Ada\n", "")
    assert gateway.seen == [
        ("POST", "/.netlify/functions/hello", "application/json", b'{"name": "Ada"}'),
    ]


def test_invoke_without_data_sends_no_body(gateway: Stub) -> None:
    gateway.answer("/.netlify/functions/hello", b"")
    assert run("invoke", "hello").exit_code == 0
    assert gateway.seen[0][2:] in {(None, None), (None, b"")}


def test_invoke_takes_data_from_a_file_and_from_standard_input(gateway: Stub, tmp_path: Path) -> None:
    gateway.answer("/.netlify/functions/hello", b"")
    for content, expected in (
        (b'{"a": 1}', "application/json"),
        (b"a,b\n1,2", "text/plain; charset=utf-8"),
        (b"\xff\x00", "application/octet-stream"),
    ):
        (tmp_path / "data").write_bytes(content)
        run("invoke", "hello", "--data", f"@{tmp_path / 'data'}")
        run("invoke", "hello", "--data", "-", stdin=content)
        assert [seen[2:] for seen in gateway.seen] == [(expected, content)] * 2
        gateway.seen.clear()


@pytest.mark.parametrize(
    ("function", "arguments", "called"),
    [
        (known("user", "/users/me"), [], "POST /users/me"),
        (known("user", "/users/:id", "/users/me", methods=("GET",)), [], "GET /users/me"),
        (
            known("user", "/users/:id", methods=("GET", "POST")),
            ["--path", "/users/7?x=1"],
            "POST /users/7?x=1",
        ),
        (known("user"), ["--path", "/.netlify/functions/user/7"], "POST /.netlify/functions/user/7"),
    ],
)
def test_invoke_calls_a_function_where_it_is(
    gateway: Stub, function: dict[str, Any], arguments: list[str], called: str
) -> None:
    gateway.answer("/v1/functions/user", function)
    gateway.answer(called.partition(" ")[2], b"it")
    assert run("invoke", "user", *arguments).stdout == "it\n"
    assert [f"{method} {path}" for method, path, *_ in gateway.seen] == [called]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "user is called at paths that match /users/:id: say which with --path, such as --path /users/1"),
        (["--path", "/x"], "--path is '/x', but user is called at paths that match /users/:id."),
        (["--path", "users/1"], "--path is 'users/1', but user is called at paths that match /users/:id."),
    ],
)
def test_invoke_of_a_pattern_needs_a_path_that_matches(
    gateway: Stub, arguments: list[str], sentence: str
) -> None:
    gateway.answer("/v1/functions/user", known("user", "/users/:id"))
    result = run("invoke", "user", *arguments)
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")
    assert gateway.seen == []


def test_invoke_of_an_unknown_function_is_one_sentence(gateway: Stub) -> None:
    gateway.answer("/v1/functions/nobody", {}, status=404)
    result = run("invoke", "nobody")
    assert result.stderr == "Error: There is no function nobody; `quarterhour list` shows which there are.\n"


def test_invoke_fails_when_the_function_does(gateway: Stub) -> None:
    gateway.answer("/.netlify/functions/hello", {"errorMessage": "no"}, status=500)
    result = run("invoke", "hello")
    assert result.exit_code == 1
    assert result.stdout == '{"errorMessage": "no"}\n'
    assert result.stderr == "Error: hello answered 500.\n"


def test_invoke_prints_json_for_programs(gateway: Stub) -> None:
    gateway.answer("/.netlify/functions/hello", b"Hi", status=404, x_a="1")
    result = run("invoke", "hello", "--json")
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["headers"]["x-a"], answer["body"]) == (404, "1", "Hi")
    assert result.exit_code == 1


def test_invoke_of_a_background_function_says_how_to_follow_it(gateway: Stub) -> None:
    gateway.answer("/.netlify/functions/report-background", b"", status=202, x_nf_request_id=ID)
    assert run("invoke", "report-background").stdout == (
        f"Accepted; what becomes of it: quarterhour status {ID}\n"
    )
    answer = json.loads(run("invoke", "report-background", "--json").stdout)
    assert answer == {"status": 202, "id": ID, "location": f"{gateway.url}/v1/invocations/{ID}"}


@pytest.mark.parametrize(
    ("end", "status", "shown"),
    [
        (ended("succeeded", result="done"), 0, "done\n"),
        (ended("succeeded", result={"pages": 3}), 0, '{\n  "pages": 3\n}\n'),
        (ended("succeeded", result=None), 0, "It succeeded and returned nothing.\n"),
        (ended("dead", outcome="failed", error={"type": "ValueError", "message": "no"}), 1, "ValueError: no"),
        (ended("cancelled"), 1, "cancelled"),
    ],
)
def test_invoke_waits_for_the_end_of_a_background_function(
    gateway: Stub, end: dict[str, Any], status: int, shown: str
) -> None:
    gateway.answer("/.netlify/functions/report-background", b"", status=202, x_nf_request_id=ID)
    gateway.answer(f"/v1/invocations/{ID}?wait=30", ended("running"))
    gateway.answer(f"/v1/invocations/{ID}?wait=30", end)
    result = run("invoke", "report-background", "--wait")
    assert result.exit_code == status
    assert shown in result.stdout
    assert len(gateway.seen) == 3


def test_status_describes_the_invocation(gateway: Stub) -> None:
    invocation = ended("retrying", outcome="timed_out", next_attempt_at="2026-01-01T00:00:00Z", result=None)
    gateway.answer(f"/v1/invocations/{ID}", invocation)
    result = run("status", ID)
    assert result.exit_code == 0
    assert dict(line.split(maxsplit=1) for line in result.stdout.splitlines()) == {
        "id": ID,
        "function": "report-background",
        "state": "retrying",
        "attempt": "1",
        "outcome": "timed_out",
        "next": "attempt 2026-01-01T00:00:00Z",
    }
    assert json.loads(run("status", ID, "--json").stdout) == invocation


def test_status_says_when_a_delayed_invocation_is_due(gateway: Stub) -> None:
    due = {"due_at": "2030-01-31T08:00:00.000Z"}
    gateway.answer(f"/v1/invocations/{ID}", ended("delayed", **due))
    assert "due          2030-01-31T08:00:00.000Z" in run("status", ID).stdout.splitlines()


def test_status_waits_and_fails_when_the_invocation_is_dead(gateway: Stub) -> None:
    gateway.answer(f"/v1/invocations/{ID}?wait=30", ended("waiting"))
    gateway.answer(f"/v1/invocations/{ID}?wait=30", ended("dead"))
    assert run("status", ID, "--wait").exit_code == 1


def test_status_of_an_unknown_invocation_is_one_sentence(gateway: Stub) -> None:
    gateway.answer(f"/v1/invocations/{ID}", {}, status=404)
    result = run("status", ID)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: No background invocation {ID} is known; ")


def test_cancel_says_what_it_has_cancelled(gateway: Stub) -> None:
    gateway.answer(f"/v1/invocations/{ID}", ended("cancelled"))
    result = run("cancel", ID)
    assert (result.exit_code, result.stdout) == (0, f"Cancelled {ID} of report-background.\n")
    assert json.loads(run("cancel", ID, "--json").stdout) == ended("cancelled")
    assert [seen[:2] for seen in gateway.seen] == [("DELETE", f"/v1/invocations/{ID}")] * 2


@pytest.mark.parametrize(
    ("status", "problem", "sentence"),
    [
        (404, {}, f"No background invocation {ID} is known; "),
        (409, {"detail": "It succeeded."}, "The gateway answered 409: It succeeded."),
        (403, {"detail": "The key is not one."}, "The gateway answered 403: The key is not one."),
        (503, {"detail": "It is not known."}, "The gateway answered 503: It is not known."),
    ],
)
def test_cancel_of_what_cannot_be_cancelled_is_one_sentence(
    gateway: Stub, status: int, problem: dict[str, Any], sentence: str
) -> None:
    gateway.answer(f"/v1/invocations/{ID}", problem, status=status)
    result = run("cancel", ID)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {sentence}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["invoke", "../hello"], "'../hello' is no name of a function"),
        (["invoke", "hello", "--data", "{a: 1}"], "--data is '{a: 1}', but must be JSON"),
        (["invoke", "hello", "--data", "@no-such-file"], "no-such-file cannot be read: No such file"),
        (["status", "1"], "'1' is no id of an invocation"),
        (["cancel", "1"], "'1' is no id of an invocation"),
        (["list", "--url", "127.0.0.1:1"], "--url is '127.0.0.1:1', but must be an address such as"),
        (["list", "--url", "http://127.0.0.1:1"], "No gateway answers at http://127.0.0.1:1; start one with"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {sentence}")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (503, {"code": "broker_unavailable", "detail": "The broker is away."}, "The broker is away."),
        (500, b"oops", "oops"),
        (200, b"<html>", "is no gateway of Quarterhour."),
        (200, {}, "is no gateway of Quarterhour."),
    ],
)
def test_what_a_gateway_says_is_passed_on(gateway: Stub, status: int, body: Any, sentence: str) -> None:
    gateway.answer("/v1/functions", body, status=status)
    result = run("list")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_lists_every_command_with_a_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("up", "list", "invoke", "status", "cancel", "gateway", "runner"):
        assert f"\n  {name} " in result.stdout
    assert "..." not in result.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("name", ["up", "list", "invoke", "status", "cancel"])
def test_each_command_has_help(name: str) -> None:
    assert run(name, "--help").stdout.startswith(f"Usage: quarterhour {name} ")


def test_proxies_of_the_environment_are_not_for_this_machine() -> None:
    assert not trusts_proxies("http://127.0.0.1:8888")
    assert not trusts_proxies("http://localhost:8888")
    assert not trusts_proxies("http://[::1]:8888")
    assert trusts_proxies("https://functions.example.org")
