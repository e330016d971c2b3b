"""What the chart renders is run: the arguments, with the mounted files, as a user who may write only the state."""

import base64
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from certificates import Authority
from charts import Object, kinds, render
from conftest import baseline as made
from conftest import numeric
from helm.charts import CHART
from mlexporter.baseline import encode

SECONDS = 60
CONFIG = "models: [{name: churn, version: '1.10', baseline: /baselines/churn.json}]\n"
WEB = "tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n"


def contents(one: Object) -> dict[str, bytes]:
    """The files of a ConfigMap or Secret."""
    if one["kind"] == "Secret":
        return {name: base64.b64decode(text) for name, text in one["data"].items()}
    return {name: text.encode() for name, text in one["data"].items()}


def sources(volume: Mapping[str, Any]) -> Iterator[str]:
    """The names of the ConfigMaps and Secrets that a volume is made of."""
    for one in volume.get("projected", {"sources": [volume]})["sources"]:
        if "configMap" in one:
            yield one["configMap"]["name"]
        elif "secret" in one:
            yield one["secret"].get("name") or one["secret"]["secretName"]


def as_user(user: int) -> list[str]:
    """What a command begins with to run as this user, where the tests are root's.

    A Python in root's own home can be read by nobody else: then the command may read everything.
    """
    if os.geteuid() != 0:
        return []
    folders = Path(sys.executable).resolve().parents
    hidden = not all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"] if hidden else []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading]


class Pod:
    """A rendered pod whose mounts are folders here: root's, and not to be written, unless the pod may write them."""

    def __init__(self, rendered: str, root: Path, secrets: Mapping[str, Mapping[str, bytes]]) -> None:
        found = kinds(rendered)
        (workload,) = found.get("Deployment", []) + found.get("StatefulSet", [])
        (self.test,) = found["Pod"]
        self.spec = workload["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        files = {one["metadata"]["name"]: contents(one) for one in found.get("ConfigMap", []) + found.get("Secret", [])}
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        volumes |= {claim["metadata"]["name"]: {} for claim in claims}
        self.user = self.spec["securityContext"]["runAsUser"] if os.geteuid() == 0 else os.geteuid()
        self.places = {mount["mountPath"]: root / mount["mountPath"][1:] for mount in self.container["volumeMounts"]}
        for mount in self.container["volumeMounts"]:
            place = self.places[mount["mountPath"]]
            place.mkdir(parents=True)
            for name in sources(volumes[mount["name"]]):
                for file, content in {**files, **secrets}[name].items():
                    (place / file).write_bytes(self.moved(content.decode()).encode())
            if mount.get("readOnly"):
                place.chmod(0o555)
            elif os.geteuid() == 0:
                os.chown(place, self.user, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def moved(self, text: str) -> str:
        """A text in which the paths of mounts are those here."""
        # in one go, for what is put in place has such paths in it, too
        paths = re.compile(rf"(?<![\w/])(?:{'|'.join(self.places)})(?=/|\s|$)")
        return paths.sub(lambda path: str(self.places[path[0]]), text)

    @property
    def arguments(self) -> list[str]:
        """The arguments of the container, on a port of this machine."""
        (port,) = self.container["ports"]
        moved = [self.moved(argument) for argument in self.container["args"]]
        listen = f"--web.listen-address=:{port['containerPort']}"
        assert listen in moved
        return [f"--web.listen-address=127.0.0.1:{self.port}" if one == listen else one for one in moved]

    def probe(self, name: str) -> bool:
        """What the kubelet does: a status from 200 to 399, any certificate will do."""
        probe = self.container[name]
        (port,) = self.container["ports"]
        try:
            if "tcpSocket" in probe:
                assert probe["tcpSocket"]["port"] == port["name"]
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            assert probe["httpGet"]["port"] == port["name"]
            url = f"{probe['httpGet']['scheme'].lower()}://127.0.0.1:{self.port}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
                return 200 <= int(answer.status) < 400
        except OSError:
            return False

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """The container; as its user, if the tests are root's."""
        process = subprocess.Popen(
            [*as_user(self.user), sys.executable, "-P", "-m", "mlexporter", *self.arguments],
            cwd="/",
            env={**os.environ, "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the container's user can get to, which those of pytest are not."""
    for one in (tmp_path, *list(tmp_path.parents)[:2]):
        one.chmod(0o711)
    return tmp_path


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


@pytest.mark.parametrize("case", ["default", "config", "tls", "client-certificates"])
def test_the_rendered_container_runs_and_its_probes_answer(case: str, folder: Path) -> None:
    file, secrets = given(case, folder)
    pod = Pod(render("--values", file), folder / "root", secrets)
    mounted = {path: place.stat() for path, place in pod.places.items() if path not in ("/tmp", "/var/lib/mlexporter")}
    with pod.running() as process:
        end = time.monotonic() + SECONDS
        while not pod.probe("startupProbe"):
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        if os.geteuid() == 0:
            assert f"Uid:\t{pod.user}\t" in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        assert pod.probe("readinessProbe")
        assert pod.probe("livenessProbe")

        # `helm test`, with what DNS and the service would do
        (test,) = pod.test["spec"]["containers"]
        assert test["command"][0] == "python"
        command = [sys.executable, *test["command"][1:]]
        command[-3:-1] = ["127.0.0.1", str(pod.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr

        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said
    assert (pod.places["/var/lib/mlexporter"] / "state.bin").exists(), said
    assert list(pod.places["/tmp"].iterdir()) == []
    assert {path: pod.places[path].stat().st_mtime_ns for path in mounted} == {
        p: s.st_mtime_ns for p, s in mounted.items()
    }
    if case == "config":
        assert "level=warning" not in said


def test_helm_test_fails_where_nobody_listens() -> None:
    (test,) = kinds(render())["Pod"][0]["spec"]["containers"]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        command = [sys.executable, *test["command"][1:]]
        command[-3:-1] = ["127.0.0.1", str(bound.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode != 0
    assert "refused" in done.stderr
