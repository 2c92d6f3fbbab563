"""A web server for tests, on loopback: pages by path, and a note of everything that was asked for."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["Page", "WebServer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer. `together`: it is only given when all parties of this barrier have been asked for."""

    body: str | bytes = ""
    type: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    together: threading.Barrier | None = None


class WebServer:
    """Serves `pages` by path, a list of them one after the other; what is not among them is a 404."""

    def __init__(self, pages: Mapping[str, Page | Sequence[Page]]) -> None:
        self.pages = {path: [page] if isinstance(page, Page) else list(page) for path, page in pages.items()}
        self.asked: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def next(self, path: str) -> Page:
        """Note a request; the page to answer it with. The last one of a list stays."""
        with self._lock:
            self.asked.append(path)
            pages = self.pages.get(path, [Page(status=404)])
            return pages.pop(0) if len(pages) > 1 else pages[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = web.next(self.path)
                # A client may have gone, and a test may have let go of those who wait.
                with suppress(ConnectionError, threading.BrokenBarrierError):
                    if page.together is not None:
                        page.together.wait(timeout=10)
                    self._answer(page)

            def _answer(self, page: Page) -> None:
                content = page.body.encode() if isinstance(page.body, str) else page.body
                self.send_response(page.status)
                headers = {"content-type": page.type, "content-length": str(len(content)), **page.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                """Not to the standard error."""

        return Handler
