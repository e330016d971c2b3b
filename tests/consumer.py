"""examples/kubernetes as the tests look at it: the chart of a model server that uses the library, and Kustomize."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from charts import OPERATOR, Object, kinds, run
from helm.charts import LIBRARY, ROOT

CONSUMER = ROOT / "examples" / "kubernetes" / "model-server"
KSERVE = ROOT / "examples" / "kubernetes" / "kserve"
KUSTOMIZE = ROOT / "examples" / "kubernetes" / "kustomize"
USES = sorted(path.name.removesuffix("-values.yaml") for path in CONSUMER.glob("ci/*-values.yaml"))


def complete(folder: Path) -> Path:
    """The consumer's chart with the library in its place, as `helm dependency build` would put it."""
    chart = folder / "model-server"
    shutil.copytree(CONSUMER, chart, ignore=shutil.ignore_patterns("charts"))
    shutil.copytree(LIBRARY, chart / "charts" / LIBRARY.name)
    return chart


def template(chart: Path, *options: str, program: str = "helm") -> "subprocess.CompletedProcess[str]":
    """`helm template` of a chart, for a cluster without the operator."""
    versioned = () if any(one.startswith("--kube-version") for one in options) else ("--kube-version=1.32",)
    return run("template", "churn", chart, "--namespace=shop", *versioned, *options, program=program)


def rendered(chart: Path, *options: str, program: str = "helm") -> str:
    """What it writes."""
    done = template(chart, *options, program=program)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values_of(use: str) -> tuple[str, ...]:
    """The options of a way of use, for a cluster with the operator; without any of `default`."""
    return () if use == "default" else (f"--values={CONSUMER / 'ci' / use}-values.yaml", *OPERATOR)


def only(kind: str, text: str) -> Object:
    """The one object of a kind."""
    (one,) = kinds(text)[kind]
    return one


def pod_of(text: str) -> Object:
    """The template of the pods of the one Deployment."""
    pod: Object = only("Deployment", text)["spec"]["template"]
    return pod


def sidecar_of(pod: Mapping[str, Any]) -> Object:
    """The container of the exporter, of either kind."""
    spec = pod["spec"]
    (found,) = [one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == "mlexporter"]
    assert isinstance(found, dict)
    return found


def kustomized(folder: Path = KUSTOMIZE) -> str:
    """What Kustomize makes of a folder; skips without the program."""
    built = ROOT / "tools" / "kustomize" / "bin" / "kustomize"
    command = [str(built), "build"] if built.exists() else ["kubectl", "kustomize"]
    if shutil.which(command[0]) is None:
        pytest.skip("kustomize is not installed: make tools/kustomize/bin/kustomize")
    return subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True, timeout=60).stdout
