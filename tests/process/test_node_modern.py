"""Modern handlers: `(Request, Context) => Response`, and bodies that come bit by bit."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import Answer, NodeWorker
from tests.waiting import eventually_sync

MODERN = """
const soon = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const bytes = (text) => new TextEncoder().encode(text);
const slowly = (pieces, end = (c) => c.close()) => new ReadableStream({
  async pull(controller) {
    await soon(5);
    const piece = pieces.shift();
    if (piece === undefined) end(controller);
    else controller.enqueue(bytes(piece));
  },
});
const cases = {
  text: () => new Response('hello'),
  json: () => Response.json({ a: 1 }, { status: 201 }),
  bytes: () => new Response(new Uint8Array([0, 255])),
  empty: () => new Response(null, { status: 304 }),
  nothing: () => undefined,
  null: () => null,
  object: () => ({ statusCode: 200 }),
  request: async (request) => Response.json({
    url: request.url, method: request.method, headers: [...request.headers], text: await request.text(),
  }),
  context: async (request, { cookies, geo, ip, params, requestId, server, site, url }) =>
    Response.json({ cookie: cookies.get('a'), geo, ip, params, requestId, server, site, url: url.href }),
  netlify: async (request, context) => Response.json([Netlify.context === context, Netlify.env.has('PATH')]),
  cookies: async (request, { cookies }) => {
    cookies.set('b', 'ö;');
    const more = { path: '/', maxAge: 60, httpOnly: true, secure: true, sameSite: 'Lax' };
    cookies.set({ name: 'c', value: '1', ...more });
    cookies.delete('d');
    return new Response('x', { headers: [['set-cookie', 'a=1'], ['x-a', '1'], ['x-a', '2']] });
  },
  stream: () => new Response(slowly(['one ', 'two ', 'three']), { headers: { 'x-a': '1' } }),
  wide: () => new Response(slowly(['x'.repeat(150_000)])),
  large: () => new Response('x'.repeat(1024 * 1024 + 1)),
  broken: () => new Response(slowly(['one '], (c) => c.error(new TypeError('midway')))),
  no_bytes: () => new Response(new ReadableStream({ pull: (c) => c.enqueue(5) })),
  wait: async (request, context) => {
    context.waitUntil(soon(30).then(() => console.log('waited')));
    context.waitUntil(Promise.reject(new Error('not waited for')));
    return new Response('before');
  },
  endless: () => {
    let pulled = 0;
    return new Response(new ReadableStream({
      async pull(controller) {
        await soon(0);
        pulled += 1;
        console.log('pulled', pulled);
        controller.enqueue(new Uint8Array(65536));
      },
    }, { highWaterMark: 0 }));
  },
  error: () => { throw new TypeError('modern'); },
};
export default async (request, context) => cases[context.url.searchParams.get('case')](request, context);
"""


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeWorker]:
    with NodeWorker(tmp_path_factory.mktemp("modern"), MODERN) as worker:
        yield worker


def case(worker: NodeWorker, name: str, **more: Any) -> Answer:
    return worker.call(query=f"case={name}", **more)


@pytest.mark.parametrize(
    ("name", "header", "body"),
    [
        ("text", {"shape": "object", "statusCode": 200, "body": "text"}, b"hello"),
        ("json", {"statusCode": 201, "headers": {"content-type": "application/json"}}, b'{"a":1}'),
        ("bytes", {"body": "text", "headers": {}}, b"\x00\xff"),
        ("empty", {"statusCode": 304, "body": "none"}, b""),
        ("nothing", {"shape": "object", "statusCode": 204, "body": "none"}, b""),
        ("null", {"shape": "nothing"}, b""),
        ("object", {"shape": "other"}, b""),
    ],
)
def test_responses(modern: NodeWorker, name: str, header: dict[str, Any], body: bytes) -> None:
    answer = case(modern, name)
    assert answer.start is None
    assert {key: answer.header.get(key) for key in header} == header
    assert answer.body == body


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PROPFIND", "TRACE"])
def test_the_request(modern: NodeWorker, method: str) -> None:
    headers = [["host", "example.org:81"], ["x-a", "1"], ["x-a", "2"], ["cookie", "a=1"], ["cookie", "b=2"]]
    answer = case(modern, "request&q=%20x", body=b"\xff body", method=method, scheme="https", headers=headers)
    shown = answer.value
    assert shown["url"] == "https://example.org:81/.netlify/functions/hello?case=request&q=%20x"
    assert shown["method"] == method
    assert ["x-a", "1, 2"] in shown["headers"]
    assert ["cookie", "a=1; b=2"] in shown["headers"]
    assert shown["text"] == ("" if method in ("GET", "HEAD") else "\ufffd body")


def test_a_host_that_no_address_can_have(modern: NodeWorker) -> None:
    answer = case(modern, "request", headers=[["host", "a b:c"]])
    assert answer.value["url"].startswith("http://localhost/.netlify/")


def test_the_context(modern: NodeWorker) -> None:
    headers = [["host", "localhost:8888"], ["cookie", "x=0; a=%C3%B6"]]
    assert case(modern, "context", headers=headers, params={"id": "5"}).value == {
        "cookie": "ö",
        "geo": {},
        "ip": "127.0.0.1",
        "params": {"id": "5"},
        "requestId": "0190a",
        "server": {"region": ""},
        "site": {"id": "", "name": "", "url": "http://localhost:8888"},
        "url": "http://localhost:8888/.netlify/functions/hello?case=context",
    }
    assert case(modern, "netlify").value == [True, True]


def test_cookies(modern: NodeWorker) -> None:
    header = case(modern, "cookies").header
    assert header["headers"] == {"content-type": "text/plain;charset=UTF-8", "x-a": "1, 2"}
    assert header["multiValueHeaders"] == {
        "set-cookie": [
            "a=1",
            "b=%C3%B6%3B",
            "c=1; Max-Age=60; Path=/; HttpOnly; Secure; SameSite=Lax",
            "d=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        ]
    }


def test_a_stream_comes_bit_by_bit(modern: NodeWorker) -> None:
    answer = case(modern, "stream")
    assert answer.start == {"kind": "streaming", "statusCode": 200, "headers": {"x-a": "1"}}
    assert answer.chunks == (b"one ", b"two ", b"three")
    assert answer.header == {"kind": "returned", "shape": "streamed"}


def test_chunks_have_64_kib_at_most(modern: NodeWorker) -> None:
    answer = case(modern, "wide")
    assert [len(chunk) for chunk in answer.chunks] == [65536, 65536, 150_000 - 2 * 65536]


def test_what_is_more_than_a_response_may_be_is_streamed(modern: NodeWorker) -> None:
    answer = case(modern, "large")
    assert answer.start is not None
    assert sum(map(len, answer.chunks)) == 1024 * 1024 + 1


@pytest.mark.parametrize(
    ("name", "message"), [("broken", "midway"), ("no_bytes", "The body's stream gave a chunk")]
)
def test_an_error_in_mid_stream(modern: NodeWorker, name: str, message: str) -> None:
    answer = case(modern, name)
    assert answer.error["type"] == "TypeError"
    assert answer.error["message"].startswith(message)


def test_an_error(modern: NodeWorker) -> None:
    assert case(modern, "error").error["message"] == "modern"


def test_wait_until_is_waited_for(modern: NodeWorker) -> None:
    assert case(modern, "wait").text == "before"
    assert "waited\n" in modern.printed()
    assert "Error: not waited for" in modern.printed()


def test_nobody_waits_for_the_response(modern: NodeWorker) -> None:
    answer = case(modern, "json", mode="background")
    assert (answer.header["shape"], answer.header["statusCode"]) == ("object", 201)
    assert json.loads(answer.body) == {"statusCode": 201, "body": '{"a":1}'}
    assert case(modern, "nothing", mode="background").header["shape"] == "nothing"


def test_a_slow_reader_holds_the_stream_back(tmp_path: Path) -> None:
    with NodeWorker(tmp_path, MODERN) as worker:
        worker.start(query="case=endless")
        eventually_sync(lambda: "pulled" in worker.printed(), what="the first piece was pulled")
        counted, since = -1, time.monotonic()
        while counted < 100 and time.monotonic() - since < 0.3:  # until nothing has been pulled for a while
            now = worker.printed().count("pulled")
            if now != counted:
                counted, since = now, time.monotonic()
            time.sleep(0.01)
        assert 0 < counted < 100
        frames = worker.frames()
        for _ in range(3 * counted + 2):  # the first one has no piece of it
            next(frames)
        assert worker.printed().count("pulled") > 2 * counted
        worker.process.kill()


@pytest.mark.parametrize(
    "body",
    [
        "Readable.from(['one ', Buffer.from('two')])",
        "ReadableStream.from(['one ', new TextEncoder().encode('two')])",
    ],
)
def test_a_classic_handler_streams_as_well(tmp_path: Path, body: str) -> None:
    source = f"""
    import {{ Readable }} from 'node:stream';
    import {{ stream }} from '@netlify/functions';
    export const handler = stream(async () => ({{ statusCode: 200, headers: {{ a: 'b' }}, body: {body} }}));
    """
    with NodeWorker(tmp_path, source) as worker:
        answer = worker.call()
        assert answer.start == {"kind": "streaming", "statusCode": 200, "headers": {"a": "b"}}
        assert b"".join(answer.chunks) == b"one two"
