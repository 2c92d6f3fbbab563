"""The examples in JavaScript and TypeScript, as a worker runs them: `receive-webhook`, `short-link`."""

import hmac
import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.node import Answer, NodeWorker
from tests.unit.functions import FOLDER

SECRET = "it is a secret"
JSON = ("content-type", "application/json")
Start = Callable[..., NodeWorker]


@pytest.fixture(name="start")
def starting(tmp_path: Path) -> Iterator[Start]:
    """Start a worker for an example."""
    workers: list[NodeWorker] = []

    def start(name: str, **environment: str) -> NodeWorker:
        folders = {"WEBHOOKS_DIR": str(tmp_path / "webhooks"), "LINKS": str(tmp_path / "links.json")}
        source = (FOLDER / name).read_text(encoding="utf-8")
        worker = NodeWorker(tmp_path, source, name=name, environment={**folders, **environment})
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.__exit__(None, None, None)


# The webhook


def deliver(worker: NodeWorker, body: bytes, **headers: str) -> tuple[int, Any]:
    pairs = [JSON, *((name.replace("_", "-"), value) for name, value in headers.items())]
    answer = worker.call(body, headers=pairs)
    assert answer.header["kind"] == "returned", answer.header
    return answer.header["statusCode"], answer.value


def kept(folder: Path) -> dict[str, Any]:
    """What is kept, by the names of the files without their .json."""
    files = (folder / "webhooks").iterdir()
    return {file.name.removesuffix(".json"): json.loads(file.read_text()) for file in files}


def signature(body: bytes) -> str:
    return hmac.digest(SECRET.encode(), body, "sha256").hex()


def test_without_a_secret_everything_is_kept_once(start: Start, tmp_path: Path) -> None:
    worker = start("receive-webhook.js")
    named = {"x_github_delivery": "d-1", "x_github_event": "push"}
    told = {"delivery": "d-1", "kind": "push", "verified": False}
    assert deliver(worker, b'{"a": "\xc3\xbc"}', **named) == (201, {**told, "duplicate": False})
    assert deliver(worker, b'{"a": 2}', **named) == (200, {**told, "duplicate": True})
    (delivery,) = kept(tmp_path).values()
    assert time.time() - 60 < _seconds(delivery.pop("received_at")) < time.time() + 60
    assert delivery == {**told, "payload": {"a": "ü"}}
    assert worker.printed() == "push d-1: kept\npush d-1: was here before\n"


def _seconds(moment: str) -> float:
    return time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone


@pytest.mark.parametrize(
    ("body", "headers", "delivery"),
    [
        (b'{"id": "evt_1", "type": "x"}', {}, "evt_1"),
        (b'{"id": "evt_1"}', {"webhook_id": "msg_2"}, "msg_2"),
        (b"{}", {}, sha256(b"{}").hexdigest()),
        (b"", {}, sha256(b"").hexdigest()),
        (b"null", {}, sha256(b"null").hexdigest()),
        (b'{"id": 5}', {}, sha256(b'{"id": 5}').hexdigest()),
        (b'{"id": "../up"}', {}, sha256(b'{"id": "../up"}').hexdigest()),
        (b"{}", {"x_github_delivery": "a/b"}, sha256(b"{}").hexdigest()),
    ],
)
def test_what_a_delivery_is_called(
    start: Start, tmp_path: Path, body: bytes, headers: dict[str, str], delivery: str
) -> None:
    status, told = deliver(start("receive-webhook.js"), body, **headers)
    assert (status, told["delivery"]) == (201, delivery)
    assert list(kept(tmp_path)) == [delivery]


def test_signatures(start: Start, tmp_path: Path) -> None:
    worker = start("receive-webhook.js", WEBHOOK_SECRET=SECRET)
    body = '{"id": "evt_1", "text":  "Grüße"}\r\n'.encode()
    right = signature(body)
    now = int(time.time())

    def stripe(moment: int, signed: bytes = body) -> str:
        return signature(f"{moment}.".encode() + signed)

    for headers in (
        {},
        {"x_hub_signature_256": ""},
        {"x_hub_signature_256": right},
        {"x_hub_signature_256": "sha256="},
        {"x_hub_signature_256": f"sha256={'0' * 64}"},
        {"x_hub_signature_256": f"sha256={signature(body + b' ')}"},
        {"stripe_signature": "nonsense"},
        {"stripe_signature": f"t={now}"},
        {"stripe_signature": f"v1={stripe(now)}"},
        {"stripe_signature": f"t={now},v1={right}"},
        {"stripe_signature": f"t={now},v0={stripe(now)}"},
        {"stripe_signature": f"t={now - 400},v1={stripe(now - 400)}"},
        {"stripe_signature": f"t={now + 1},v1={stripe(now)}"},
    ):
        status, told = deliver(worker, body, **headers)
        assert (status, told) == (401, {"error": "The signature is missing or wrong."}), headers
    assert not (tmp_path / "webhooks").exists()

    status, told = deliver(worker, body, x_hub_signature_256=f"sha256={right}")
    assert (status, told["verified"]) == (201, True)
    rolled = f"t={now},v1={'0' * 64},v1={stripe(now)}"
    status, told = deliver(worker, body, stripe_signature=rolled)
    assert (status, told["duplicate"]) == (200, True)
    empty = deliver(worker, b"", x_hub_signature_256=f"sha256={signature(b'')}")
    assert empty[0] == 201


def test_what_is_no_json_is_refused(start: Start, tmp_path: Path) -> None:
    status, told = deliver(start("receive-webhook.js"), b"{")
    assert (status, told["error"][:22]) == (400, "The body must be JSON:")
    assert not (tmp_path / "webhooks").exists()


# The short links


def go(worker: NodeWorker, slug: str | None = None, query: str = "") -> Answer:
    params = {} if slug is None else {"slug": slug}
    return worker.call(path="/go" if slug is None else f"/go/{slug}", params=params, query=query)


def target(answer: Answer) -> str:
    assert answer.header["statusCode"] == 302, answer.header
    return str(answer.header["headers"]["location"])


def test_the_sample_links(start: Start) -> None:
    worker = start("short-link.ts")
    links = go(worker).value
    assert sorted(links) == ["netlify", "node", "python"]
    assert target(go(worker, "node")) == links["node"] == "https://nodejs.org/api/"
    assert target(go(worker, "node", "a=1&b=%20")) == "https://nodejs.org/api/?a=1&b=+"
    for missing in ("nope", "constructor", "__proto__", "%zz"):
        answer = go(worker, missing)
        assert (answer.header["statusCode"], answer.value["links"]) == (404, ["netlify", "node", "python"])


def test_links_of_ones_own(start: Start, tmp_path: Path) -> None:
    worker = start("short-link.ts")
    file = tmp_path / "links.json"
    good = {"café": "https://example.org/?x=1#y", "__proto__": "http://localhost/"}
    bad = {"script": "javascript:alert(1)", "number": 5, "path": "/here", "none": "https://"}
    file.write_text(json.dumps(good | bad))
    assert go(worker).value == good
    assert target(go(worker, "caf%C3%A9", "z=2")) == "https://example.org/?x=1&z=2#y"
    assert target(go(worker, "__proto__")) == "http://localhost/"
    assert f"{file}: script is no address such as" in worker.printed()
    file.write_text("{}")
    assert go(worker).value == {}
    file.write_text("{")
    assert go(worker).error["message"].startswith(f"{file} cannot be read: ")
