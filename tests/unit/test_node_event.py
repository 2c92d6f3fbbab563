"""The event of JavaScript functions: the vectors that every runtime shares, all in one Node process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.node import node

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "events.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
PROGRAM = """
import { readFileSync } from 'node:fs';
const [, modulePath, vectorsPath] = process.argv;
const { makeEvent } = await import(modulePath);
const bodyOf = ({ body, body_base64 }) => {
  if (body_base64 !== undefined) return Buffer.from(body_base64, 'base64');
  return body === undefined ? null : Buffer.from(body);
};
const { cases } = JSON.parse(readFileSync(vectorsPath, 'utf8'));
console.log(JSON.stringify(cases.map((one) => makeEvent(one.request, bodyOf(one)))));
"""


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    module = ROOT / "runner" / "sandbox" / "node" / "event.mjs"
    command = [str(node()), "--input-type=module", "--eval", PROGRAM, str(module), str(VECTORS)]
    made: list[dict[str, Any]] = json.loads(subprocess.check_output(command, timeout=20))
    return made


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["name"] for case in CASES])
def test_vectors(number: int, events: list[dict[str, Any]]) -> None:
    expected = CASES[number]["event"]
    assert {key: events[number][key] for key in expected} == expected


def test_an_event_has_netlifys_keys_and_no_others(events: list[dict[str, Any]]) -> None:
    assert set(events[0]) == set(CASES[0]["event"])
