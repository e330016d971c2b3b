"""The code that writes the dashboards: the files are what it writes, in its colours and with the alerts' numbers."""

import json
import re
from collections.abc import Iterator

import pytest
from grafana_foundation_sdk.models.dashboard import GridPos, Panel, RowPanel

from dashboards import FOLDER, UIDS, load, panels
from grafana.generate import alerts, layout, style
from grafana.generate.dashboards import documents
from promql import ALERTS

# Okabe and Ito (2008), as the journal has them, without their green, which is too near to red; and a grey.
PALETTE = {"#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#8C8C8C"}

each = pytest.mark.parametrize("name", UIDS)


@each
def test_generating_again_changes_nothing(name: str) -> None:
    written = documents()[f"{name}.json"]
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == written, "make dashboards"
    assert documents()[f"{name}.json"] == written


@each
def test_dashboards_are_of_the_first_schema(name: str) -> None:
    """What Grafana 10 imports, and later ones migrate: version 2 of the schema has elements and a layout instead."""
    dashboard = load(name)
    assert {"panels", "templating", "schemaVersion"} <= dashboard.keys()
    assert dashboard["schemaVersion"] == 38
    assert dashboard.keys().isdisjoint({"elements", "layout", "apiVersion", "__inputs"})
    assert dashboard.get("id") is None


# -- colours -----------------------------------------------------------------------------------------------------------


def colors(content: object) -> Iterator[str]:
    """Everything in a dashboard that names a colour."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key in ("color", "fixedColor", "fill", "iconColor") and isinstance(value, str):
                yield value
            yield from colors(value)
    elif isinstance(content, list):
        for value in content:
            yield from colors(value)


@each
def test_colors_are_those_that_all_eyes_tell_apart(name: str) -> None:
    used = set(colors(load(name))) - {"dash"}
    assert used
    assert used <= PALETTE


@each
def test_series_have_no_palette_of_grafana(name: str) -> None:
    modes = set(re.findall(r'"mode": "(palette[^"]*|continuous[^"]*)"', json.dumps(load(name))))
    assert modes == set()


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFERENCE_ERRORS", 0.05),
        ("SAMPLES_REJECTED", 0.05),
        ("DRIFTED_COLUMNS", 0.5),
        ("FLEET_DRIFT", 1),
        ("VERSION_PSI", 0.2),
        ("ESTIMATE_LOSS", 0.05),
        ("ADVANTAGE", 0.01),
        ("LABELS_UNMATCHED", 0.2),
        ("SCRAPE_SECONDS", 2),
        ("SCRAPE_SECONDS_OUTSIDE", 5),
        ("STATE_SECONDS", 300),
        ("SERIES", 0.9),
    ],
)
def test_thresholds_are_those_of_the_documentation(name: str, value: float) -> None:
    """docs/alerting.md has these in words."""
    assert getattr(alerts, name) == value


def test_a_threshold_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no number"):
        alerts.threshold("MLExporterDown", "up >")
    with pytest.raises(ValueError, match=r"0\.05.*20"):
        alerts.threshold("MLExporterSamplesRejected", ") >")


# -- alerts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_opens_the_panel_that_tells_of_it(alert: str) -> None:
    link = re.search(r"/d/mlexporter-(\w+)\?(?:.*&)?viewPanel=(\d+)$", ALERTS[alert]["annotations"]["dashboard_url"])
    assert link
    (panel,) = (panel for panel in panels(load(link[1])) if panel["id"] == int(link[2]))
    assert re.search(rf"\b{alert}\b", panel["description"]), f"{link[1]}: {panel['title']}"


@each
def test_alerts_that_panels_tell_of_exist(name: str) -> None:
    told = set(re.findall(r"MLExporter\w+", "\n".join(panel["description"] for panel in panels(load(name)))))
    assert told
    assert told <= ALERTS.keys()


# -- places ------------------------------------------------------------------------------------------------------------


def panel(id_: int, width: int, height: int = 8) -> Panel:
    return Panel(id_val=id_, title=str(id_), grid_pos=GridPos(w=width, h=height))


def test_panels_stand_in_lines_from_top_to_bottom() -> None:
    row = RowPanel(title="row", panels=[])
    placed = layout.place([[panel(1, 12, 4), panel(2, 12, 4)], row, [panel(3, 24)], [panel(4, 8), panel(5, 16)]])
    places = [(one.grid_pos.x, one.grid_pos.y, one.grid_pos.w, one.grid_pos.h) for one in placed if one.grid_pos]
    assert places == [(0, 0, 12, 4), (12, 0, 12, 4), (0, 4, 24, 1), (0, 5, 24, 8), (0, 13, 8, 8), (8, 13, 16, 8)]


@pytest.mark.parametrize(
    "line",
    [
        [panel(1, 12), panel(2, 11)],
        [panel(1, 12), panel(2, 13)],
        [panel(1, 12, 8), panel(2, 12, 9)],
        [panel(1, 12), panel(1, 12)],
    ],
)
def test_lines_that_do_not_fit_are_refused(line: list[Panel]) -> None:
    with pytest.raises(ValueError, match=r"wide|twice"):
        layout.place([line])


def test_states_begin_with_no_value_and_go_up() -> None:
    steps = style.state_steps(style.DRIFT).build().steps
    assert [step.value for step in steps] == [None, 1, 2]
    assert len({step.color for step in steps}) == 3
