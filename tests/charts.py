"""Helm charts as the tests look at them: rendered, and held against the schemas of Kubernetes and of the operator."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from helm.charts import CHART, ROOT

Object = dict[str, Any]

CI = sorted((CHART / "ci").glob("*-values.yaml"))
NEEDS = {
    "podMonitor": "v1/PodMonitor",
    "serviceMonitor": "v1/ServiceMonitor",
    "prometheusRule": "v1/PrometheusRule",
    "alertmanagerConfig": "v1alpha1/AlertmanagerConfig",
}
"""What each of these values needs of the group monitoring.coreos.com."""
OPERATOR = tuple(f"--api-versions=monitoring.coreos.com/{api}" for api in NEEDS.values())
"""What `helm template` is told of a cluster that has the Prometheus Operator."""
GROUP = ("--api-versions=monitoring.coreos.com/v1", "--api-versions=monitoring.coreos.com/v1alpha1")
"""What a cluster has as soon as it has one kind of the operator's."""
VERSIONS = ("1.29", "1.32", "1.37")
"""Kubernetes: the oldest that is promised, one between, the newest that has schemas here."""
CRDS = Path(__file__).with_name("crds")


each_helm = pytest.mark.parametrize("program", ["helm", "helm3"])
"""Helm 4, and Helm 3."""


def helm(program: str) -> str:
    """Where this Helm is; skips without it."""
    built = ROOT / "tools" / program / "bin" / "helm"
    found = str(built) if built.exists() else shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: make tools/{program}/bin/helm")
    return found


def run(*arguments: str | Path, program: str = "helm") -> subprocess.CompletedProcess[str]:
    """Helm, with these arguments and nothing from the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
    return subprocess.run([helm(program), *arguments], capture_output=True, text=True, env=environment, timeout=120)


def render(*options: str | Path, version: str = "1.32", chart: Path = CHART, program: str = "helm") -> str:
    """What `helm template` writes, for a cluster that has the operator's CRDs."""
    done = run(
        "template", "r", chart, "--namespace=ml", f"--kube-version={version}", *OPERATOR, *options, program=program
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*options: str | Path, program: str = "helm") -> str:
    """The error of `helm template` for a cluster without any CRDs."""
    done = run("template", "r", CHART, "--kube-version=1.32", *options, program=program)
    assert done.returncode != 0, done.stdout
    return done.stderr


class Unambiguous(yaml.SafeLoader):
    """YAML as the API server reads it: a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise ValueError(f"a key is there twice: {[key.value for key, _ in node.value]}")
        return made


def objects(text: str) -> list[Object]:
    """The objects of a rendering."""
    return [document for document in yaml.load_all(text, Unambiguous) if document]


def kinds(text: str) -> dict[str, list[Object]]:
    """The objects of a rendering, by kind."""
    found: dict[str, list[Object]] = {}
    for one in objects(text):
        found.setdefault(one["kind"], []).append(one)
    return found


def pods(text: str) -> Iterator[Object]:
    """Metadata and specification of every pod that a rendering makes."""
    for one in objects(text):
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]
        elif one["kind"] == "Pod":
            yield one


def strict(schema: Any) -> Any:
    """A schema of a custom resource as JSON Schema that refuses keys it does not have."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        made["additionalProperties"] = False
    if made.pop("x-kubernetes-int-or-string", False):
        made["type"] = ["integer", "string"]
    return made


def schema_of(kind: str) -> Any:
    """The strict schema of a kind of the operator's."""
    schema = strict(json.loads((CRDS / f"{kind.lower()}s.json").read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}
    if kind == "AlertmanagerConfig":
        # The API server takes anything for routes below a route, which the operator then reads as routes.
        schema["$defs"]["Route"]["properties"]["routes"]["items"] = {"$ref": "#/$defs/Route"}
    return schema


def check(one: Mapping[str, Any], version: str) -> None:
    """Fails unless Kubernetes, or the operator, takes this object as it is."""
    if one["apiVersion"].partition("/")[0] == "monitoring.coreos.com":
        jsonschema_rs.validator_for(schema_of(one["kind"])).validate(one)
    else:
        kubernetes_validate.validate(dict(one), version, strict=True)


def abridged(text: str) -> str:
    """A rendering without the copies of rules and dashboards, which have tests of their own."""
    documents = re.split(r"^---\n", text, flags=re.MULTILINE)
    cut = [re.sub(r"(^kind: PrometheusRule$.*?^spec:\n).*", r"\1  (a copy)\n", d, flags=re.M | re.S) for d in documents]
    return "---\n".join(re.sub(r'^(  mlexporter-\w+\.json: )".*"$', r"\1(a copy)", d, flags=re.M) for d in cut)


def without_blank_lines(text: str) -> str:
    """A rendering without its empty lines: Helm 4 has one more than Helm 3 at the end of an object."""
    return "".join(line for line in text.splitlines(keepends=True) if line.strip())


def same_as_golden(text: str, file: Path, request: pytest.FixtureRequest) -> None:
    """Fails unless the file has this text; with --update-golden the file gets it."""
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text
