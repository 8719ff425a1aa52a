#!/usr/bin/env python3
"""Writes dashboards/dimmer.json, the Grafana dashboard, with Grafana's own schema library.

Run it after a change with the Python of deploy/python-venv.sh:
    build/python/bin/python deploy/grafana/make_dashboard.py
"""

import argparse
import difflib
import pathlib
import sys

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, stat, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models

DASHBOARD = pathlib.Path(__file__).resolve().parent / "dashboards/dimmer.json"
COLUMNS = 24  # of Grafana's grid
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
MODEL = 'model=~"$model"'
MODULE = 'model=~"$model", module=~"$module"'
BAD = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED"'


def rate(metric: str, by: str = "", labels: str = MODEL) -> str:
    """A counter's increase per second, summed over servers and versions."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{labels}}}[$__rate_interval]))"


def mean(metric: str, by: str = "", labels: str = MODEL) -> str:
    """A histogram's mean."""
    return f"{rate(metric + '_sum', by, labels)} / {rate(metric + '_count', by, labels)}"


def quantile(q: float, metric: str, labels: str = MODEL) -> str:
    return f"histogram_quantile({q}, {rate(metric + '_bucket', 'le', labels)})"


SAVED = f"1 - {rate('dimmer_flops_total')} / {rate('dimmer_dense_flops_total')}"
REQUESTS = "dimmer_requests_total"
ERROR_RATIO = f"({rate(REQUESTS, labels=f'{MODEL}, {BAD}')} or vector(0)) / {rate(REQUESTS)}"


class Panels:
    """Lays panels out from left to right; a row must fill the grid's width."""

    def __init__(self, builder: dashboard.Dashboard):
        self._builder = builder
        self._x = self._y = self._height = 0

    def row(self, title: str):
        if self._x:
            raise ValueError(f"row before {title!r} is {self._x} of {COLUMNS} columns wide")
        at = models.GridPos(h=1, w=COLUMNS, x=0, y=self._y)
        self._builder.with_row(dashboard.Row(title).grid_pos(at))
        self._y += 1

    def add(self, panel, title: str, what: str, unit: str, width: int, height: int, *queries):
        """`queries` are (expression, legend) or Dataquery builders."""
        if self._x and height != self._height:
            raise ValueError(f"{title!r} is {height} high in a row of {self._height}")
        at = models.GridPos(h=height, w=width, x=self._x, y=self._y)
        panel.title(title).description(what).unit(unit).datasource(SOURCE).grid_pos(at)
        for index, query in enumerate(queries):
            if isinstance(query, tuple):
                query = Dataquery().expr(query[0]).legend_format(query[1]).range()
            panel.with_target(query.ref_id(chr(ord("A") + index)).datasource(SOURCE))
        self._builder.with_panel(panel)
        self._height = height
        self._x += width
        if self._x > COLUMNS:
            raise ValueError(f"{title!r} ends at column {self._x} of {COLUMNS}")
        if self._x == COLUMNS:
            self._x, self._y = 0, self._y + height


def lines(stacked: bool = False, log: bool = False) -> timeseries.Panel:
    """Time series with a legend that shows the last value and the highest."""
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if log:
        scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG)
        panel.scale_distribution(scale.log(10))
    else:
        panel.axis_soft_min(0)
    return panel


def number(*steps: tuple[float | None, str]) -> stat.Panel:
    """One value with its recent course behind it; `steps` colour it from a value on."""
    thresholds = [models.Threshold(value=value, color=color) for value, color in steps]
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)
        )
    )


def heat(axis: str, cells: str) -> heatmap.Panel:
    """Rows that come from the queries' legends, or from `le`, against time."""
    return (
        heatmap.Panel()
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .fill("dark-orange")
            .steps(64)
        )
        .cell_gap(1)
        .cell_values(heatmap.CellValues().unit(cells).decimals(1))
        .y_axis(heatmap.YAxisConfig().axis_label(axis).unit("none"))
        .mode(common_models.TooltipDisplayMode.SINGLE)
        .show_legend()
    )


