"""The Grafana dashboard of background success and failure, as code: it prints the dashboard's JSON.

    python deploy/grafana/dashboard.py > deploy/grafana/dashboards/quarterhour.json

Counters are summed over the processes that count. The queue gauges are not: every gateway shows the
same queues, so the largest is taken. It knows no address: Grafana's variable says which Prometheus.
"""

import itertools
import string
import sys
from collections.abc import Callable, Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
WIDTH = 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8

PICKED = 'function=~"$function"'
BACKGROUND = f'{PICKED},mode!="synchronous"'
SYNCHRONOUS = f'{PICKED},mode="synchronous"'
GOOD = 'result="succeeded"'
BAD = 'result=~"failed|timed_out|crashed"'
ENDED = 'result!="cancelled"'

# A colour each, the same in every panel that shows results.
RESULT_COLOURS = {"failed": RED, "timed_out": "orange", "crashed": "purple"}


def query(expression: str, legend: str = "", *, instant: bool = False) -> Dataquery:
    """One PromQL query. `legend` may name labels: {{function}}."""
    built = Dataquery().expr(expression).legend_format(legend)
    return built.instant() if instant else built.range()


def steps(*bounds: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Colours from a value on; the first bound is None."""
    return (
        build.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in bounds])
    )


def figure(
    title: str, expression: str, text: str, unit: str, thresholds: build.ThresholdsConfig
) -> stat.Panel:
    """One number. `text` says what it counts."""
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .with_target(query(expression, instant=True).ref_id("A"))
        .height(STAT_HEIGHT)
        .span(WIDTH // 8)
        .unit(unit)
        .thresholds(thresholds)
        .decimals(1 if unit == units.PercentUnit else 0)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
    )


def graph(title: str, text: str, unit: str, *queries: Dataquery, span: int = WIDTH // 3) -> timeseries.Panel:
    """Lines over time, with the latest and the largest value in the legend."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .height(GRAPH_HEIGHT)
        .span(span)
        .unit(unit)
        .color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    )
    for letter, one in zip(string.ascii_uppercase, queries, strict=False):
        panel = panel.with_target(one.ref_id(letter))
    return panel


