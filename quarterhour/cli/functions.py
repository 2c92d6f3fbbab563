"""`quarterhour list`, `invoke`, `status` and `cancel`: a gateway's functions, and calls of them."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import httpx

from quarterhour.cli.api import DEFAULT_URL, Gateway, open_gateway
from quarterhour.cli.summary import reachable, table
from quarterhour.function import default_route, is_function_name
from quarterhour.ids import is_invocation_id
from quarterhour.lifecycle import FINAL, State
from quarterhour.route import compiled

__all__ = ["cancel", "invoke", "list_functions", "status"]

_EXAMPLES = """\b
Examples:
  quarterhour invoke hello
  quarterhour invoke send-email-background --data '{"to": "ada@example.org"}' --wait
  quarterhour invoke import --data @records.json
  quarterhour invoke user --path /users/7
"""

_url = click.option(
    "--url",
    envvar="QUARTERHOUR_URL",
    default=DEFAULT_URL,
    show_default=True,
    help="The gateway; also the variable QUARTERHOUR_URL.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command("list")
@_url
@_json
def list_functions(url: str, *, as_json: bool) -> None:
    """Show which functions there are."""
    with open_gateway(url) as gateway:
        functions = gateway.functions()
    click.echo(json.dumps({"functions": functions}, indent=2) if as_json else table(functions))


@click.command(epilog=_EXAMPLES)
@click.argument("name")
@click.option(
    "--data", metavar="JSON|@FILE|-", help="The body: JSON, the content of a file, or standard input."
)
@click.option("--path", help="Where to call it, if its path is a pattern; may have a query.")
@click.option("--wait", is_flag=True, help="Wait for the end of a background function.")
@_url
@_json
def invoke(name: str, data: str | None, path: str | None, url: str, *, wait: bool, as_json: bool) -> None:
    """Call a function and print what it answers.

    The exit status is 1 if it answers 400 or more, or with --wait if a background function fails for
    good.
    """
    if not is_function_name(name):
        text = f"{name!r} is no name of a function: they are made of A-Z a-z 0-9 _ -."
        raise click.ClickException(text)
    body, content_type = _body(data)
    with open_gateway(url) as gateway:
        function = gateway.function(name)
        methods = function["methods"] or ["POST"]
        method = "POST" if "POST" in methods else methods[0]
        response = gateway.invoke(method, _target(function, path), body, content_type)
        if response.status_code == httpx.codes.ACCEPTED and "x-nf-request-id" in response.headers:
            _accepted(gateway, response, url, wait=wait, as_json=as_json)
        else:
            _answered(name, response, as_json=as_json)


@click.command()
@click.argument("identity", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for its end.")
@_url
@_json
def status(identity: str, url: str, *, wait: bool, as_json: bool) -> None:
    """Show what became of a background invocation.

    ID is what its 202 said in the header x-nf-request-id. The exit status is 1 if it was set aside as
    a dead letter or cancelled.
    """
    _check_id(identity)
    with open_gateway(url) as gateway:
        invocation = _follow(gateway, identity) if wait else gateway.invocation(identity, wait=False)
    _show(invocation, _described, as_json=as_json)


@click.command()
@click.argument("identity", metavar="ID")
@_url
@_json
def cancel(identity: str, url: str, *, as_json: bool) -> None:
    """Cancel a background invocation, waiting or running.

    ID is what its 202 said in the header x-nf-request-id. What runs of it is ended at once. The exit
    status is 1 if it had ended before.
    """
    _check_id(identity)
    with open_gateway(url) as gateway:
        invocation = gateway.cancel(identity)
    sentence = f"Cancelled {identity} of {invocation['function']}."
    click.echo(json.dumps(invocation, indent=2) if as_json else sentence)


def _check_id(identity: str) -> None:
    if not is_invocation_id(identity):
        text = f"{identity!r} is no id of an invocation, such as the header x-nf-request-id of a 202."
        raise click.ClickException(text)


def _target(function: Mapping[str, Any], path: str | None) -> str:
    """Where the function is called: at `path`, if it is there, or else at its own fixed path."""
    name, paths = function["name"], function["paths"]
    matched = " or ".join(paths)
    if path is not None:
        pathname = path.partition("?")[0]
        route = default_route(name)  # is reached by what is below it, too
        if (route in paths and pathname.startswith(f"{route}/")) or any(
            compiled(one).match(pathname) is not None for one in paths
        ):
            return path
        text = f"--path is {path!r}, but {name} is called at paths that match {matched}."
        raise click.ClickException(text)
    if (fixed := next(filter(None, (compiled(one).literal for one in paths)), None)) is not None:
        return fixed
    such = reachable(function) or "/..."
    text = f"{name} is called at paths that match {matched}: say which with --path, such as --path {such}"
    raise click.ClickException(text)


def _body(data: str | None) -> tuple[bytes | None, str | None]:
    """The body and its content type."""
    match data:
        case None:
            return None, None
        case "-":
            return _typed(sys.stdin.buffer.read())
        case _ if data.startswith("@"):
            try:
                return _typed(Path(data[1:]).read_bytes())
            except OSError as error:
                text = f"{data[1:]} cannot be read: {error.strerror}."
                raise click.ClickException(text) from None
    body, content_type = _typed(data.encode())
    if content_type != "application/json":
        # On a command line this is a slip of quoting much more often than it is meant.
        text = f"--data is {data!r}, but must be JSON; anything else can be sent from a file, --data @FILE."
        raise click.ClickException(text)
    return body, content_type


def _typed(body: bytes) -> tuple[bytes, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body, "application/octet-stream"
    try:
        json.loads(text)
    except ValueError:
        return body, "text/plain; charset=utf-8"
    return body, "application/json"


def _answered(name: str, response: httpx.Response, *, as_json: bool) -> None:
    if as_json:
        answer = {"status": response.status_code, "headers": dict(response.headers), "body": response.text}
        click.echo(json.dumps(answer, indent=2))
    elif response.content:
        click.echo(response.content, nl=not response.content.endswith(b"\n"))
    if response.status_code >= httpx.codes.BAD_REQUEST:
        text = f"{name} answered {response.status_code}."
        raise click.ClickException(text)


def _accepted(gateway: Gateway, response: httpx.Response, url: str, *, wait: bool, as_json: bool) -> None:
    identity = response.headers["x-nf-request-id"]
    if wait:
        _show(_follow(gateway, identity), _result, as_json=as_json)
        return
    location = f"{url.rstrip('/')}/v1/invocations/{identity}"
    if as_json:
        click.echo(json.dumps({"status": 202, "id": identity, "location": location}, indent=2))
    else:
        click.echo(f"Accepted; what becomes of it: quarterhour status {identity}")


def _follow(gateway: Gateway, identity: str) -> dict[str, Any]:
    """The invocation once it has ended, however long that takes; Ctrl-C ends the waiting."""
    while True:
        invocation = gateway.invocation(identity, wait=True)
        if invocation["state"] in FINAL:
            return invocation


def _show(invocation: dict[str, Any], text: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    click.echo(json.dumps(invocation, indent=2) if as_json else text(invocation))
    if invocation["state"] in {State.DEAD, State.CANCELLED}:
        sys.exit(1)


def _result(invocation: dict[str, Any]) -> str:
    """What a background function returned, or why it did not."""
    if invocation["state"] != State.SUCCEEDED:
        return _described(invocation)
    result = invocation.get("result")
    if result is None:
        return "It succeeded and returned nothing."
    return result if isinstance(result, str) else json.dumps(result, indent=2, ensure_ascii=False)


def _described(invocation: dict[str, Any]) -> str:
    """The invocation in a few lines."""
    lines = [
        ("id", invocation["id"]),
        ("function", invocation["function"]),
        ("state", invocation["state"]),
        ("due", invocation.get("due_at") if invocation["state"] == State.DELAYED else None),
        ("attempt", invocation.get("attempt")),
        ("outcome", invocation.get("outcome")),
        ("reason", invocation.get("reason")),
        ("error", _error(invocation.get("error"))),
        ("next attempt", invocation.get("next_attempt_at")),
        ("accepted", invocation.get("accepted_at")),
        ("started", invocation.get("started_at")),
        ("finished", invocation.get("finished_at")),
        ("result", None if invocation.get("result") is None else _result(invocation)),
    ]
    text = [f"{name:<13}{value}" for name, value in lines if value is not None]
    return "\n".join([*text, *_evidence(invocation)])


def _evidence(invocation: dict[str, Any]) -> list[str]:
    """Where in its code the function failed, and what its last attempt printed."""
    attempts = invocation.get("attempts") or [{}]
    trace = (invocation.get("error") or {}).get("trace") or []
    logs = (attempts[-1].get("logs") or "").splitlines()
    return (
        [f"  {line}" for line in trace]
        + (["", "It printed:"] if logs else [])
        + [f"  {line}" for line in logs]
    )


def _error(error: Any) -> str | None:
    if isinstance(error, dict):
        kind, message = error.get("type"), error.get("message")
        return f"{kind}: {message}" if kind else str(message)
    return None if error is None else str(error)
