import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from quarterhour.logs import configure_logging
from quarterhour.settings import LogFormat


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_facts_become_json_with_the_event_first() -> None:
    stream = io.StringIO()
    configure_logging("auto", stream=stream, process="runner")
    structlog.get_logger().info("attempt_finished", function="hello", duration_s=0.2, path={1: object()})
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "event", "process"]
    assert (line["event"], line["function"], line["duration_s"]) == ("attempt_finished", "hello", 0.2)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("log_format", "stream", "readable"),
    [
        ("auto", io.StringIO, False),
        ("auto", Terminal, True),
        ("json", Terminal, False),
        ("console", io.StringIO, True),
    ],
)
def test_auto_is_readable_on_a_terminal(
    log_format: LogFormat, stream: type[io.StringIO], readable: bool
) -> None:
    written = stream()
    configure_logging(log_format, stream=written)
    structlog.get_logger().info("runner_started", slots=16)
    assert written.getvalue().startswith("{") is not readable


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, no_color, coloured in (
        (Terminal(), "", True),
        (Terminal(), "1", False),
        (io.StringIO(), "", False),
    ):
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        configure_logging("console", stream=stream)
        structlog.get_logger().info("runner_started")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_libraries_are_heard_from_warnings_up() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream, process="gateway")
    logging.getLogger("nats").info("chatter")
    logging.getLogger("nats").warning("lost %s", "it")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    heard, warned = lines(stream)
    assert (heard["event"], heard["level"], heard["logger"]) == ("lost it", "warning", "nats")
    assert heard["process"] == "gateway"
    assert "UserWarning: old" in warned["event"]


def test_a_traceback_shows_no_values() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    password = "hunter2"
    try:
        _fail(password)
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(stream)
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["frames"][-1]["name"] == "_fail"
    assert password not in stream.getvalue()


def _fail(password: str) -> None:
    raise ValueError(len(password))
