"""Kinds of panels. Each takes its queries with how they look, and says what it shows and what is to be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import barchart, common, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import prometheus as builders
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    Panel,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.generate import style
from grafana.generate.links import DataLink
from grafana.generate.variables import DATASOURCE

# The recording rules of pooled counts come every five minutes: a shorter step would ask for the same again.
POOLED: Final = "5m"


@dataclass(frozen=True, slots=True)
class About:
    """What is to be known of a panel.

    Attributes:
        title: few words.
        shows: what it is.
        good: what it looks like when all is well.
        otherwise: what to do when it does not.

    """

    title: str
    shows: str
    good: str
    otherwise: str

    @property
    def description(self) -> str:
        """All of it, as Markdown."""
        return f"{self.shows}\n\n**Good:** {self.good}\n\n**Otherwise:** {self.otherwise}"


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and how its series look.

    Attributes:
        expr: PromQL.
        legend: of its series; in a table the headline of its values.
        color: of the series. Several series of one query get shades of it, which differ in lightness.
        dashed: for what is compared with: baselines, thresholds.
        unit: if it is not that of the panel.
        step: least step of a range, such as `5m`.
        right: on an axis of its own.

    """

    expr: str
    legend: str = ""
    color: str = style.BLUE
    dashed: bool = False
    unit: str = ""
    step: str = ""
    right: bool = False


def _target(number: int, query: Query) -> builders.Dataquery:
    target = builders.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expr).datasource(DATASOURCE)
    if query.legend:
        target.legend_format(query.legend)
    if query.step:
        target.interval(query.step)
    return target


def _ranges(queries: Sequence[Query]) -> list[Any]:
    return [_target(i, query).range() for i, query in enumerate(queries)]


def instants(queries: Sequence[Query]) -> list[Any]:
    """Targets that are asked once, for the end of the time shown, and give a table."""
    return [_target(i, query).instant().format(PromQueryFormat.TABLE) for i, query in enumerate(queries)]


def _legend() -> common.VizLegendOptions:
    """The names of all series, under the panel."""
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(models.LegendDisplayMode.LIST)
        .placement(models.LegendPlacement.BOTTOM)
        .calcs([])
    )


def finished(built: Panel, number: int, size: tuple[int, int], about: About) -> Panel:
    """A panel with its id, width and height, and its words."""
    width, height = size
    built.id_val, built.grid_pos = number, GridPos(w=width, h=height)
    built.title, built.description, built.datasource = about.title, about.description, DATASOURCE
    return built


def number(
    id_: int,
    about: About,
    query: Query,
    *,
    unit: str,
    thresholds: ThresholdsConfig | None = None,
    states: style.States | None = None,
    decimals: int | None = None,
) -> Panel:
    """One number, now, a sixth of the width; with `states`, in words."""
    panel = (
        stat.Panel()
        .targets([_target(0, query).instant()])
        .unit(unit)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(models.BigValueGraphMode.NONE)
        .color_mode(models.BigValueColorMode.BACKGROUND if states or thresholds else models.BigValueColorMode.VALUE)
        .text_mode(models.BigValueTextMode.VALUE)
        .color_scheme(style.by_threshold())
        .thresholds(thresholds or style.steps([(None, style.BLUE)]))
    )
    if states:
        panel.mappings(style.state_mappings(states)).thresholds(style.state_steps(states))
    if decimals is not None:
        panel.decimals(decimals)
    return finished(panel.build(), id_, (4, 4), about)


def lines(
    id_: int,
    size: tuple[int, int],
    about: About,
    queries: Sequence[Query],
    *,
    unit: str,
    thresholds: ThresholdsConfig | None = None,
    minimum: float | None = 0,
    maximum: float | None = None,
    points: int | None = None,
    links: Sequence[DataLink] = (),
) -> Panel:
    """Lines over time; thresholds are dashed lines. `points` is how many are enough, where each one costs a lot."""
    panel = (
        timeseries.Panel()
        .targets(_ranges(queries))
        .unit(unit)
        .line_width(2)
        .show_points(models.VisibilityMode.AUTO)
        .span_nulls(False)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING))
    )
    if points is not None:
        panel.max_data_points(points)
    if thresholds:
        panel.thresholds(thresholds)
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(models.GraphThresholdsStyleMode.DASHED))
    if minimum is not None:
        panel.axis_soft_min(minimum)
    if maximum is not None:
        panel.axis_soft_max(maximum)
    for i, query in enumerate(queries):
        panel.override_by_query(chr(ord("A") + i), _look(query))
    if links:
        panel.override_by_regexp("/.*/", _clickable(links))
    return finished(panel.build(), id_, size, about)


