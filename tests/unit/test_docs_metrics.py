"""docs/metrics.md has one row for each metric of both registries, and no other."""

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from gateway.metrics import Metrics as GatewayMetrics
from quarterhour.function import Manifest
from quarterhour.retry import RetryPolicy
from runner.metrics import Metrics as RunnerMetrics

PAGE = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>.*?) \| (?P<by>.*?) \|", re.MULTILINE)
FUNCTIONS = [
    Manifest(name=name, runtime="python", background=background, timeout_s=1.0, retry=RetryPolicy())
    for name, background in (("f", False), ("f-background", True))
]


class Metric(NamedTuple):
    name: str
    type: str
    labels: frozenset[str]
    by: frozenset[str]


def exported(registry: CollectorRegistry) -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by the name that Prometheus knows; one without a series has no labels to show."""
    found = {}
    for family in registry.collect():
        assert family.samples, f"{family.name} does not exist from the start"
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, frozenset(labels))
    return found


def registered() -> Collection[Metric]:
    gateway, runner = GatewayMetrics(), RunnerMetrics(slots=1)
    gateway.announced(FUNCTIONS)
    runner.start_at_zero(FUNCTIONS)
    by = {"gateway": exported(gateway.registry), "runner": exported(runner.registry)}
    names = sorted(by["gateway"].keys() | by["runner"].keys())
    metrics = []
    for name in names:
        shown_by = frozenset(process for process, found in by.items() if name in found)
        ((kind, labels),) = {by[process][name] for process in shown_by}
        metrics.append(Metric(name, kind, labels, shown_by))
    return metrics


def documented() -> Collection[Metric]:
    rows = [
        Metric(
            row["name"],
            row["type"],
            frozenset(re.findall(r"`(\w+)`", row["labels"])),
            frozenset(row["by"].split(", ")),
        )
        for row in ROW.finditer(PAGE)
    ]
    # What the process itself uses is shown on Linux alone.
    return [row for row in rows if sys.platform == "linux" or not row.name.startswith("process_")]


def test_each_metric_has_its_row() -> None:
    assert sorted(documented()) == sorted(registered())


def test_each_row_says_something() -> None:
    rows = [line for line in PAGE.splitlines() if ROW.match(line)]
    assert len(rows) > 15
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 6, row
        assert all(cells), row


def test_the_results_and_reasons_are_all_named() -> None:
    metrics = RunnerMetrics(slots=1)
    metrics.start_at_zero(FUNCTIONS)
    for metric, label in (("quarterhour_outcomes", "result"), ("quarterhour_dead_letters", "reason")):
        (family,) = (one for one in metrics.registry.collect() if one.name == metric)
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{metric}_total`"))
        values = {sample.labels[label] for sample in family.samples if label in sample.labels}
        assert len(values) >= 5
        assert [value for value in values if f"`{value}`" not in row] == []