def at_a_glance(panels: Panels):
    neutral = (None, "blue")
    panels.row("At a glance")
    panels.add(
        number(neutral), "Requests", "Calls that ended, per second, whatever their status.",
        "reqps", 4, 4, (rate(REQUESTS), "requests"),
    )  # fmt: skip
    panels.add(
        number((None, "green"), (0.01, "orange"), (0.05, "red")).min(0),
        "Failed", "Share of calls that failed on the server's side or found it too busy: INTERNAL, "
        "UNKNOWN, DATA_LOSS, UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED.",
        "percentunit", 4, 4, (ERROR_RATIO, "failed"),
    )  # fmt: skip
    panels.add(
        number(neutral), "Latency p95", "19 of 20 calls were answered faster than this.",
        "s", 4, 4, (quantile(0.95, "dimmer_request_duration_seconds"), "p95"),
    )  # fmt: skip
    panels.add(
        number(neutral), "FLOPs saved", "Share of the dense model's FLOPs that calls did not "
        "run.", "percentunit", 4, 4, (SAVED, "saved"),
    )  # fmt: skip
    panels.add(
        number(neutral).min(0).decimals(3), "Default tau", "What calls without a budget run at. "
        "With several models or servers: the highest.",
        "none", 4, 4, (f"max(dimmer_default_tau{{{MODEL}}})", "tau"),
    )  # fmt: skip
    panels.add(
        number((None, "green"), (1, "red")), "Models not ready", "Models that failed to load; "
        "calls to them answer UNAVAILABLE with the reason.",
        "none", 4, 4, (f"sum(dimmer_model_ready{{{MODEL}}} == bool 0)", "not ready"),
    )  # fmt: skip


def calls(panels: Panels):
    panels.row("Calls")
    panels.add(
        lines(stacked=True), "Request rate by RPC and status",
        "Calls that ended, per second. Calls that name a model which the server does not know have "
        "no model: they show with Model = All.",
        "reqps", 12, 9, (rate(REQUESTS, "rpc, code"), "{{rpc}} {{code}}"),
    )  # fmt: skip
    duration = "dimmer_request_duration_seconds"
    panels.add(
        lines(log=True), "Latency",
        "From a call's arrival to its answer, all RPCs and statuses. Refused calls are fast: under "
        "overload the median may fall.",
        "s", 12, 9, *[(quantile(q, duration), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)],
    )  # fmt: skip
    panels.add(
        lines(stacked=True), "Errors by status",
        "Calls that did not end with OK. INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION are "
        "the client's; CANCELLED means that it left.",
        "reqps", 8, 8, (rate(REQUESTS, "code", f'{MODEL}, code!="OK"'), "{{code}}"),
    )  # fmt: skip
    panels.add(
        lines(stacked=True), "Rejected by reason",
        "Calls turned away: queue_full (too many texts wait), deadline (the call's time was over), "
        "budget_floor (max_flops below what the model can run), unavailable (not loaded, or "
        "shutting down).",
        "reqps", 8, 8, (rate("dimmer_rejected_requests_total", "reason"), "{{reason}}"),
    )  # fmt: skip
    panels.add(
        lines(log=True), "Waiting or computing",
        "p95 of answered calls. Waiting above computing means too much load for these threads.",
        "s", 8, 8,
        (quantile(0.95, "dimmer_queue_duration_seconds"), "waiting p95"),
        (quantile(0.95, "dimmer_compute_duration_seconds"), "computing p95"),
    )  # fmt: skip


