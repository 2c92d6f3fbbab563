"""Applications as functions: what an ASGI or a WSGI application sees, and what becomes of what it sends."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterhour.function import Mode
from quarterhour.invocation import Request
from quarterhour.outcome import Failed, Response, Succeeded
from runner.sandbox.job import Code
from tests.process.sandboxes import Bench, Collected, error, open_bench, response, value

HEADERS = (
    ("host", "example.org:8443"),
    ("content-type", "text/plain"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("x-twice", "1"),
    ("x-twice", "2"),
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as bench:
        yield bench


def request(path: str, **more: Any) -> Request:
    return Request(
        path=path, **{"method": "POST", "headers": HEADERS, "client": "192.0.2.7", "scheme": "https"} | more
    )


ASGI_SCOPE = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["started"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
    message = await receive()
    plain = {key: value for key, value in scope.items() if key not in ("headers", "raw_path", "query_string")}
    plain["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    plain["raw_path"], plain["query_string"] = scope["raw_path"].decode(), scope["query_string"].decode()
    plain["body"] = message["body"].decode()
    body = json.dumps(plain).encode()
    headers = [(b"Content-Length", str(len(body)).encode()), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body[:5], "more_body": True})
    await send({"type": "http.response.body", "body": body[5:]})
"""


async def test_what_an_asgi_application_sees(bench: Bench) -> None:
    code = bench.function(ASGI_SCOPE, name="site")
    sent = request("/.netlify/functions/site/a%20b", query="x=1")
    sink = Collected()
    answer = response(await bench.run(code, request=sent, body=b"hello", sink=sink))
    assert sink.head is None  # its length was known: it came in one piece
    assert (answer.status, answer.headers) == (202, (("set-cookie", "a=1"), ("set-cookie", "b=2")))
    scope = json.loads(answer.body)
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("POST", "https", "1.1")
    assert (scope["root_path"], scope["path"]) == ("/.netlify/functions/site", "/.netlify/functions/site/a b")
    assert (scope["raw_path"], scope["query_string"]) == (sent.path, "x=1")
    assert scope["headers"] == [list(pair) for pair in HEADERS]
    assert (scope["client"], scope["server"]) == (["192.0.2.7", 0], ["example.org", 8443])
    assert (scope["body"], scope["state"]) == ("hello", {"started": True})


async def test_at_a_path_of_its_own_it_is_not_mounted(bench: Bench) -> None:
    code = bench.function(ASGI_SCOPE, name="site")
    scope = json.loads(await bench.text(code, request=request("/users/7"), sink=Collected()))
    assert (scope["root_path"], scope["path"]) == ("", "/users/7")


WSGI_ENVIRON = """
import json

def app(environ, start_response):
    body = environ["wsgi.input"].read().decode()
    names = [name for name in environ if name.isupper()] + ["wsgi.url_scheme"]
    start_response("202 Accepted", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    return [json.dumps({"body": body, **{name: environ[name] for name in names}}).encode()]
"""


async def test_what_a_wsgi_application_sees(bench: Bench) -> None:
    code = bench.function(WSGI_ENVIRON, name="site")
    sent = request("/.netlify/functions/site/a%20b", query="x=1")
    answer = response(await bench.run(code, request=sent, body=b"hello", sink=Collected()))
    assert (answer.status, answer.headers) == (202, (("set-cookie", "a=1"), ("set-cookie", "b=2")))
    assert json.loads(answer.body) == {
        "body": "hello",
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/plain",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_HOST": "example.org:8443",
        "HTTP_X_TWICE": "1,2",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "x=1",
        "REMOTE_ADDR": "192.0.2.7",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/.netlify/functions/site",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https",
    }


FRAMEWORKS = {
    "quart": """
        from quart import Quart, request
        app = Quart(__name__)

        @app.post("/hello/<name>")
        async def hello(name):
            return f"{name} {(await request.get_data()).decode()}", 201
    """,
    "starlette": """
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def hello(request):
            text = f"{request.path_params['name']} {(await request.body()).decode()}"
            return PlainTextResponse(text, status_code=201)

        app = Starlette(routes=[Route("/hello/{name}", hello, methods=["POST"])])
    """,
    "flask": """
        from flask import Flask, request
        app = Flask(__name__)

        @app.post("/hello/<name>")
        def hello(name):
            return f"{name} {request.get_data(as_text=True)}", 201
    """,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("mount", ["/.netlify/functions/site", ""])
async def test_frameworks(bench: Bench, framework: str, mount: str) -> None:
    code = bench.function(FRAMEWORKS[framework], name="site")
    sink = Collected()
    for text in ("first", "second"):  # the second one finds it started
        answer = response(
            await bench.run(code, request=request(f"{mount}/hello/ada"), body=text.encode(), sink=sink)
        )
        assert (answer.status, answer.body.decode()) == (201, f"ada {text}")
    missing = response(await bench.run(code, request=request(f"{mount}/nowhere"), sink=sink))
    assert missing.status == 404
    assert sink.head is None


def asgi(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    head = "async def app(scope, receive, send):\n    if scope['type'] == 'lifespan': raise ValueError\n"
    return f"{head}{lines}\n"


START = "await send({'type': 'http.response.start', 'status': 200, 'headers': []})"


STARTUP_FAILS = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.mark.parametrize(
    ("source", "type_", "words"),
    [
        (asgi("raise KeyError('x')"), "KeyError", "x"),
        (asgi("return"), "AppError", "without having sent a whole response"),
        (asgi(START), "AppError", "without having sent a whole response"),
        (asgi("await send({'type': 'http.response.body', 'body': b''})"), "AppError", "no place"),
        (asgi(f"{START}\n{START}"), "AppError", "no place"),
        ("def app(environ, start_response): raise KeyError('x')", "KeyError", "x"),
        ("def app(environ, start_response): return []", "AppError", "start_response"),
        ("app = 3", "HandlerNotFound", "no ASGI or WSGI application"),
        (STARTUP_FAILS, "AppError", "no database"),
    ],
)
async def test_an_application_that_fails(bench: Bench, source: str, type_: str, words: str) -> None:
    failed = error(await bench.run(source, sink=Collected()))
    assert failed.type == type_
    assert words in failed.message


async def test_a_body_without_a_length_comes_as_it_is_sent(bench: Bench) -> None:
    source = asgi(
        START
        + "\nawait send({'type': 'http.response.body', 'body': b'a' * 70_000, 'more_body': True})"
        + "\nawait send({'type': 'http.response.body', 'body': b'b'})"
    )
    sink = Collected()
    finished = await bench.run(source, sink=sink)
    assert isinstance(finished.outcome, Succeeded)
    assert sink.head == Response(status=200)
    assert [len(chunk) for chunk in sink.chunks] == [65536, 4464, 1]


async def test_an_application_in_the_background_claims_a_status(bench: Bench) -> None:
    lines = START + "\nawait send({'type': 'http.response.body', 'body': b'done'})"
    finished = await bench.run(asgi(lines), mode=Mode.BACKGROUND)
    assert json.loads(value(finished) or b"") == {"statusCode": 200, "body": "done"}
    finished = await bench.run(asgi(lines.replace("200", "503")), mode=Mode.BACKGROUND)
    assert isinstance(finished.outcome, Failed)
    assert finished.outcome.error.type == "ReturnedStatus"


async def test_a_handler_wins_over_an_application(bench: Bench) -> None:
    source = "app = print\ndef handler(event, context): return {'statusCode': 204}"
    code: Code = bench.function(source)
    assert response(await bench.run(code)).status == 204
