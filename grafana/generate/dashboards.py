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
    return {
        name: json.dumps(build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, build in DASHBOARDS.items()
    }
