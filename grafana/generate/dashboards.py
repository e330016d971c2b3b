"""All dashboards, as the text of their files."""

import json
from collections.abc import Callable

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.generate import column, exporter, fleet, model

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "fleet.json": fleet.dashboard,
    "model.json": model.dashboard,
    "column.json": column.dashboard,
    "exporter.json": exporter.dashboard,
}


def documents() -> dict[str, str]:
    """File name to text: the same each time."""
    return {name: _text(build()) for name, build in DASHBOARDS.items()}


def _text(dashboard: Dashboard) -> str:
    content = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    # The builder puts links and the switches of annotations into a menu, where nobody sees them.
    for control in (*content["links"], *content["annotations"]["list"]):
        del control["placement"]
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