def _look(query: Query) -> list[DynamicConfigValue]:
    look = [DynamicConfigValue(id_val="color", value={"mode": "shades", "fixedColor": query.color})]
    if query.dashed:
        look.append(DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}))
        look.append(DynamicConfigValue(id_val="custom.lineWidth", value=1))
    if query.unit:
        look.append(DynamicConfigValue(id_val="unit", value=query.unit))
    if query.right:
        look.append(DynamicConfigValue(id_val="custom.axisPlacement", value="right"))
    return look


def _clickable(links: Sequence[DataLink]) -> list[DynamicConfigValue]:
    return [DynamicConfigValue(id_val="links", value=list(links))]


def timeline(
    id_: int,
    size: tuple[int, int],
    about: About,
    query: Query,
    *,
    states: style.States,
    links: Sequence[DataLink] = (),
) -> Panel:
    """States over time, a bar for each series."""
    panel = (
        statetimeline.Panel()
        .targets(_ranges([query]))
        .unit("none")
        .mappings(style.state_mappings(states))
        .thresholds(style.state_steps(states))
        .color_scheme(style.by_threshold())
        .show_value(models.VisibilityMode.NEVER)
        .merge_values(True)
        .fill_opacity(90)
        .row_height(0.85)
        .legend(_legend())
    )
    if links:
        panel.override_by_regexp("/.*/", _clickable(links))
    return finished(panel.build(), id_, size, about)


def bars(
    id_: int,
    size: tuple[int, int],
    about: About,
    query: Query,
    *,
    by: str,
    series: str,
    colors: Mapping[str, str],
) -> Panel:
    """Shares as bars side by side, now: a group for each value of label `by`, a bar for each of label `series`.

    `colors` are those of series whose name begins so.
    """
    panel = (
        barchart.Panel()
        .targets(instants([query]))
        .unit("percentunit")
        .min(0)
        .orientation(models.VizOrientation.VERTICAL)
        .x_field(f"{by}\\{series}")
        .x_tick_label_rotation(-45)
        .x_tick_label_max_length(24)
        .show_value(models.VisibilityMode.NEVER)
        .group_width(0.8)
        .bar_width(0.9)
        .fill_opacity(90)
        .line_width(0)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.NONE))
        .with_transformation(DataTransformerConfig(id_val="sortBy", options={"fields": {}, "sort": [{"field": by}]}))
        .with_transformation(
            DataTransformerConfig(
                id_val="groupingToMatrix",
                options={"columnField": series, "rowField": by, "valueField": "Value", "emptyValue": "null"},
            )
        )
    )
    for name, color in colors.items():
        look = DynamicConfigValue(id_val="color", value={"mode": "shades", "fixedColor": color})
        panel.override_by_regexp(f"/^{name}/", [look])
    return finished(panel.build(), id_, size, about)


def shares_over_time(id_: int, size: tuple[int, int], about: About, query: Query) -> Panel:
    """A heatmap: time across, a row for each series, which is its legend; darker is more."""
    panel = (
        heatmap.Panel()
        .targets(_ranges([query]))
        .unit("percentunit")
        .calculate(False)
        .rows_frame(heatmap.RowsHeatmapOptions().layout(models.HeatmapCellLayout.AUTO))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme("Cividis")
            .fill(style.BLUE)
            .exponent(0.5)
            .steps(64)
            .reverse(True)
            .min(0)
        )
        .cell_gap(0)
        .cell_values(heatmap.CellValues().unit("percentunit").decimals(1))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_value(models.VisibilityMode.NEVER)
        .show_legend()
        .exemplars_color(style.PURPLE)
        .tooltip(heatmap.HeatmapTooltip().mode(models.TooltipDisplayMode.SINGLE).show_color_scale(True))
        .y_axis(heatmap.YAxisConfig().unit("none").axis_placement(models.AxisPlacement.LEFT))
    )
    return finished(panel.build(), id_, size, about)
