"""Logging: named facts, as readable lines on a terminal and as JSON otherwise, on standard error.

    log = structlog.get_logger()
    log.info("attempt_finished", function="hello", invocation=id, duration_s=0.2)

What libraries log through the standard library comes out the same way, from warnings up. It never
writes to standard output, which belongs to what a command prints.
"""

import logging
import os
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from quarterhour.settings import LogFormat

__all__ = ["configure_logging"]


def configure_logging(log_format: LogFormat, *, stream: TextIO | None = None, **facts: Any) -> None:
    """Set up logging for this process. `facts` (`process="runner"`) are put into every line."""
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    readable = log_format == "console" or (log_format == "auto" and terminal)
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if readable else "iso", utc=not readable),
        _add(facts),
        structlog.processors.StackInfoRenderer(),
    ]
    last = _console(colors=terminal and "NO_COLOR" not in os.environ) if readable else _json()
    structlog.configure(
        processors=[*before, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(stream, before, last)


def _route_standard_logging(stream: TextIO, before: list[Processor], last: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _add(facts: dict[str, Any]) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**facts, **event}

    return add


def _console(*, colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, sort_keys=False, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
    )
    return [renderer]


def _json() -> list[Processor]:
    # Without local variables: a password may be among them.
    traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(traces),
        structlog.processors.JSONRenderer(serializer=_dumps),
    ]


def _dumps(event: EventDict, **_: Any) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return orjson.dumps({**head, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
