"""What both charts have besides templates: versions, values with comments, schemas, READMEs, copies."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.charts import CHART, LIBRARY, ROOT, comments, documents

each_chart = pytest.mark.parametrize("chart", [CHART, LIBRARY], ids=lambda chart: chart.name)


def test_everything_that_is_made_is_current() -> None:
    made = documents()
    assert {path for path, content in made.items() if not path.exists() or path.read_bytes() != content} == set()
    assert {path for path in CHART.glob("files/**/*") if path.is_file()} <= made.keys(), "make charts"


@each_chart
def test_the_versions_are_those_of_the_package(chart: Path) -> None:
    said = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert said["version"] == said["appVersion"] == project["version"]


@each_chart
def test_every_value_has_its_comment(chart: Path) -> None:
    found = comments((chart / "values.yaml").read_text(encoding="utf-8"))
    assert found
    assert [key for key, comment in found.items() if not comment] == []


def unlike(values: dict[str, Any], schema: dict[str, Any], whole: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys that the values have and the schema has not, or the other way around, and objects that take any key."""
    if "$ref" in schema:
        schema = whole["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema:
        return
    if schema["additionalProperties"] is not False:
        yield path
    for key in values.keys() ^ (schema["properties"].keys() - {"global"}):
        yield f"{path}.{key}"
    for key in values.keys() & schema["properties"].keys():
        if isinstance(values[key], dict):
            yield from unlike(values[key], schema["properties"][key], whole, f"{path}.{key}")


@each_chart
def test_the_schema_has_the_keys_of_the_values(chart: Path) -> None:
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    assert list(unlike(values, schema, schema)) == []
    assert list(unlike({**values, "podMonitr": {}}, schema, schema)) == [".podMonitr"]
    assert "global" in schema["properties"], "Helm gives it to every chart that is a dependency"
