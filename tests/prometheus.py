"""A real Prometheus for tests: the configuration of deploy/, pointed at processes of this machine.

    async with Prometheus(tmp_path, gateways=["127.0.0.1:8888"]) as prometheus:
        await prometheus.query("up")

And what is asked of it: `complaints` says which queries of a dashboard, or of the rules, find nothing.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.nats_server import free_port
from tests.waiting import eventually

__all__ = ["Prometheus", "Query", "complaints", "page_queries", "panel_queries", "program", "rule_queries"]

DEPLOY = Path(__file__).parent.parent / "deploy"
GATEWAY = "gateway:8888"  # what deploy/ calls it
KEY_FILE = "/run/secrets/prometheus_key"  # and where it finds the API key for it
START_S = 60.0

# Metrics, each with the labels that are asked for; `$` is left to those who substitute.
SELECTOR = re.compile(r"\b(?:quarterhour_\w+|up)\b(?:\{[^}]*\})?")


def program(name: str) -> str:
    """Where the program is. Without it the test is skipped, or fails where nothing may be missing."""
    found = shutil.which(name)
    if found is None:
        message = f"There is no {name} on this machine: install Debian's package prometheus."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


class Prometheus:
    """One server with the configuration and the rules of deploy/: other addresses, and everything sooner."""

    def __init__(self, folder: Path, *, gateways: Sequence[str]) -> None:
        self._program = program("prometheus")
        self._folder = folder
        self._gateways = gateways
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=30)

    async def __aenter__(self) -> Self:
        self._start()
        try:
            await eventually(self._ready, deadline_s=START_S, what="Prometheus was ready")
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    def _start(self) -> None:
        self._configure()
        command = [
            self._program,
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    async def _end(self) -> None:
        await self._http.aclose()
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def _configure(self) -> None:
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        text = text.replace(json.dumps([GATEWAY]), json.dumps(list(self._gateways)))
        text = text.replace(f"http://{GATEWAY}/", f"http://{self._gateways[0]}/")
        assert GATEWAY not in text
        (self._folder / "key").write_text("qh_0")  # the gateways of tests need none
        text = text.replace(KEY_FILE, str(self._folder / "key"))
        (self._folder / "prometheus.yml").write_text(re.sub(r"(?<=: )\d+s\b", "1s", text))
        rules = (DEPLOY / "prometheus" / "alerts.yml").read_text()
        (self._folder / "alerts.yml").write_text(re.sub(r"(?<=for: )\d+m\b", "1s", rules))

    async def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            return (await self._http.get("/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def get(self, path: str, **parameters: Any) -> Any:
        """What its API answers. Raises `ValueError` with its words if the question is a bad one."""
        answer = (await self._http.get(f"/api/v1/{path}", params=parameters)).json()
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression is now: labels and value of each series."""
        data = await self.get("query", query=expression)
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    async def lately(self, expression: str, *, seconds: int = 300) -> list[float]:
        """All the numbers that an expression was lately, over all of its series; NaN is none."""
        now = time.time()
        data = await self.get("query_range", query=expression, start=now - seconds, end=now, step=1)
        numbers = (float(value) for one in data["result"] for _, value in one["values"])
        return [number for number in numbers if number == number]  # noqa: PLR0124 - NaN is not itself

    async def healthy_targets(self) -> dict[str, int]:
        """How many targets of each job it could scrape the last time."""
        count: dict[str, int] = {}
        for target in (await self.get("targets"))["activeTargets"]:
            if target["health"] == "up":
                count[target["labels"]["job"]] = count.get(target["labels"]["job"], 0) + 1
        return count

    async def firing(self) -> list[dict[str, Any]]:
        """The alerts that fire now."""
        return [alert for alert in (await self.get("alerts"))["alerts"] if alert["state"] == "firing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Something that is asked of Prometheus, and where it stands. `data` says whether it must find some."""

    place: str
    expression: str
    data: bool = True


def panel_queries(dashboard: Mapping[str, Any], **variables: str) -> Iterator[Query]:
    """Every query of a dashboard. Its own variables are what "All" means, others are given: __range="5m"."""
    values = {
        **variables,
        **{one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if "allValue" in one},
    }
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), str(target["expr"]))
            yield Query(place=f"panel {panel['title']!r}", expression=expression)


def page_queries(page: str) -> Iterator[Query]:
    """Every query in the PromQL blocks of a Markdown page; what is indented goes on with the one before."""
    for block in re.findall(r"^```promql\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for expression in re.split(r"\n(?! )", block.strip()):
            yield Query(place="the page", expression=expression)


async def rule_queries(prometheus: Prometheus) -> list[Query]:
    """Every expression of the rules that it has loaded. An alert that finds nothing is as it should be."""
    groups = (await prometheus.get("rules"))["groups"]
    return [
        Query(place=f"alert {rule['name']!r}", expression=rule["query"], data=False)
        for group in groups
        for rule in group["rules"]
    ]


async def complaints(prometheus: Prometheus, queries: Sequence[Query]) -> list[str]:
    """A sentence for each query that is wrong, finds no data, or names series that do not exist."""
    return [complaint for query in queries if (complaint := await _complaint(prometheus, query))]


async def _complaint(prometheus: Prometheus, query: Query) -> str | None:
    try:
        if query.data and not await prometheus.lately(query.expression):
            return f"{query.place} shows nothing: {query.expression}"
        for selector in SELECTOR.findall(query.expression):
            if not await prometheus.query(selector):
                return f"{query.place} asks for series that do not exist: {selector}"
    except ValueError as error:
        return f"{query.place} cannot be asked: {error}"
    return None
