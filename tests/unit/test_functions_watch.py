"""The example function `watch-sites`: what it finds, what it says, and what it remembers."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.nats_server import free_port
from tests.unit.functions import call, load_module
from tests.web_server import Page, WebServer

UP = Page(body="here")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which it keeps what it found, in a working directory of its own."""
    for name in ("SITES", "WATCH_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".quarterhour" / "watch" / "sites.json"


def look(monkeypatch: pytest.MonkeyPatch, sites: str, **settings: Any) -> dict[str, Any]:
    monkeypatch.setenv("SITES", sites)
    module = load_module("watch-sites")
    for name, value in settings.items():
        monkeypatch.setattr(module, name, value)
    answer = asyncio.run(call(module.handler, '{"next_run": "2026-01-01T00:00:00Z"}'))
    assert answer["statusCode"] == 200
    found: dict[str, Any] = json.loads(answer["body"])
    return found


def test_it_is_scheduled() -> None:
    assert load_module("watch-sites").config == {"schedule": "*/15 * * * *"}


@pytest.mark.parametrize("sites", ["", " , ,"])
def test_without_sites_it_says_what_to_set(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sites: str
) -> None:
    message = look(monkeypatch, sites)["message"]
    assert message.startswith("There is nothing to watch: set SITES to addresses, such as ")
    assert capsys.readouterr().out == f"{message}\n"
    assert not state.exists()


def test_sites_that_are_up(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Page(status=301, headers={"location": "/b"})
    with WebServer({"/a": UP, "/b": UP, "/moved": moved}) as web:
        sites = [f"{web.url}{path}" for path in ("/a", "/b", "/moved")]
        answer = look(monkeypatch, f"{sites[0]}, {sites[1]}\n{sites[2]} {sites[0]}")
    assert answer == {"up": 3, "changes": []}
    kept = json.loads(state.read_text())
    assert list(kept) == sites
    since = kept[sites[0]]["since"]
    assert capsys.readouterr().out.splitlines() == [f"{site}: up, since {since}" for site in sites]


def test_what_has_changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    down = Page(status=503)
    with WebServer({"/": [UP, down, Page(status=500), UP, UP], "/other": UP}) as web:
        site, other = f"{web.url}/", f"{web.url}/other"

        def changes() -> list[str]:
            lines = capsys.readouterr().out.splitlines()
            return [line for line in lines if line.startswith("CHANGED")]

        look(monkeypatch, f"{site} {other}")
        assert changes() == []
        with pytest.raises(Exception, match=r"1 of 2 down: .* \(answered 503 Service Unavailable") as raised:
            look(monkeypatch, f"{site} {other}")
        assert type(raised.value).__name__ == "SitesDown"
        assert changes() == [f"CHANGED {site} is down: answered 503 Service Unavailable"]
        with pytest.raises(Exception, match="answered 500"):
            look(monkeypatch, f"{site} {other}")
        assert changes() == []
        (change,) = look(monkeypatch, f"{site} {other}")["changes"]
        assert change.startswith(f"{site} is up again; it was down since 20")
        assert changes() == [f"CHANGED {change}"]
        assert look(monkeypatch, f"{site} {other}")["changes"] == []


def test_since_when_it_is_so_stays(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WebServer({"/": UP}) as web:
        site = f"{web.url}/"
        look(monkeypatch, site)
        kept = json.loads(state.read_text())
        kept[site]["since"] = "2020-01-01T00:00:00+00:00"
        kept["http://forgotten.invalid/"] = kept[site]
        state.write_text(json.dumps(kept))
        look(monkeypatch, site)
    assert json.loads(state.read_text()) == {site: {"problem": None, "since": "2020-01-01T00:00:00+00:00"}}


def test_a_site_that_cannot_be_reached_and_a_password(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with pytest.raises(Exception, match="cannot be reached") as raised:
        look(monkeypatch, f"http://user:secret@127.0.0.1:{port}/")
    assert f"http://127.0.0.1:{port}/" in str(raised.value)
    assert "secret" not in str(raised.value) + capsys.readouterr().out + state.read_text()


def test_a_site_that_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    with WebServer({"/": Page(together=together), "/fast": UP}) as web:
        with pytest.raises(Exception, match=r"1 of 2 down: http://[\d.:]+/ \(no answer in 4 s\)$"):
            look(monkeypatch, f"{web.url}/ {web.url}/fast", TIMEOUT_S=4)  # which is for the fast one too
        together.abort()


def test_sites_are_looked_at_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(10)
    with WebServer({f"/{number}": Page(together=together) for number in range(10)}) as web:
        sites = " ".join(f"{web.url}/{number}" for number in range(10))
        assert look(monkeypatch, sites)["up"] == 10


@pytest.mark.parametrize("sites", ["example.org", "https://example.org ftp://x", "https://x:99999/"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, sites: str) -> None:
    with pytest.raises(ValueError, match=r"SITES: .* is no address such as"):
        look(monkeypatch, sites)


def test_too_many_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="SITES has 101 addresses; at most 100"):
        look(monkeypatch, " ".join(f"http://127.0.0.1/{number}" for number in range(101)))