def compute(panels: Panels):
    panels.row("Compute and budgets")
    panels.add(
        lines().max(1), "FLOPs saved", "1 - FLOPs run / FLOPs that tau 0 would have run, "
        "by model.", "percentunit", 8, 8,
        (f"1 - {rate('dimmer_flops_total', 'model')} / {rate('dimmer_dense_flops_total', 'model')}",
         "{{model}}"),
    )  # fmt: skip
    panels.add(
        lines(), "FLOP/s run and dense", "What calls ran, and what the dense model would "
        "have; the gap is what is saved.", "flops", 8, 8,
        (rate("dimmer_dense_flops_total"), "dense"), (rate("dimmer_flops_total"), "run"),
    )  # fmt: skip
    panels.add(
        lines().max(1), "tau in force",
        "default: of calls without a budget, as SetTau left it. The others: effective tau of "
        "answered calls, whatever their budget; quantiles are as fine as the histogram's buckets.",
        "none", 8, 8,
        (f"max by (model) (dimmer_default_tau{{{MODEL}}})", "default {{model}}"),
        (mean("dimmer_request_tau"), "mean of calls"),
        (quantile(0.5, "dimmer_request_tau"), "p50 of calls"),
        (quantile(0.9, "dimmer_request_tau"), "p90 of calls"),
    )  # fmt: skip
    error = "dimmer_budget_error_ratio"
    panels.add(
        lines(), "Budget error",
        "FLOPs run over FLOPs asked for, minus 1: 0 is exact, above 0 is over budget. Of calls with "
        "flop_fraction or max_flops that were not clamped. A quantile is a bucket's bound at best, "
        "the mean is exact.", "percentunit", 12, 8,
        (mean(error), "mean"), (quantile(0.05, error), "p5"), (quantile(0.95, error), "p95"),
    )  # fmt: skip
    panels.add(
        lines().override_by_name(
            "tokens per second", [models.DynamicConfigValue("custom.axisPlacement", "right")]
        ),
        "Batches and tokens", "How much runs together: mean tokens of a batch; and, on the right "
        "axis, tokens of calls that ended per second.",
        "short", 12, 8,
        (mean("dimmer_batch_tokens"), "tokens per batch"),
        (rate("dimmer_tokens_total"), "tokens per second"),
    )  # fmt: skip


def generation(panels: Panels):
    panels.row("Generation")
    first, between = "dimmer_time_to_first_token_seconds", "dimmer_time_per_output_token_seconds"
    panels.add(
        lines(log=True), "Time to first token",
        "From an answered generation's arrival to its first token: waiting, and reading the prompt.",
        "s", 6, 8, *[(quantile(q, first), f"p{q * 100:g}") for q in (0.5, 0.95)],
    )  # fmt: skip
    panels.add(
        lines(log=True), "Time per output token",
        "Mean time from token to token of an answered generation. A slow reader's pauses count too.",
        "s", 6, 8, *[(quantile(q, between), f"p{q * 100:g}") for q in (0.5, 0.95)],
    )  # fmt: skip
    panels.add(
        lines(), "Prompt and output tokens",
        "Tokens per second. A generation's count when it ends; encoders have no "
        "output.", "short", 6, 8, (rate("dimmer_tokens_total", "kind"), "{{kind}}"),
    )  # fmt: skip
    panels.add(
        lines().max(1), "Key-value pages in use",
        "Share of a model's pages that generations hold, reserved for prompt and max_tokens. At "
        "100 % the next one waits.", "percentunit", 6, 8,
        (f"sum by (model) (dimmer_kv_pages_used{{{MODEL}}}) / "
         f"sum by (model) (dimmer_kv_pages{{{MODEL}}})", "{{model}}"),
    )  # fmt: skip


