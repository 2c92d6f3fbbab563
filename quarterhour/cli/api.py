"""A gateway's API as the command line uses it; what goes wrong becomes one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import click
import httpx

from quarterhour.function import default_route
from quarterhour.keys import PREFIX
from quarterhour.listener import is_loopback

__all__ = ["API_KEY", "DEFAULT_URL", "Gateway", "open_gateway", "trusts_proxies"]

DEFAULT_URL = "http://127.0.0.1:8888"
API_KEY = "QUARTERHOUR_API_KEY"  # the variable with the key that is sent along
CONNECT_S = 5.0
ANSWER_S = 30.0
RUN_S = 3700.0  # no synchronous function may run for longer than an hour
WAIT_S = 30


class Gateway:
    """One gateway. Every method raises `click.ClickException` with a sentence for people."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def functions(self) -> list[dict[str, Any]]:
        """All functions that are known."""
        response = self._send("GET", "/v1/functions")
        functions: list[dict[str, Any]] = self._json(response, "functions")["functions"]
        return functions

    def function(self, name: str) -> dict[str, Any]:
        """What is known of one function."""
        response = self._send("GET", f"/v1/functions/{name}")
        if response.status_code == httpx.codes.NOT_FOUND:
            text = f"There is no function {name}; `quarterhour list` shows which there are."
            raise click.ClickException(text)
        if (
            response.status_code == httpx.codes.FORBIDDEN
        ):  # a key that may invoke need not be one that may read
            return {"name": name, "methods": [], "paths": [default_route(name)]}
        return self._json(response, "paths")

    def invoke(self, method: str, path: str, body: bytes | None, content_type: str | None) -> httpx.Response:
        """Call the function that is at `path` and return its answer, whatever its status."""
        headers = {} if content_type is None else {"content-type": content_type}
        return self._send(method, path, content=body, headers=headers, read_s=RUN_S)

    def invocation(self, identity: str, *, wait: bool) -> dict[str, Any]:
        """What is known of a background invocation; with `wait`, after up to 30 s of waiting for its end."""
        query = {"wait": str(WAIT_S)} if wait else {}
        read_s = ANSWER_S + (WAIT_S if wait else 0)
        response = self._send("GET", f"/v1/invocations/{identity}", params=query, read_s=read_s)
        return self._invocation(response, identity)

    def cancel(self, identity: str) -> dict[str, Any]:
        """A background invocation, cancelled."""
        return self._invocation(self._send("DELETE", f"/v1/invocations/{identity}"), identity)

    def _invocation(self, response: httpx.Response, identity: str) -> dict[str, Any]:
        if response.status_code == httpx.codes.NOT_FOUND:
            text = (
                f"No background invocation {identity} is known; synchronous ones are not kept, "
                "and background ones only for a while."
            )
            raise click.ClickException(text)
        return self._json(response, "state")

    def _send(self, method: str, path: str, *, read_s: float = ANSWER_S, **request: Any) -> httpx.Response:
        timeout = httpx.Timeout(CONNECT_S, read=read_s)
        try:
            return self._client.request(method, path, timeout=timeout, **request)
        except httpx.ConnectError:
            text = (
                f"No gateway answers at {self._client.base_url}; start one with `quarterhour up`, "
                "or say where it is with --url."
            )
            raise click.ClickException(text) from None
        except httpx.TimeoutException:
            text = f"The gateway at {self._client.base_url} did not answer in time."
            raise click.ClickException(text) from None
        except httpx.HTTPError as error:
            text = f"The gateway at {self._client.base_url} broke off: {error}."
            raise click.ClickException(text) from None

    def _json(self, response: httpx.Response, key: str) -> dict[str, Any]:
        """The object in the response, which has `key` if it comes from a gateway."""
        if not response.is_success:
            text = f"The gateway answered {response.status_code}: {_detail(response)}"
            raise click.ClickException(text)
        try:
            data = response.json()
        except ValueError:
            data = None
        if not isinstance(data, dict) or key not in data:
            text = f"What answers at {self._client.base_url} is no gateway of Quarterhour."
            raise click.ClickException(text)
        return data


@contextmanager
def open_gateway(url: str) -> Iterator[Gateway]:
    """The gateway at `url`."""
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        text = f"--url is {url!r}, but must be an address such as {DEFAULT_URL}."
        raise click.ClickException(text)
    # The environment's SSL_CERT_FILE holds for this machine too, where its proxies do not.
    verify = httpx.create_ssl_context() if url.startswith("https:") else True
    with httpx.Client(
        base_url=url.rstrip("/"), headers=_credentials(), verify=verify, trust_env=trusts_proxies(url)
    ) as client:
        yield Gateway(client)


def trusts_proxies(url: str) -> bool:
    """Whether the environment's proxies are for this URL: not for this machine itself."""
    return not is_loopback(urlsplit(url).hostname or "")


def _credentials() -> dict[str, str]:
    key = os.environ.get(API_KEY, "").strip()
    if not key:
        return {}
    if not key.startswith(PREFIX) or not key.isascii() or not key.isprintable():
        text = f"{API_KEY} is no API key: they begin with {PREFIX}, and `quarterhour key new` makes them."
        raise click.ClickException(text)
    return {"authorization": f"Bearer {key}"}


def _detail(response: httpx.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        return str(problem.get("detail") or problem.get("title") or problem)
    return response.text[:500].strip() or response.reason_phrase
