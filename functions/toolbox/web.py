"""Fetching what others serve: with a limit for everything, and errors that say whether it may pass.

A function that fetches what its request names fetches whatever this machine can reach, also what the
one who asks could not. Where strangers may call it, compare the address with a list of those allowed.
"""

import asyncio
import mimetypes
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["SAMPLE_URL", "USER_AGENT", "Fetched", "Refused", "TryLater", "fetch", "open_client", "parse_url"]

USER_AGENT = "quarterhour-example/1.0"
TIMEOUT_S = 30  # for all of a fetch
SILENCE_S = 10  # for a connection, and between two pieces of an answer
REDIRECTS_MAX = 5
DELAY_S_MAX = 3600
PORTS = (None, *range(1, 65_536))  # None is the port of the scheme
URL_LENGTH_MAX = 2_000

SAMPLES = Path(__file__).with_name("samples")
SAMPLE_URL = "http://sample.invalid/"


class Refused(Exception):  # noqa: N818 - an answer, not a fault of the program
    """There is nothing to be had at the address, and asking again is useless."""


class TryLater(Exception):  # noqa: N818 - an answer, not a fault of the program
    """There is nothing to be had now. `delay_s`: seconds to wait, if the other side has said so."""

    def __init__(self, message: str, *, delay_s: int | None = None) -> None:
        super().__init__(message)
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came. `url`: where it was in the end; `type`: a media type such as "text/html", or ""."""

    url: httpx.URL
    type: str
    charset: str | None
    content: bytes

    @property
    def text(self) -> str:
        """The content as text. Where it does not say its encoding: UTF-8, else what old pages are in."""
        for charset in (self.charset or "utf-8", "utf-8"):
            with suppress(LookupError, ValueError):
                return self.content.decode(charset).removeprefix("\ufeff")
        return self.content.decode("cp1252", "replace")


def open_client(*, sample: bool = False) -> httpx.AsyncClient:
    """A client for `fetch`, to be closed by `async with`."""
    return httpx.AsyncClient(
        timeout=SILENCE_S,
        headers={"user-agent": USER_AGENT},
        transport=httpx.MockTransport(_read_sample) if sample else None,
    )


def parse_url(text: object, base: httpx.URL | None = None) -> httpx.URL:
    """The address that `text` is, seen from `base`, without its #fragment. Raises `Refused`."""
    if isinstance(text, str) and len(text) <= URL_LENGTH_MAX:
        with suppress(httpx.InvalidURL, ValueError):
            url = base.join(text.strip()) if base else httpx.URL(text.strip())
            url = url.copy_with(raw_path=url.raw_path, fragment=None)  # with the / of an empty path
            if url.scheme in ("http", "https") and _is_host(url.host) and url.port in PORTS:
                return url
    message = f"{ascii(text)[:200]} is no address such as https://example.org/."
    raise Refused(message)


async def fetch(
    client: httpx.AsyncClient,
    url: httpx.URL,
    *,
    bytes_max: int,
    types: Collection[str] = (),
    why_not: Callable[[httpx.URL], str | None] = lambda _: None,
) -> Fetched:
    """What is at `url`. Raises `Refused`, `TryLater`.

    `types`: the media types that are wanted, () for all. `why_not` is asked before each request, those
    of redirects too; what it says ("is on another host") is why that address is refused.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(REDIRECTS_MAX + 1):
                if reason := why_not(url):
                    raise Refused(_shown(url) + f" {reason}.")
                async with client.stream("GET", url) as response:
                    if response.next_request is None:
                        return await _read(response, bytes_max, types)
                    url = parse_url(str(response.next_request.url))
    except TimeoutError as error:
        message = f"{_shown(url)} took longer than {TIMEOUT_S} seconds."
        raise TryLater(message) from error
    except httpx.InvalidURL as error:
        message = f"{_shown(url)} leads to what is no address: {error}"
        raise Refused(message) from error
    except httpx.HTTPError as error:
        message = f"{_shown(url)} cannot be reached: {str(error) or type(error).__name__}"
        raise TryLater(message) from error
    message = f"{_shown(url)} is behind more than {REDIRECTS_MAX} redirects."
    raise Refused(message)


async def _read(response: httpx.Response, bytes_max: int, types: Collection[str]) -> Fetched:
    shown = _shown(response.url)
    _check_status(response, shown)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if types and media_type not in types:
        message = f"{shown} is {media_type or 'of no type'}, not {' or '.join(types)}."
        raise Refused(message)
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > bytes_max:
            message = f"{shown} is larger than {bytes_max} bytes."
            raise Refused(message)
    return Fetched(
        url=response.url, type=media_type, charset=response.charset_encoding, content=bytes(content)
    )


def _check_status(response: httpx.Response, shown: str) -> None:
    message = f"{shown} answered {response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise TryLater(message, delay_s=_seconds_to_wait(response.headers.get("retry-after", "")))
    if not response.is_success:
        raise Refused(message)


def _seconds_to_wait(text: str) -> int | None:
    return min(int(text), DELAY_S_MAX) if text.isdecimal() and len(text) < 10 else None


def _is_host(host: str) -> bool:
    # What is no host is found out late otherwise, as an error of something that did not expect it.
    return 0 < len(host) < 254 and "%" not in host and all(len(part) < 64 for part in host.split("."))


def _shown(url: httpx.URL) -> str:
    """An address for messages and the log, which a password has no place in."""
    return str(url.copy_with(userinfo=b""))[:500]


def _read_sample(request: httpx.Request) -> httpx.Response:
    """Answers as a web server with the folder samples/ would."""
    path = SAMPLES / (request.url.path.strip("/") or "index.html")
    if not path.is_file():
        return httpx.Response(404)
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return httpx.Response(200, content=path.read_bytes(), headers={"content-type": media_type})
