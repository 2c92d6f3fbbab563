"""The `quarterhour up` of each language, and how tests speak to it."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.netlify import layouts
from tests.e2e.netlify.rows import JAVASCRIPT, LANGUAGES
from tests.e2e.wire import PREFIX, Answer, exchange, request
from tests.node import node
from tests.up import Up
from tests.waiting import eventually

__all__ = ["JSON", "TEXT", "Site", "Sites"]

HERE = Path(__file__).parent
FINAL = frozenset({"succeeded", "dead", "cancelled"})
END_S = 30.0
OF_BOTH = frozenset({"echo", "fails", "nightly", "nightly-background", "waits"})
CACHES = shutil.ignore_patterns("__pycache__")

JSON = "Content-Type: application/json\r\n"
TEXT = "Content-Type: text/plain\r\n"


@dataclass(frozen=True)
class Site:
    """A gateway with functions of one language. `prefix`: what their names begin with there."""

    language: str
    up: Up
    url: str
    prefix: str = ""

    @cached_property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0

    def path(self, name: str) -> str:
        """The default address of a function."""
        return f"{PREFIX}/{self.prefix}{name}"

    async def send(self, data: bytes) -> Answer:
        """The answer to a request, byte by byte."""
        return await exchange(self.port, data)

    async def get(self, path: str) -> Answer:
        """The answer to a GET of any address."""
        return await self.send(request(path))

    async def call(
        self, name: str, rest: str = "", *, method: str = "GET", headers: str = "", body: bytes | None = None
    ) -> Answer:
        """The answer of a function. `rest`: what follows its address; `headers`: whole lines."""
        return await self.send(request(f"{self.path(name)}{rest}", method, headers, body))

    async def post(self, name: str, value: Any) -> Answer:
        """The answer of a function to `value` as JSON."""
        return await self.call(name, method="POST", headers=JSON, body=json.dumps(value).encode())

    async def seen(self, name: str, rest: str = "", **more: Any) -> dict[str, Any]:
        """What `echo` and its kind have seen: `event` and `context`."""
        answer = await self.call(name, rest, **more)
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.json
        return shown

    async def enqueue(self, name: str, rest: str = "", **more: Any) -> str:
        """The id of an accepted invocation."""
        answer = await self.call(name, rest, **more)
        assert answer.status == 202, answer
        (identity,) = answer.values("x-nf-request-id")
        return identity

    async def status(self, identity: str, *, wait_s: int = 0) -> dict[str, Any]:
        """What is known of a background invocation."""
        answer = await self.get(f"/v1/invocations/{identity}?wait={wait_s}")
        assert answer.status == 200, answer
        known: dict[str, Any] = answer.json
        return known

    async def end(self, identity: str) -> dict[str, Any]:
        """What is known of it once it has ended."""

        async def ended() -> dict[str, Any] | None:
            known = await self.status(identity, wait_s=1)
            return known if known["state"] in FINAL else None

        known: dict[str, Any] | None = await eventually(ended, deadline_s=END_S, what=f"{identity} has ended")
        assert known is not None
        return known

    async def functions(self) -> Mapping[str, dict[str, Any]]:
        """What is listed, by name."""
        return {one["name"]: one for one in (await self.get("/v1/functions")).json["functions"]}

    def noted(self, note: str) -> list[Any]:
        """What functions have written down under this name, one line of JSON each."""
        file = self.up.folder / "notes" / note
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def open_gate(self, gate: str) -> None:
        """Let a function go on that waits for this gate."""
        (self.up.folder / "gates" / gate).touch()


class Sites:
    """All that the tests speak to; each `up` is started when it is first asked for, and kept."""

    def __init__(self, folder: Path, started: list[Up]) -> None:
        self._folder = folder
        self._started = started
        self._ups: dict[str, Up] = {}

    def one(self, language: str) -> Site:
        """Functions of one language, as `up` serves them if nothing else is said."""
        if language == JAVASCRIPT:
            node()  # or skip
        # Whoever asks for one will ask for the other: so they start at the same time.
        ups = {each: self._up(each, partial(_one, language=each)) for each in LANGUAGES}
        return Site(language, ups[language], ups[language].ready())

    def settings(self, language: str) -> Site:
        """A few functions of each language under other settings, which are not those that the file says.

        Their time limit is one that the start of a worker on a busy machine does not reach.
        """
        if language == JAVASCRIPT:
            node()
        up = self._up(
            "settings",
            _some_of_both,
            *("--functions", "lambdas", "--no-expose-errors", "--no-call-scheduled"),
            *("--trusted-proxies", "127.0.0.1", "--allow-anonymous", "--synchronous-limit", "4"),
        )
        return Site(language, up, up.ready(), prefix=f"{language}-")

    def _up(self, name: str, write: Callable[[Path], None], *flags: str) -> Up:
        if name not in self._ups:
            folder = self._folder / name
            write(folder)
            for place in ("notes", "gates"):
                (folder / place).mkdir()
            self._ups[name] = Up(folder, "--port", "0", "--runners", "1", *flags)
            self._started.append(self._ups[name])
        return self._ups[name]


def _one(folder: Path, language: str) -> None:
    shutil.copytree(HERE / language, folder, ignore=CACHES)
    layouts.write(folder / "lambdas", language)


def _some_of_both(folder: Path) -> None:
    """Functions of both languages in one folder, each with its language before its name."""
    for language in LANGUAGES:
        source = HERE / language / "lambdas"
        shutil.copytree(source / "shared", folder / "lambdas" / "shared", dirs_exist_ok=True, ignore=CACHES)
        for file in source.iterdir():
            if file.stem in OF_BOTH:
                shutil.copy(file, folder / "lambdas" / f"{language}-{file.name}")
    (folder / "quarterhour.toml").write_text('[build]\nfunctions = "nowhere"\n')