def experts(panels: Panels):
    panels.row("Experts")
    run = "dimmer_experts_run"
    panels.add(
        heat("layer", "none"), "Experts run per token, by layer",
        "Mean over all tokens, a row for each layer: bright layers do the work. A row that turns "
        "dark alone is a layer that collapsed.", "none", 12, 9,
        (mean(run, "layer", MODULE), "{{layer}}"),
    )  # fmt: skip
    tokens = rate(f"{run}_bucket", "le", MODULE)
    panels.add(
        heat("experts run", "cps"), "Tokens by experts run",
        "How many experts tokens ran in a layer, all layers together: tokens per second in each "
        "bucket. Calls at tau 0 fill the top row, calls at tau 1 the bottom.", "none", 12, 9,
        Dataquery().expr(tokens).legend_format("{{le}}").format("heatmap").range(),
    )  # fmt: skip
    load = rate("dimmer_expert_tokens_total", "layer, expert", MODULE)
    through = rate(f"{run}_count", "layer", MODULE)
    top = f"topk(12, {load} / on (layer) group_left () {through})"
    panels.add(
        bargauge.Panel()
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.GRADIENT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .min(0).max(1),
        "Busiest experts",
        "Share of a layer's tokens that ran this expert, the 12 highest now. At tau 0 every expert "
        "has 100 %. Empty where --metrics-per-expert is off or the models have 2048 experts or "
        "more.", "percentunit", 8, 10,
        Dataquery().expr(top).legend_format("layer {{layer}}, expert {{expert}}").instant(),
    )  # fmt: skip
    counter = f"rate(dimmer_expert_tokens_total{{{MODULE}}}[$__rate_interval])"
    by_expert = f"sum by (layer, expert) ({counter})"
    panels.add(
        lines(), "Load of the busiest expert",
        "Share of all (token, expert) pairs of a layer that fall on its busiest expert. 1 / experts "
        "is an even load; towards 100 % the layer has collapsed onto one expert.",
        "percentunit", 8, 10,
        (f"max by (layer) ({by_expert}) / sum by (layer) ({by_expert})", "layer {{layer}}"),
    )  # fmt: skip
    panels.add(
        lines(), "Experts without tokens",
        "Experts of a layer that no token ran. Many idle experts at a high tau are normal; idle "
        "experts at a low tau mean a router that forgot them.", "none", 8, 10,
        (f"sum by (layer) ({by_expert} == bool 0)", "layer {{layer}}"),
    )  # fmt: skip


def machine(panels: Panels):
    panels.row("Queue and process")
    panels.add(
        lines(), "Texts waiting and running",
        "Texts in the queue, up to --max-queue-size over all models, and texts in the model.",
        "none", 8, 8,
        (f"sum(dimmer_pending_requests{{{MODEL}}})", "waiting"),
        (f"sum(dimmer_running_requests{{{MODEL}}})", "running"),
    )  # fmt: skip
    ours = 'job="dimmer"'
    panels.add(
        lines(), "Processor", "Cores in use, by server.", "none", 8, 8,
        (f"rate(process_cpu_seconds_total{{{ours}}}[$__rate_interval])", "{{instance}}"),
    )  # fmt: skip
    panels.add(
        lines(), "Memory", "Resident memory, by server.", "bytes", 8, 8,
        (f"process_resident_memory_bytes{{{ours}}}", "{{instance}}"),
    )  # fmt: skip


def variables(builder: dashboard.Dashboard):
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    builder.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    for name, source in {
        "model": "dimmer_model_ready",
        "module": "dimmer_experts_run_count",
    }.items():
        builder.with_variable(
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(f"label_values({source}, {name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
        )


def make() -> str:
    builder = (
        dashboard.Dashboard("Dimmer")
        .uid("dimmer")
        .description("Requests, compute saved, tau in force and load of experts of dimmer-server")
        .tags(["dimmer"])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("15s")
        .time("now-30m", "now")
        .timezone("browser")
    )
    variables(builder)
    panels = Panels(builder)
    for section in (at_a_glance, calls, compute, generation, experts, machine):
        section(panels)
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="only tell whether it is up to date")
    arguments = parser.parse_args()
    wanted = make()
    if not arguments.check:
        DASHBOARD.write_text(wanted)
        return 0
    found = DASHBOARD.read_text() if DASHBOARD.exists() else ""
    changes = difflib.unified_diff(
        found.splitlines(),
        wanted.splitlines(),
        str(DASHBOARD),
        "what the script makes",
        lineterm="",
    )
    difference = "\n".join(list(changes)[:40])
    if difference:
        print(f"{difference}\nrun {pathlib.Path(__file__).name} without --check", file=sys.stderr)
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
