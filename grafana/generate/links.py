"""From dashboard to dashboard, with the time and the variables; and what is drawn over all panels."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

from grafana.generate import queries
from grafana.generate.style import PURPLE, VERMILION
from grafana.generate.variables import DATASOURCE

# From what is clicked on: a series or a cell.
DataLink = Mapping[str, str]


def to(name: str, title: str, tooltip: str) -> DashboardLink:
    """A link in the head of a dashboard, which takes the time and all variables along."""
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .url(f"/d/mlexporter-{name}")
        .icon("dashboard")
        .tooltip(tooltip)
        .keep_time(True)
        .include_vars(True)
    )


FLEET = ("fleet", "Fleet", "All models")
MODEL = ("model", "Model", "The model of this column")
EXPORTER = ("exporter", "Exporter", "The health of the exporters themselves")


def down(name: str, title: str, kept: Sequence[str], values: Mapping[str, str]) -> DataLink:
    """A link from what is clicked on.

    Args:
        name: of the dashboard that it goes to.
        title: of the link.
        kept: variables that stay as they are.
        values: of variables that what is clicked on sets: a field of the row, or a label of the series.

    """
    parts = ["${__url_time_range}", *(f"${{{variable}:queryparam}}" for variable in kept)]
    parts += [f"var-{variable}=${{{value}:percentencode}}" for variable, value in values.items()]
    return {"title": title, "url": f"/d/mlexporter-{name}?{'&'.join(parts)}"}


def of_row(variable: str) -> str:
    """The value of a column of a table, by its headline."""
    return f"__data.fields.{variable}"


def of_series(label: str) -> str:
    """The value of a label of a series."""
    return f"__field.labels.{label}"


def firing(*selectors: str) -> AnnotationQuery:
    """Alerts while they fire, of any of these selectors, marked over all panels."""
    alerts = "\nor ".join(map(queries.firing, selectors))
    return (
        AnnotationQuery()
        .name("Alerts")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(VERMILION)
        .expr(f"max by (alertname, severity, version, role, column) ({alerts})")
        .step("60s")
        .title_format("{{alertname}}")
        .text_format("{{severity}} {{version}} {{role}} {{column}}")
        .tag_keys("severity")
    )


def deployments(selector: str) -> AnnotationQuery:
    """The first sight of a version, which the recording rules keep as the value of a series."""
    return (
        AnnotationQuery()
        .name("Deployments")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(PURPLE)
        .expr(f"1000 * max by (model, version) (fleet:mlexporter_version_first_seen:timestamp{{{selector}}})")
        .step("5m")
        .use_value_for_time(True)
        .title_format("version {{version}}")
        .text_format("{{model}} {{version}} was seen for the first time")
    )
