"""Helm charts as the tests look at them: rendered, and held against the schemas of Kubernetes and of the operator."""

import json
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
APIS = ("monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1")
NEWEST = "1.37"
CRDS = Path(__file__).with_name("crds")


def helm() -> str:
    """The program; skips without one."""
    built = ROOT / "tools" / "helm" / "bin" / "helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if found is None:
        pytest.skip("helm is not installed: make tools/helm/bin/helm")
    return found


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Helm, with these arguments."""
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, timeout=120)


def render(*options: str | Path, version: str = "1.32", chart: Path = CHART) -> str:
    """What `helm template` writes, for a cluster that has the operator's CRDs."""
    apis = [f"--api-versions={api}" for api in APIS]
    done = run("template", "r", chart, "--namespace=ml", f"--kube-version={version}", *apis, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*options: str | Path) -> str:
    """The error of `helm template` for a cluster without any CRDs."""
    done = run("template", "r", CHART, *options)
    assert done.returncode != 0, done.stdout
    return done.stderr


def objects(text: str) -> list[Object]:
    """The objects of a rendering."""
    return [document for document in yaml.safe_load_all(text) if document]


def kinds(text: str) -> dict[str, list[Object]]:
    """The objects of a rendering, by kind."""
    found: dict[str, list[Object]] = {}
    for one in objects(text):
        found.setdefault(one["kind"], []).append(one)
    return found


def pods(text: str) -> Iterator[Object]:
    """The specification of every pod that a rendering makes."""
    for one in objects(text):
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["spec"]


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


def check(one: Mapping[str, Any], version: str) -> None:
    """Fails unless Kubernetes, or the operator, takes this object as it is."""
    group = one["apiVersion"].partition("/")[0]
    if group != "monitoring.coreos.com":
        kubernetes_validate.validate(dict(one), version, strict=True)
        return
    if one["kind"] == "AlertmanagerConfig":
        return
    schema = strict(json.loads((CRDS / f"{one['kind'].lower()}s.json").read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema_rs.validator_for(schema).validate(one)


def abridged(text: str) -> str:
    """A rendering without the copies of rules and dashboards, which have tests of their own."""
    documents = re.split(r"^---\n", text, flags=re.MULTILINE)
    cut = [re.sub(r"(^kind: PrometheusRule$.*?^spec:\n).*", r"\1  (a copy)\n", d, flags=re.M | re.S) for d in documents]
    return "---\n".join(re.sub(r'^(  mlexporter-\w+\.json: )".*"$', r"\1(a copy)", d, flags=re.M) for d in cut)
