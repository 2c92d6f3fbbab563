"""What the API shows of functions, runners and invocations, as plain JSON values. Pure."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from quarterhour.broker.port import Beat, Status
from quarterhour.function import Manifest
from quarterhour.lifecycle import FINAL, State
from quarterhour.record import Attempt
from quarterhour.schedule import next_run

__all__ = ["function_shape", "invocation_shape", "iso_time", "result_shape", "target_shapes"]

RESULT_SHOWN_BYTES_MAX = 64 * 1024


def iso_time(moment: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, with milliseconds and `Z`."""
    if moment is None:
        return None
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def function_shape(manifest: Manifest, *, runners: int, now: float) -> dict[str, Any]:
    """A function; `runners` counts the live ones that serve it, `now` is in Unix seconds."""
    schedule = manifest.schedule
    return {
        "name": manifest.name,
        "mode": manifest.mode,
        "runtime": manifest.runtime,
        "url": manifest.paths[0],
        "schedule": schedule,
        "next_run": iso_time(next_run(schedule, now)) if schedule is not None else None,
        "error": manifest.error,
        "paths": manifest.paths,
        "excluded_paths": manifest.excluded_path,
        "methods": manifest.method,
        "timeout_s": manifest.timeout_s,
        "retries": manifest.retry.retries,
        "retry_delays_s": manifest.retry.delays_s,
        "concurrency": manifest.concurrency,
        "memory_mib": manifest.memory_mib,
        "runners": runners,
    }


def target_shapes(beats: Collection[Beat]) -> list[dict[str, Any]]:
    """Where runners show their metrics, as Prometheus's HTTP service discovery reads it."""
    found = sorted((beat.metrics, beat.runner) for beat in beats if beat.metrics is not None)
    return [{"targets": [address], "labels": {"runner": runner}} for address, runner in found]


def invocation_shape(status: Status) -> dict[str, Any]:
    """Everything that is known of a background invocation."""
    record, run = status.record, status.run
    shape: dict[str, Any] = {
        "id": record.id,
        "function": record.function,
        "mode": record.mode,
        "state": record.state,
        "attempt": record.attempt,
        "accepted_at": iso_time(record.accepted_at),
        "due_at": iso_time(record.due_at),
        "started_at": iso_time(record.started_at),
        "finished_at": iso_time(record.finished_at),
        "next_attempt_at": iso_time(record.next_attempt_at),
        "reason": record.reason,
        **_last(record.attempts),
        **result_shape(record.result),
        "runner": None,
        "attempts": [_attempt_shape(attempt) for attempt in record.attempts],
    }
    if run is not None and run.started_at is not None and record.state not in FINAL:
        shape |= {
            "state": State.RUNNING,
            "attempt": run.attempt,
            "started_at": iso_time(run.started_at),
            "next_attempt_at": None,
            "runner": run.runner,
        }
    return shape


def result_shape(result: bytes | None) -> Mapping[str, Any]:
    """What a function returned: its value, or the beginning of its text if it is larger than what is kept.

    A value that is nested too deeply to be written again is its own text.
    """
    if result is None:
        return {"result": None}
    if len(result) <= RESULT_SHOWN_BYTES_MAX:
        try:
            value = orjson.loads(result)
            orjson.dumps([value])
            return {"result": value}
        except orjson.JSONDecodeError:  # it was cut before it was stored
            pass
        except TypeError:  # half as deep as orjson reads is as deep as it writes
            return {"result": result.decode(errors="replace")}
    return {"result": result[:RESULT_SHOWN_BYTES_MAX].decode(errors="ignore"), "result_truncated": True}


def _last(attempts: tuple[Attempt, ...]) -> dict[str, Any]:
    if not attempts:
        return {"outcome": None, "error": None}
    last = attempts[-1]
    return {"outcome": last.outcome, "error": last.error.to_json() if last.error else None}


def _attempt_shape(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "started_at": iso_time(attempt.started_at),
        "finished_at": iso_time(attempt.finished_at),
        "outcome": attempt.outcome,
        "error": attempt.error.to_json() if attempt.error else None,
        "logs": attempt.logs,
        "runner": attempt.runner,
    }
