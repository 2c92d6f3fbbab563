"""Functions of the kinds that people deploy, classic and modern, in the project kinds/: called over HTTP.

They are written for Netlify, and nothing in them knows of us. Their packages come from npm, once.
"""

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pypdf
import pytest
import pytest_asyncio
from PIL import Image

from tests.e2e.shop import POSTS, Asked, Shop, picture
from tests.node import node
from tests.up import Up, leaving_nothing
from tests.waiting import eventually

# The first test waits for the packages, too.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PROJECT = Path(__file__).parent / "kinds"
SECRET = "it is a secret"
CLASSIC = "/.netlify/functions"
INSTALL_S = 120.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with its packages."""
    folder = tmp_path_factory.mktemp("site") / "kinds"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("node_modules"))
    program = node()
    beside = program.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = [str(program), str(beside)] if beside.is_file() else ["npm"]
    try:
        subprocess.run(
            [*npm, "ci", "--prefer-offline"], cwd=folder, check=True, capture_output=True, timeout=INSTALL_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace")
        sentence = f"This test needs npm and its registry, which is not there now: {error}\n{said[-500:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder


@pytest.fixture(scope="module")
def site() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(project: Path, site: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the project as `quarterhour up` serves it."""
    names = {"API_URL": site.url, "API_KEY": "key-1", "WEBHOOK_SECRET": SECRET}
    with leaving_nothing() as ups, pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        up = Up(project, "--port", "0", "--runners", "1", "--function-environment", ",".join(names))
        ups.append(up)
        url = await asyncio.to_thread(up.ready)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield client
        up.process.terminate()
        assert await asyncio.to_thread(up.wait) == 0


@pytest.fixture(autouse=True)
def shop(site: Shop) -> Shop:
    """The API behind the site, which has been asked nothing yet."""
    site.asked.clear()
    site.down = False
    site.second_half.clear()
    return site


def addresses(classic: str, modern: str) -> pytest.MarkDecorator:
    """A test for both styles of a kind."""
    return pytest.mark.parametrize("path", [f"{CLASSIC}/{classic}", modern], ids=["classic", "modern"])


async def test_the_lock_leaves_the_registry_to_the_machine() -> None:
    packages = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
    assert {package.get("resolved") for package in packages.values()} == {None}


async def test_all_of_them_are_served_as_they_are(http: httpx.AsyncClient) -> None:
    functions = (await http.get("/v1/functions")).json()["functions"]
    assert [function["error"] for function in functions] == [None] * 12
    assert {function["name"] for function in functions if function["mode"] == "background"} == {
        "classic-invoice-background",
        "modern-invoice",
    }


# The form

contact = addresses("classic-contact", "/api/contact")
MESSAGE = {"name": "Ada Löwe", "email": "ada@example.org", "text": "Do you have it in blue?"}
FORMS: list[dict[str, Any]] = [
    {"data": {**MESSAGE, "topics": ["orders", "other"]}},
    {"json": {**MESSAGE, "topics": ["orders", "other"]}},
    {
        "data": {**MESSAGE, "topics": ["orders", "other"]},
        "files": {"photo": ("Föto.png", b"\x89PNG\r\n\x1a\n\0\xff--\r\n", "image/png")},
    },
]


@contact
@pytest.mark.parametrize("form", FORMS, ids=["urlencoded", "json", "multipart"])
async def test_a_message(http: httpx.AsyncClient, shop: Shop, path: str, form: dict[str, Any]) -> None:
    answer = await http.post(path, **form)
    assert answer.status_code == 201, answer.text
    files = [{"filename": "Föto.png", "type": "image/png", "bytes": 14}] if "files" in form else []
    message = {**MESSAGE, "topics": ["orders", "other"], "files": files}
    assert answer.json() == {"id": 7, **message}
    (asked,) = shop.asked
    assert (asked.method, asked.path, asked.json) == ("POST", "/messages", message)


@contact
@pytest.mark.parametrize("kind", ["data", "json"])
async def test_a_message_that_is_wrong(http: httpx.AsyncClient, shop: Shop, path: str, kind: str) -> None:
    form = {"name": " ", "email": "at home", "topics": ["orders", "weather"], "text": "Hi"}
    answer = await http.post(path, **{kind: form})  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/json"
    assert sorted(answer.json()["errors"]) == ["email", "name", "text", "topics"]
    nothing = await http.post(path, **{kind: {"name": "Ada"}})  # type: ignore[arg-type]
    assert sorted(nothing.json()["errors"]) == ["email", "text"]
    assert shop.asked == []