def bars(
    title: str, text: str, *queries: Dataquery, colours: dict[str, str] | None = None
) -> timeseries.Panel:
    """How many there were, stacked: what is rare is easily missed as a rate.

    `colours`: those of the series whose legends end in these words.
    """
    panel = (
        graph(title, f"{text} Each shows for a few scrapes.", units.Short, *queries)
        .draw_style(common.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    )
    for ending, colour in (colours or {}).items():
        panel = panel.override_by_regexp(rf"/ {ending}$/", [fixed(colour)])
    return panel


def fixed(colour: str) -> DynamicConfigValue:
    """The override that gives a series its colour."""
    return DynamicConfigValue(
        id_val="color", value={"mode": FieldColorModeId.FIXED.value, "fixedColor": colour}
    )


def attempts(which: str) -> str:
    """The counters of background attempts that came to something."""
    return f"quarterhour_outcomes_total{{{BACKGROUND},{which}}}"


def in_the_chosen_time(counters: str) -> str:
    """How many there were of all functions that are picked."""
    return f"sum(increase({counters}[$__range]))"


def per_second(counters: str) -> str:
    """How many there are a second, for each function."""
    return f"sum by (function) (rate({counters}[$__rate_interval]))"


def quantile(q: float, metric: str, labels: str, by: str = "function") -> str:
    """A quantile of a histogram, in seconds."""
    rate = f"rate({metric}_bucket{{{labels}}}[$__rate_interval])"
    return f"histogram_quantile({q:g}, sum by ({by}, le) ({rate}))"


def glance() -> list[stat.Panel]:
    """The first row: what came of the background work of the chosen time, and how things stand."""
    return [*what_came_of_it(), *how_things_stand()]


def what_came_of_it() -> list[stat.Panel]:
    """Counts over the chosen time."""
    bad, ended = in_the_chosen_time(attempts(BAD)), in_the_chosen_time(attempts(ENDED))
    return [
        figure(
            "Accepted",
            in_the_chosen_time(f"quarterhour_accepted_total{{{PICKED}}}"),
            "Background invocations that were answered 202 in the chosen time.",
            units.Short,
            steps((None, BLUE)),
        ),
        figure(
            "Succeeded",
            in_the_chosen_time(attempts(GOOD)),
            "Background invocations that came to a good end in the chosen time.",
            units.Short,
            steps((None, GREEN)),
        ),
        figure(
            "Failed attempts",
            bad,
            "Background attempts that failed, timed out or crashed; most are tried again.",
            units.Short,
            steps((None, GREEN), (0.5, YELLOW)),
        ),
        figure(
            "Dead letters",
            in_the_chosen_time(f"quarterhour_dead_letters_total{{{PICKED}}}"),
            "Invocations that were given up in the chosen time.",
            units.Short,
            steps((None, GREEN), (0.5, RED)),
        ),
        figure(
            "Success share",
            f"1 - {bad} / ({ended} > 0)",
            "Of the background attempts that ended in the chosen time, how many succeeded.",
            units.PercentUnit,
            steps((None, RED), (0.8, YELLOW), (0.95, GREEN)),
        ).no_value("no attempt"),
    ]


def how_things_stand() -> list[stat.Panel]:
    """What is the case now, whatever time is chosen."""
    return [
        figure(
            "Waiting",
            f"sum(max by (function) (quarterhour_waiting{{{PICKED}}}))",
            "Background invocations that wait for a runner now.",
            units.Short,
            steps((None, GREEN), (100, YELLOW), (10_000, RED)),
        ),
        figure(
            "Oldest waiting",
            f"max(quarterhour_oldest_waiting_seconds{{{PICKED}}})",
            "How long the oldest of them has been due.",
            units.Seconds,
            steps((None, GREEN), (60, YELLOW), (900, RED)),
        ),
        figure(
            "Runners up",
            'sum(up{job="quarterhour-runner"}) or vector(0)',  # none listed is none up
            "Runners that Prometheus can reach.",
            units.Short,
            steps((None, RED), (1, GREEN)),
        ),
    ]


def outcomes() -> list[timeseries.Panel]:
    """Success and failure of each background function."""
    bad, ended = per_second(attempts(BAD)), per_second(attempts(ENDED))
    return [
        graph(
            "Accepted per second",
            "Background invocations that were answered 202.",
            units.OpsPerSecond,
            query(per_second(f"quarterhour_accepted_total{{{PICKED}}}"), "{{function}}"),
        ),
        graph(
            "Succeeded per second",
            "Background attempts that succeeded. Below what is accepted for long, the queue grows.",
            units.OpsPerSecond,
            query(per_second(attempts(GOOD)), "{{function}}"),
        ),
        bars(
            "Failed, timed out, crashed",
            "Background attempts that did not succeed, by what happened.",
            query(
                f"sum by (function, result) (increase({attempts(BAD)}[$__rate_interval]))",
                "{{function}} {{result}}",
            ),
            colours=RESULT_COLOURS,
        ),
        graph(
            "Success share per function",
            "Of the background attempts that ended, how many succeeded. A gap: none ended.",
            units.PercentUnit,
            query(f"1 - {bad} / ({ended} > 0)", "{{function}}"),
        ).max(1),
        bars(
            "Retries",
            "Background attempts that will be repeated.",
            query(
                f"sum by (function) (increase(quarterhour_retries_total{{{PICKED}}}[$__rate_interval]))",
                "{{function}}",
            ),
        ),
        bars(
            "Dead letters by reason",
            "Invocations that were given up, by reason. Runners count them, and gateways those that expired.",
            query(
                "sum by (function, reason) "
                f"(increase(quarterhour_dead_letters_total{{{PICKED}}}[$__rate_interval]))",
                "{{function}} {{reason}}",
            ),
            colours=RESULT_COLOURS,
        ),
    ]


def queues() -> list[timeseries.Panel]:
    """What waits, for how long, and how much room there is."""
    return [
        graph(
            "Waiting per function",
            "Background invocations that wait for a runner.",
            units.Short,
            query(f"max by (function) (quarterhour_waiting{{{PICKED}}})", "{{function}}"),
        ),
        graph(
            "Oldest waiting per function",
            "How long the oldest waiting invocation has been due. The alert comes at a quarter of an hour.",
            units.Seconds,
            query(f"max by (function) (quarterhour_oldest_waiting_seconds{{{PICKED}}})", "{{function}}"),
        ),
        graph(
            "Time in the queue, p95",
            "From when an invocation was due to the start of its attempt. A gap: none started.",
            units.Seconds,
            query(quantile(0.95, "quarterhour_queue_duration_seconds", PICKED), "{{function}}"),
        ),
        graph(
            "Running, against slots",
            "Attempts that run now, synchronous ones too, and how many could. "
            "At the line, everything else waits.",
            units.Short,
            query(f"sum by (function) (quarterhour_running{{{PICKED}}})", "{{function}}"),
            query("sum(quarterhour_slots)", "slots"),
            span=WIDTH // 2,
        )
        .stacking(StackingConfig().mode(common.StackingMode.NORMAL))
        .override_by_name(
            "slots",
            [
                DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
                DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                fixed(RED),
            ],
        ),
        graph(
            "Background run time",
            "How long attempts took, from start to end. A gap: none ended.",
            units.Seconds,
            *(
                query(
                    quantile(q, "quarterhour_attempt_duration_seconds", BACKGROUND),
                    f"{{{{function}}}} {name}",
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            span=WIDTH // 2,
        ),
    ]


def requests() -> list[timeseries.Panel]:
    """What the callers see, and whether the parts are there."""
    return [
        graph(
            "Requests by status",
            "Answers to requests for functions, of both kinds.",
            units.RequestsPerSecond,
            query(
                f"sum by (status) (rate(quarterhour_requests_total{{{PICKED}}}[$__rate_interval]))",
                "{{status}}",
            ),
        ),
        graph(
            "Synchronous run time",
            "How long synchronous functions ran: what their callers wait for, the way there and back apart.",
            units.Seconds,
            *(
                query(
                    quantile(q, "quarterhour_attempt_duration_seconds", SYNCHRONOUS),
                    f"{{{{function}}}} {name}",
                )
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ),
        ),
        graph(
            "Parts that work",
            "Gateways and runners that Prometheus reaches, and those of them that have the broker.",
            units.Short,
            query('sum by (job) (up{job=~"quarterhour-.+"})', "{{job}} up"),
            query("sum by (job) (quarterhour_broker_connected)", "{{job}} with broker"),
        )
        .decimals(0)
        .fill_opacity(0),
    ]


ROWS: Sequence[tuple[str, Callable[[], Sequence[stat.Panel | timeseries.Panel]]]] = (
    ("Background functions in the chosen time, and now", glance),
    ("Success and failure", outcomes),
    ("Queue and run time", queues),
    ("Requests and parts", requests),
)


def dashboard() -> Dashboard:
    """The whole of it."""
    built = (
        build.Dashboard("Quarterhour")
        .uid("quarterhour")
        .description("Background success and failure, queues, run times and requests.")
        .tags(["quarterhour"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(function_variable())
    )
    ids = itertools.count(1)
    for title, panels in ROWS:
        built = built.with_row(build.Row(title).id(next(ids)))
        for panel in panels():
            built = built.with_panel(panel.id(next(ids)))
    return built.build()


def function_variable() -> build.QueryVariable:
    """The functions to choose from: every one that is announced or ever ran in the chosen time."""
    return (
        build.QueryVariable("function")
        .label("Function")
        .datasource(PROMETHEUS)
        .query('label_values({__name__=~"quarterhour_(requests|outcomes)_total"}, function)')
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")  # requests for nothing count under the name ""
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def main() -> None:
    """Print the dashboard's JSON."""
    encoder = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False)
    sys.stdout.write(encoder.encode(dashboard()) + "\n")


if __name__ == "__main__":
    main()
