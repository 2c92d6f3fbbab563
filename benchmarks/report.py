"""What was measured, as a table for people and as JSON for later comparison."""

import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks import load

__all__ = ["Measure", "Report", "progress"]

FSYNCS = 200


@dataclass(slots=True, kw_only=True)
class Measure:
    """One figure, measured several times; the median counts. `kind` says what `target` is."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    target: float | None = None
    kind: Literal["at least", "at most"] = "at least"

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.kind == "at least" else self.median <= self.target


class Report:
    """All figures of a run, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self.measures: dict[str, Measure] = {}
        self._began_at = datetime.now(UTC)
        self.others_cores: list[float] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Note one value of a figure."""
        measure = self.measures.get(name)
        if measure is None:
            target, kind = (at_least, "at least") if at_most is None else (at_most, "at most")
            measure = Measure(
                name=name, unit=unit, target=target, kind="at most" if kind == "at most" else "at least"
            )
            self.measures[name] = measure
        measure.values.append(value)

    def table(self) -> str:
        """The figures as lines of text."""
        rows: list[tuple[str, ...]] = [("", "median", "min - max", "unit", "target", "")]
        rows += [_row(measure) for measure in self.measures.values()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(_line(row, widths) for row in rows)

    def write(self, folder: Path) -> Path:
        """Write everything as JSON; the file's path."""
        path = folder / f"{self._began_at:%Y-%m-%dT%H%M%SZ}.json"
        measures = [
            {
                "name": one.name,
                "unit": one.unit,
                "values": one.values,
                "median": one.median,
                "target": one.target,
                "target_kind": one.kind if one.target is not None else None,
                "met": one.met,
            }
            for one in self.measures.values()
        ]
        content = {
            "began_at": self._began_at.isoformat(),
            "machine": self.machine(folder),
            "measures": measures,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path

    def notes(self) -> str:
        """What one has to know to read the table, as one line."""
        others = f"{statistics.median(self.others_cores):.2f}" if self.others_cores else "unknown"
        return f"{os.cpu_count()} processors, of which others used {others}; load by {load.generator()}"

    def machine(self, folder: Path) -> dict[str, Any]:
        """What one has to know to compare figures."""
        return {
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "load_generator": load.generator(),
            "fsync_p50_ms": fsync_ms(folder),
            "cores_used_by_others": statistics.median(self.others_cores) if self.others_cores else None,
        }


def fsync_ms(folder: Path) -> float:
    """Milliseconds that writing 1 KiB to the disk takes here, the median of some."""
    took_ms = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(b"x" * 1024)
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took_ms), 3)


def progress(text: str) -> None:
    """Say what is going on."""
    print(f"· {text}", flush=True)


def _row(measure: Measure) -> tuple[str, ...]:
    target = (
        "" if measure.target is None else f"{'≥' if measure.kind == 'at least' else '≤'} {measure.target:g}"
    )
    verdict = {None: "", True: "met", False: "MISSED"}[measure.met]
    spread = (
        "" if len(measure.values) == 1 else f"{_show(min(measure.values))} - {_show(max(measure.values))}"
    )
    return (measure.name, _show(measure.median), spread, measure.unit, target, verdict)


def _show(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, median, spread, unit, target, verdict = (
        cell.rjust(width) if column in {1, 2, 4} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"{name}  {median}  {spread}  {unit}  {target}  {verdict}".rstrip()
