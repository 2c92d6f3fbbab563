"""docs/functions.md: every example in JavaScript and TypeScript runs, in a real worker."""

import json
import re
from pathlib import Path
from typing import Any

from runner.sandbox.node.runtime import RUNTIME
from tests.node import Answer, NodeWorker

PAGE = (Path(__file__).parents[2] / "docs" / "functions.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```[jt]s\n// functions/([\w.-]+)\n(.*?)```", re.DOTALL)
EXAMPLES: dict[str, str] = dict(BLOCK.findall(PAGE))
JSON = [["content-type", "application/json"], ["host", "localhost"]]


def run(folder: Path, name: str, body: bytes | None = None, **more: Any) -> Answer:
    with NodeWorker(folder, EXAMPLES[name], name=name) as worker:
        return worker.call(body, headers=JSON, **more)


def test_every_block_is_an_example() -> None:
    assert len(EXAMPLES) == len(re.findall("```[jt]s\n", PAGE))
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f'"{name}"' not in tests] == []


def test_greet(tmp_path: Path) -> None:
    assert re.fullmatch(r"Hello, Ada, \d+ ms left", run(tmp_path, "greet.js", query="name=Ada").text)


def test_orders(tmp_path: Path) -> None:
    answer = run(tmp_path, "orders.ts", b'{"tea": 2}')
    assert answer.header["statusCode"] == 201
    assert answer.header["multiValueHeaders"] == {"set-cookie": ["ordered=yes; HttpOnly"]}
    assert answer.value == {"ordered": {"tea": 2}, "by": "127.0.0.1"}
    assert RUNTIME.read_config(EXAMPLES["orders.ts"].encode()) == {"method": ["POST", "GET"]}


def test_import_orders(tmp_path: Path) -> None:
    name = "import-orders-background.mjs"
    assert RUNTIME.read_config(EXAMPLES[name].encode()) == {"retries": 5, "retry_delay": [10, 60, 600]}
    for source, attempt, expected in (
        ("nowhere", 1, "DoNotRetry"),
        ("busy", 1, "RetryAfter"),
        ("busy", 2, None),
    ):
        body = json.dumps({"source": source}).encode()
        answer = run(tmp_path, name, body, mode="background", attempt=attempt)
        if expected:
            assert answer.error["type"] == expected
        else:
            assert answer.value == {"importedFrom": source}
