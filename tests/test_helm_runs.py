"""What the application chart renders is run: arguments and mounted files, by a user who may write only the state."""

import errno
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from certificates import Authority
from charts import kinds, render
from conftest import baseline as made
from conftest import numeric
from helm.charts import CHART
from mlexporter.baseline import encode
from pods import SECONDS, Pod, mounts_allowed, reachable

CONFIG = "models: [{name: churn, version: '1.10', baseline: /baselines/churn.json}]\n"
WEB = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n"


def values(folder: Path, **given: object) -> Path:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    return file


def baseline() -> str:
    """A small baseline, as the values have it."""
    return encode(made(numeric("age", [20.0, 40.0, 60.0], [25.0, 35.0, 45.0, 55.0] * 50))).decode()


def given(case: str, folder: Path) -> tuple[Path, dict[str, dict[str, bytes]]]:
    """Values of a way of use, and the Secrets that have to be there."""
    if case == "default":
        return CHART / "ci" / "default-values.yaml", {}
    if case == "config":
        stored = {"enabled": True}
        return values(
            folder, config={"inline": CONFIG}, baselines={"files": {"churn.json": baseline()}}, persistence=stored
        ), {}
    authority = Authority()
    chain, key = authority.server()
    secret = {"tls.crt": chain, "tls.key": key, "ca.crt": authority.pem}
    if case == "tls":
        web = {"inline": WEB, "scheme": "https", "tlsSecret": "t"}
        return values(folder, webConfig=web), {"t": secret}
    client = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}"
    web_file = WEB.replace("}", f", {client}")
    web = {"existingSecret": "w", "scheme": "https", "tlsSecret": "t", "clientCertificates": True}  # type: ignore[dict-item]
    return values(folder, webConfig=web), {"t": secret, "w": {"web.yml": web_file.encode()}}


def helm_test(rendered: str, port: int) -> "subprocess.CompletedProcess[str]":
    """`helm test`, with what DNS and the service would do."""
    (test,) = kinds(rendered)["Pod"][0]["spec"]["containers"]
    assert test["command"][0] == "python"
    command = [sys.executable, *test["command"][1:]]
    command[-3:-1] = ["127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("case", ["default", "config", "tls", "client-certificates"])
def test_the_rendered_container_runs_and_its_probes_answer(case: str, tmp_path: Path) -> None:
    file, secrets = given(case, reachable(tmp_path))
    rendered = render("--values", file)
    pod = Pod(rendered, tmp_path / "root", secrets)
    with pod.running() as process:
        assert pod.probe("readinessProbe")
        assert pod.probe("livenessProbe")
        done = helm_test(rendered, pod.port)
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said
    assert (pod.places["/var/lib/mlexporter"] / "state.bin").exists(), said
    assert list(pod.places["/tmp"].iterdir()) == []
    if case == "config":
        assert "level=warning" not in said


def test_nothing_else_can_be_written(tmp_path: Path) -> None:
    """Not even what every user may write; where no mounts can be made, what the user may not write."""
    pod = Pod(render(), reachable(tmp_path) / "root", {})
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    code = "import errno, sys\ntry: open(sys.argv[1] + '/x', 'w')\nexcept OSError as error: sys.exit(error.errno)"
    elsewhere = (shared, errno.EROFS) if mounts_allowed() else (Path("/etc"), errno.EACCES)
    for folder, status in (elsewhere, (pod.places["/var/lib/mlexporter"], 0), (pod.places["/tmp"], 0)):
        assert subprocess.run(pod.confined(sys.executable, "-c", code, str(folder))).returncode == status, folder


def test_helm_test_fails_where_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = helm_test(render(), bound.getsockname()[1])
    assert done.returncode != 0
    assert "refused" in done.stderr
