"""Tables: a row for each model, version or column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    MatcherConfig,
    Panel,
)

from grafana.generate import style
from grafana.generate.links import DataLink
from grafana.generate.panels import About, Query, finished, instants


@dataclass(frozen=True, slots=True)
class Cell:
    """How a column of a table looks.

    Attributes:
        unit: of its values.
        decimals: of its values.
        width: pixels.
        thresholds: colours of its background.
        states: words for its values.
        links: from its cells.

    """

    unit: str = ""
    decimals: int | None = None
    width: int | None = None
    thresholds: ThresholdsConfig | None = None
    states: style.States = field(default_factory=dict)
    links: Sequence[DataLink] = ()


def rows(
    id_: int,
    size: tuple[int, int],
    about: About,
    queries: Sequence[Query],
    *,
    labels: Mapping[str, str],
    cells: Mapping[str, Cell],
    sort_by: str,
) -> Panel:
    """A table: a row for each set of labels, a column for each query, headed by its legend.

    Args:
        id_: of the panel.
        size: width and height.
        about: of the panel.
        queries: instants, all by the same labels.
        labels: all of them, in order, with their headlines.
        cells: by headline, how a column looks.
        sort_by: headline, the largest value first.

    """
    values = {f"Value #{chr(ord('A') + i)}": query.legend for i, query in enumerate(queries)}
    names = {**labels, **values}
    panel = (
        table.Panel()
        .targets(instants(queries))
        .unit("short")
        .thresholds(style.steps([(None, style.NEUTRAL)]))
        .color_scheme(style.by_threshold())
        .cell_height(models.TableCellHeight.SM)
        .filterable(True)
        .sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: i for i, name in enumerate(names)},
                    "renameByName": names,
                },
            )
        )
    )
    for name, cell in cells.items():
        panel.with_override(MatcherConfig(id_val="byName", options=name), _cell(cell))
    return finished(panel.build(), id_, size, about)


def _cell(cell: Cell) -> list[DynamicConfigValue]:
    look: dict[str, object] = {}
    if cell.unit:
        look["unit"] = cell.unit
    if cell.decimals is not None:
        look["decimals"] = cell.decimals
    if cell.width is not None:
        look["custom.width"] = cell.width
    if cell.states:
        look["mappings"] = style.state_mappings(cell.states)
    thresholds = cell.thresholds or (style.state_steps(cell.states) if cell.states else None)
    if thresholds:
        look["thresholds"] = thresholds.build()
        look["custom.cellOptions"] = {"type": "color-background", "mode": "basic"}
    if cell.links:
        look["links"] = list(cell.links)
    return [DynamicConfigValue(id_val=id_, value=value) for id_, value in look.items()]
