"""The API that the site in kinds/ stands before: a real web server, which notes what it is asked.

It answers every method, echoes what it got below /echo, keeps what is put below /storage, and
/slow gives the second half of its body only when `second_half` is set.
"""

import gzip
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import TracebackType
from typing import Any, Self

from PIL import Image

__all__ = ["POSTS", "Asked", "Shop", "picture"]

POSTS = [
    {
        "slug": "fish-and-chips",
        "title": "Fish & <Chips> “new”",
        "date": "2026-03-01T10:00:00Z",
        "summary": 'It\'s "back" ]]> — for 5 €',
    },
    {"slug": "2", "title": "Second", "date": "2026-03-02T10:00:00Z", "summary": ""},
]
WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that came. Names of headers are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def picture(width: int = 400, height: int = 200) -> bytes:
    """A PNG that is red on its left half and blue on its right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class Shop:
    """Listens on loopback while it is entered. `down`: it answers 503 to everything."""

    asked: list[Asked] = field(default_factory=list)
    down: bool = False
    second_half: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.second_half.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        shop = self

        class Handler(_Handler):
            def answer(self, asked: Asked) -> None:
                shop.asked.append(asked)
                if shop.down:
                    self.send(503, b"closed")
                elif asked.path.startswith("/slow"):
                    self.send_slowly(shop.second_half)
                else:
                    self.send_known(asked)

        return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, asked: Asked) -> None:
        raise NotImplementedError

    def send_known(self, asked: Asked) -> None:
        match asked.path.partition("?")[0].split("/")[1:]:
            case ["posts.json"]:
                self.send(200, json.dumps(POSTS).encode(), **{"content-type": "application/json"})
            case ["pictures", "cover.png"]:
                self.send(200, picture(), **{"content-type": "image/png", "etag": '"cover-1"'})
            case ["messages"]:
                self.send(201, json.dumps({"id": 7, **asked.json}).encode())
            case ["storage" | "orders", _]:
                self.send(200, b"")
            case ["echo", *_]:
                seen = {"method": asked.method, "path": asked.path, "headers": asked.headers}
                content = json.dumps({**seen, "body": asked.body.decode()}).encode()
                self.send(
                    207,
                    gzip.compress(content),
                    **{"content-encoding": "gzip", "content-type": "application/json", "x-shop": "open"},
                )
            case ["away"]:
                self.send(302, b"", location="/elsewhere")
            case ["bytes"]:
                self.send(200, asked.body, **{"content-type": "application/octet-stream"})
            case _:
                self.send(404, b"no such page")

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        for cookie in ("a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"):
            self.send_header("set-cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_slowly(self, second_half: threading.Event) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        if second_half.wait(WAIT_S):
            self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")
        self.close_connection = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # whoever asked has gone
            self.close_connection = True

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._take

    def _take(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._read(headers)
        self.answer(Asked(method=self.command, path=self.path, headers=headers, body=body))

    def _read(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Not to the standard error."""
