"""Rows of panels to positions on Grafana's grid of 24 columns, and all of it to one dashboard."""

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard as Builder
from grafana_foundation_sdk.cog.builder import Builder as AnyBuilder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLink,
    GridPos,
    Panel,
    RowPanel,
    VariableModel,
)

COLUMNS: Final = 24
# Of Grafana 10.0: later ones migrate it, and an earlier one would not know a later one's.
SCHEMA_VERSION: Final = 38

# Panels side by side, which fill the width and are of one height.
Line = Sequence[Panel]


def section(title: str, *lines: Line) -> list[RowPanel | Line]:
    """Lines under a headline."""
    return [RowPanel(title=title, collapsed=False, panels=[]), *lines]


def place(items: Sequence[RowPanel | Line]) -> list[Panel | RowPanel]:
    """Give everything its position, from top to bottom and left to right.

    Raises ValueError where a line leaves a gap, or an id is there twice: links go by ids, so each panel has its own.
    """
    placed: list[Panel | RowPanel] = []
    y = 0
    for number, item in enumerate(items):
        if isinstance(item, RowPanel):
            item.id_val = 1000 + number
            item.grid_pos = GridPos(h=1, w=COLUMNS, x=0, y=y)
            placed.append(item)
            y += 1
            continue
        heights, x = set(), 0
        for panel in item:
            assert panel.grid_pos is not None
            panel.grid_pos.x, panel.grid_pos.y = x, y
            x += panel.grid_pos.w
            heights.add(panel.grid_pos.h)
        if x != COLUMNS or len(heights) != 1:
            raise ValueError(f"{[panel.title for panel in item]} are {x} wide and {sorted(heights)} high")
        placed += item
        y += heights.pop()
    ids = [panel.id_val for panel in placed]
    if len(ids) != len(set(ids)):
        raise ValueError(f"ids are there twice: {sorted(one for one in ids if one is not None)}")
    return placed


def dashboard(
    name: str,
    title: str,
    description: str,
    *,
    variables: Sequence[AnyBuilder[VariableModel]],
    links: Sequence[AnyBuilder[DashboardLink]],
    items: Sequence[RowPanel | Line],
    annotations: Sequence[AnyBuilder[AnnotationQuery]],
) -> Dashboard:
    """A dashboard of the bundle: its uid is `mlexporter-` and its name."""
    builder = (
        Builder(title)
        .uid(f"mlexporter-{name}")
        .description(description)
        .tags(["mlexporter"])
        .readonly()
        .refresh("1m")
        .time("now-24h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables(list(variables))
        .links(list(links))
        .annotations(list(annotations))
    )
    built = builder.build()
    built.panels = place(items)
    built.schema_version = SCHEMA_VERSION
    return built