@contact
@pytest.mark.parametrize(
    ("type", "body"),
    [("application/json", b"{"), ("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b"x")],
)
async def test_a_form_that_is_none(http: httpx.AsyncClient, path: str, type: str, body: bytes) -> None:
    answer = await http.post(path, content=body, headers={"content-type": type})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@contact
async def test_a_bot_a_browser_and_an_api_that_is_down(
    http: httpx.AsyncClient, shop: Shop, path: str
) -> None:
    assert (await http.post(path, data={**MESSAGE, "bot-field": "x"})).status_code == 200
    assert shop.asked == []
    browser = await http.post(path, data=MESSAGE, headers={"accept": "text/html,*/*"})
    thanks = "/thanks" if path.startswith(CLASSIC) else f"{http.base_url}/thanks"
    assert (browser.status_code, browser.headers["location"]) == (303, thanks)
    if path == "/api/contact":
        assert browser.headers["set-cookie"] == "sent=yes; Path=/; HttpOnly; SameSite=Lax"
    shop.down = True
    assert (await http.post(path, data=MESSAGE)).status_code == 502


@contact
async def test_a_form_is_posted(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == (405 if path.startswith(CLASSIC) else 404)


# The webhooks


def signed(body: bytes) -> str:
    return hmac.digest(SECRET.encode(), body, "sha256").hex()


PUSH = json.dumps(
    {"repository": {"full_name": "ada/engine"}, "commits": [{"message": "Grüße 🎈"}]}, ensure_ascii=False
).encode()


async def github(
    http: httpx.AsyncClient, body: bytes, signature: str | None, **headers: str
) -> httpx.Response:
    headers = {"content-type": "application/json", "x-github-event": "push", **headers}
    if signature is not None:
        headers["x-hub-signature-256"] = signature
    return await http.post(f"{CLASSIC}/classic-webhook", content=body, headers=headers)


async def test_githubs_webhook(http: httpx.AsyncClient) -> None:
    for body in (PUSH, PUSH + b"\r\n ", PUSH.replace(b": ", b" :  ")):
        answer = await github(http, body, f"sha256={signed(body)}")
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"kind": "push", "repository": "ada/engine", "commits": 1}
    ping = await github(http, b"", f"sha256={signed(b'')}", **{"x-github-event": "ping"})
    assert (ping.status_code, ping.text) == (200, "pong")


@pytest.mark.parametrize("type", ["application/octet-stream", "application/x-www-form-urlencoded"])
async def test_githubs_webhook_with_a_body_of_bytes(http: httpx.AsyncClient, type: str) -> None:
    body = b"payload=\xff\xfe\0%zz+"
    headers = {"content-type": type, "x-github-event": "ping"}
    assert (await github(http, body, f"sha256={signed(body)}", **headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (PUSH, None),
        (PUSH, ""),
        (PUSH, "sha256=" + "0" * 64),
        (PUSH, signed(PUSH)),
        (PUSH, f"sha256={signed(PUSH)[:-1]}"),
        (PUSH.replace(b"ada", b"eve"), f"sha256={signed(PUSH)}"),
        (PUSH + b" ", f"sha256={signed(PUSH)}"),
        (b"", f"sha256={signed(PUSH)}"),
    ],
    ids=["missing", "empty", "wrong", "no prefix", "short", "tampered", "longer", "no body"],
)
async def test_githubs_webhook_that_is_not_githubs(
    http: httpx.AsyncClient, body: bytes, signature: str | None
) -> None:
    assert (await github(http, body, signature)).status_code == 401


CHECKOUT = json.dumps({"type": "checkout.session.completed", "data": {"object": {"id": "cs_1"}}}).encode()


async def stripe(http: httpx.AsyncClient, body: bytes, signature: str | None) -> httpx.Response:
    headers = {"content-type": "application/json; charset=utf-8"}
    if signature is not None:
        headers["stripe-signature"] = signature
    return await http.post("/webhooks/stripe", content=body, headers=headers)


def stripe_signature(body: bytes, *, age_s: int = 0) -> str:
    moment = int(time.time()) - age_s
    old = "0" * 64  # while a secret is rolled there are two
    return f"t={moment},v1={old},v1={signed(f'{moment}.'.encode() + body)},v0=beef"


async def test_stripes_webhook(http: httpx.AsyncClient, shop: Shop) -> None:
    answer = await stripe(http, CHECKOUT, stripe_signature(CHECKOUT))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    await eventually(lambda: shop.asked, what="the order was fulfilled")
    (asked,) = shop.asked
    assert (asked.method, asked.path, asked.json) == ("PUT", "/orders/cs_1", {"id": "cs_1"})
    other = '{"type": "customer.created", "name": "Łódź"}'.encode()
    answer = await stripe(http, other, stripe_signature(other))
    assert answer.json() == {"received": True, "ignored": "customer.created"}


@pytest.mark.parametrize(
    ("body", "sign"),
    [
        (CHECKOUT, lambda: None),
        (CHECKOUT, lambda: "nonsense"),
        (CHECKOUT, lambda: f"t={int(time.time())},v1={signed(CHECKOUT)}"),
        (CHECKOUT, lambda: stripe_signature(CHECKOUT, age_s=400)),
        (CHECKOUT.replace(b"cs_1", b"cs_2"), lambda: stripe_signature(CHECKOUT)),
        (b"", lambda: stripe_signature(CHECKOUT)),
    ],
    ids=["missing", "nonsense", "wrong", "too old", "tampered", "no body"],
)
async def test_stripes_webhook_that_is_not_stripes(
    http: httpx.AsyncClient, shop: Shop, body: bytes, sign: Callable[[], str | None]
) -> None:
    # It is signed now: a signature from when the tests were collected might be refused for its age alone.
    answer = await stripe(http, body, sign())
    assert (answer.status_code, answer.text) == (400, "Wrong signature")
    assert shop.asked == []


# The thumbnails


def opened(answer: httpx.Response) -> Image.Image:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    image = Image.open(BytesIO(answer.content))
    image.load()
    return image.convert("RGB")


def is_red_then_blue(image: Image.Image) -> bool:
    left, right = (image.getpixel((x, image.height // 2)) for x in (1, image.width - 2))
    return (left, right) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize(
    ("query", "size"), [("", (100, 50)), ("?width=40", (40, 20)), ("?width=1000", (400, 200))]
)
async def test_a_picture_that_is_posted(http: httpx.AsyncClient, query: str, size: tuple[int, int]) -> None:
    image = opened(await http.post(f"{CLASSIC}/classic-thumbnail{query}", content=picture()))
    assert image.size == size
    assert is_red_then_blue(image)


async def test_a_picture_of_the_shop(http: httpx.AsyncClient) -> None:
    for size, expected in (("small", (40, 20)), ("medium", (160, 80))):
        answer = await http.get(f"/thumbnails/{size}/cover.png")
        assert opened(answer).size == expected
        assert is_red_then_blue(opened(answer))
        assert answer.headers["etag"] == '"cover-1"'
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    head = await http.head("/thumbnails/small/cover.png")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_picture_that_is_none(http: httpx.AsyncClient) -> None:
    classic = f"{CLASSIC}/classic-thumbnail"
    for body in (b"", b"GIF89a", picture()[:100]):
        answer = await http.post(classic, content=body, headers={"content-type": "image/png"})
        assert (answer.status_code, answer.text[:15]) == (415, "This is no PNG:")
    assert (await http.post(f"{classic}?width=0", content=picture())).status_code == 400
    missing = await http.get("/thumbnails/small/nothing.png")
    assert (missing.status_code, missing.text) == (404, "There is no picture nothing.png.")
    assert (await http.get("/thumbnails/huge/cover.png")).status_code == 404


# The feed

feed = addresses("classic-feed", "/feed.xml")


@feed
async def test_the_feed(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/rss+xml; charset=utf-8")
    rss = ET.fromstring(answer.content)
    assert (rss.tag, rss.get("version")) == ("rss", "2.0")
    items = rss.findall("channel/item")
    assert len(items) == len(POSTS)
    for item, post in zip(items, POSTS, strict=True):
        assert item.findtext("title") == post["title"]
        assert item.findtext("description") == post["summary"]
        assert item.findtext("link") == item.findtext("guid") == f"{http.base_url}/{post['slug']}/"
        published = parsedate_to_datetime(item.findtext("pubDate") or "")
        assert published == datetime.fromisoformat(post["date"])


async def test_the_feed_that_has_not_changed(http: httpx.AsyncClient) -> None:
    etag = (await http.get(f"{CLASSIC}/classic-feed")).headers["etag"]
    same = await http.get(f"{CLASSIC}/classic-feed", headers={"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (await http.get("/rss")).headers["last-modified"] == "Mon, 02 Mar 2026 10:00:00 GMT"


@feed
async def test_the_feed_without_its_posts_is_an_error(http: httpx.AsyncClient, shop: Shop, path: str) -> None:
    shop.down = True
    answer = await http.get(path)
    assert (answer.status_code, answer.json()["errorType"]) == (500, "SyntaxError")


# The proxy

proxy = addresses("classic-proxy", "/api/shop")


@proxy
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_proxy_passes_on_what_it_gets(
    http: httpx.AsyncClient, shop: Shop, path: str, method: str
) -> None:
    body = None if method == "GET" else "Grüße 🎈"
    answer = await http.request(
        method,
        f"{path}/echo/a%20b/?x=1&x=2&y=%20z&w",
        content=body,
        headers={"x-mine": "a, b", "content-type": "text/plain; charset=utf-8"},
    )
    assert answer.status_code == 207, answer.text
    seen = answer.json()
    assert (seen["method"], seen["path"]) == (method, "/echo/a%20b/?x=1&x=2&y=%20z&w")
    assert seen["body"] == (body or "")
    assert seen["headers"]["x-mine"] == "a, b"
    assert seen["headers"]["authorization"] == "Bearer key-1"
    assert seen["headers"]["host"] == shop.url.removeprefix("http://")
    assert answer.headers["x-shop"] == "open"
    assert "content-encoding" not in answer.headers
    assert answer.headers.get_list("set-cookie") == [
        "a=1; Path=/",
        "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
    ]


@proxy
async def test_the_proxy_leaves_statuses_and_bytes_as_they_are(http: httpx.AsyncClient, path: str) -> None:
    away = await http.get(f"{path}/away")
    assert (away.status_code, away.headers["location"]) == (302, "/elsewhere")
    missing = await http.get(f"{path}/nothing")
    assert (missing.status_code, missing.text) == (404, "no such page")
    body = hashlib.sha512(b"seed").digest() * 20_000  # 1.2 MB that is no text
    same = await http.post(f"{path}/bytes", content=body)
    assert (same.status_code, same.content == body) == (200, True)
    head = await http.head(f"{path}/echo/x")
    assert (head.status_code, head.content, head.headers["x-shop"]) == (207, b"", "open")


@proxy
async def test_the_proxy_streams(http: httpx.AsyncClient, shop: Shop, path: str) -> None:
    async with http.stream("GET", f"{path}/slow") as answer:
        bits = answer.aiter_raw()
        assert await anext(bits) == b"first"
        shop.second_half.set()  # only now does the API send the rest
        assert b"".join([bit async for bit in bits]) == b"second"


# The invoice

invoice = addresses("classic-invoice-background", "/api/invoices")


async def ended(http: httpx.AsyncClient, accepted: httpx.Response) -> dict[str, Any]:
    """The status at the end of an invocation."""
    assert (accepted.status_code, accepted.content) == (202, b"")

    async def check() -> dict[str, Any] | None:
        status: dict[str, Any] = (await http.get(accepted.headers["location"], params={"wait": 5})).json()
        return status if status["state"] in ("succeeded", "dead") else None

    return await eventually(check, deadline_s=30)


@invoice
async def test_an_invoice_is_drawn_in_the_background(http: httpx.AsyncClient, shop: Shop, path: str) -> None:
    items = [{"title": f"Volume {number}", "cents": 1050} for number in range(1, 36)]
    order = {"number": "2026-7", "customer": "Ada Löwe", "items": items}
    status = await ended(http, await http.post(path, json=order))
    assert status["state"] == "succeeded", status
    (stored,) = shop.asked
    assert (stored.method, stored.path) == ("PUT", "/storage/2026-7.pdf")
    assert stored.headers["content-type"] == "application/pdf"
    check_invoice(stored)
    said = status["attempts"][0]["logs"]
    if path.startswith(CLASSIC):
        assert status["result"]["statusCode"] == 200
        assert said == f"Drawing invoice 2026-7 ({status['id']})\n"
    else:
        assert status["result"] is None
        assert said == f"Stored 2026-7.pdf, {len(stored.body)} bytes\n"


def check_invoice(stored: Asked) -> None:
    pdf = pypdf.PdfReader(BytesIO(stored.body))
    assert pdf.metadata
    assert pdf.metadata.title == "Invoice 2026-7"
    first, last = (page.extract_text() for page in pdf.pages)
    assert "Invoice 2026-7 for Ada Löwe" in first
    assert "Volume 30" in first
    assert "Volume 31" in last
    assert "Total: 367.50" in last


@invoice
async def test_an_invoice_that_cannot_be_stored_is_tried_again(
    http: httpx.AsyncClient, shop: Shop, path: str
) -> None:
    shop.down = True
    order = {"number": "2026-8", "customer": "Bob", "items": [{"title": "One", "cents": 100}]}
    accepted = await http.post(path, json=order)

    async def retrying() -> dict[str, Any] | None:
        status: dict[str, Any] = (await http.get(accepted.headers["location"])).json()
        return status if status["state"] == "retrying" else None

    status = await eventually(retrying, what="another attempt was planned")
    # Or its next attempt would be one of the requests that another test's shop is asked.
    assert (await http.delete(accepted.headers["location"])).status_code == 200
    (attempt,) = status["attempts"]
    assert attempt["error"]["message"] == "The storage answered 503"
