# ruff: noqa: E501
"""Python's and Node's events of the same requests, made up by chance, are the same."""

import base64
import json
import random
import subprocess
from pathlib import Path
from typing import Any

from runner.sandbox.python.event import make_event
from tests.fuzzing import LONG, SEED
from tests.node import node
from tests.unit.test_node_event import PROGRAM, ROOT

CASES_MAX = 50_000 if LONG else 500

QUERY = ["a", "b", "=", "&", "+", "%", "%2", "%20", "%c3%a9", "%C3", "%zz", "%00", "\xe9", "\xc3\xa9", ";", "__proto__",
         "constructor", "1", "0", "%26", "%3d", "?", "/", " ", "\x7f", "\x80", "%ef%bb%bf", "%ed%a0%80"]  # fmt: skip
NAMES = [
    "host",
    "cookie",
    "x-a",
    "accept",
    "content-type",
    "__proto__",
    "constructor",
    "1",
    "0",
    "tostring",
    "x_y",
]
VALUES = [
    "",
    "a",
    "a, b",
    "a; b",
    "\xe9",
    " ",
    "\xff\x80",
    "x.example:80",
    "text/plain",
    "application/json; charset=utf-8",
]
TYPES = ["text/plain", "Text/HTML ; Charset=UTF-8", "application/json", "image/png", "a/b+json", "text/plain; charset=latin-1",
         'text/plain; charset="utf-8"', "text/plain;charset=us-ascii", "text/x; charset=nonsense", ";", "text/", "",
         "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; charset", "text/plain; charset="]  # fmt: skip
BODIES = [
    None,
    b"",
    b"a",
    b"{}",
    b"\xc3\xa9",
    b"\xe9",
    b"\xff\xfe",
    b"\xef\xbb\xbfa",
    b"\0",
    b"\xed\xa0\x80",
    b"a" * 100,
    b"\xf0\x9f\x98\x80",
]


def made_up(chance: random.Random) -> dict[str, Any]:
    def text(pieces: list[str], most: int) -> str:
        return "".join(chance.choice(pieces) for _ in range(chance.randint(0, most)))

    headers = [[chance.choice(NAMES), chance.choice(VALUES)] for _ in range(chance.randint(0, 5))]
    if chance.random() < 0.7:
        headers.append(["content-type", chance.choice(TYPES)])
    body = chance.choice(BODIES)
    request = {
        "method": chance.choice(["GET", "POST", "\xe9"]),
        "path": "/" + text([*QUERY, "..", "//"], 5),
        "query": text(QUERY, 12),
        "headers": headers,
        "scheme": chance.choice(["http", "https"]),
    }
    return {"request": request} | ({} if body is None else {"body_base64": base64.b64encode(body).decode()})


def test_both_runtimes_make_the_same_of_a_request(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    cases = [made_up(chance) for _ in range(CASES_MAX)]
    vectors = tmp_path / "cases.json"
    vectors.write_text(json.dumps({"cases": cases}))
    module = ROOT / "runner" / "sandbox" / "node" / "event.mjs"
    command = [str(node()), "--input-type=module", "--eval", PROGRAM, str(module), str(vectors)]
    of_node = json.loads(subprocess.check_output(command, timeout=60))
    for case, event in zip(cases, of_node, strict=True):
        body = case.get("body_base64")
        mine = make_event(case["request"], None if body is None else base64.b64decode(body))
        assert mine == event, f"seed {SEED}: {case}"
