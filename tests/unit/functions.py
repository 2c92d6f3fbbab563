"""Loads and calls the example functions as a worker does: by path, with their folder first on sys.path."""

import base64
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["FOLDER", "INVOCATION", "call", "load", "load_module"]

FOLDER = Path(__file__).parents[2] / "functions"
INVOCATION = "01930000-0000-7000-8000-000000000001"

Handler = Callable[[dict[str, Any], Any], Any]


def load(name: str) -> Handler:
    handler: Handler = load_module(name).handler
    return handler


def load_module(name: str) -> Any:
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"function under test: {name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(handler: Handler, body: str | bytes | None = None, **event: Any) -> Any:
    if isinstance(body, bytes):
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    else:
        event |= {"body": body, "isBase64Encoded": False}
    context = SimpleNamespace(
        aws_request_id=INVOCATION, attempt=1, get_remaining_time_in_millis=lambda: 59_000
    )
    return handler({"queryStringParameters": {}, "headers": {}, "httpMethod": "POST", **event}, context)
