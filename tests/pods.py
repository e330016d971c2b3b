"""A rendered pod that runs here without a container engine: its mounts are folders, all else is read-only."""

import base64
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from charts import Object, kinds

SECONDS = 60
READ_ONLY = 'while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done; shift; mount -o remount,ro,bind /; exec "$@"'
"""Shell of a mount namespace: the folders before `--` stay as they are, then the rest of the root is read-only."""


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
    """What a command begins with to run as this user.

    A Python in root's own home can be read by nobody else: then the command may read everything.
    """
    folders = Path(sys.executable).resolve().parents
    hidden = not all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"] if hidden else []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *reading]


@cache
def mounts_allowed() -> bool:
    """Whether a root that is read-only can be made here: by root, unless it is one of a container with fewer rights."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def answers(url: str) -> bool:
    """What the kubelet does: a status from 200 to 399, any certificate will do."""
    try:
        with urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
            return 200 <= int(answer.status) < 400
    except OSError:
        return False


class Pod:
    """A rendered pod, of whose containers the exporter runs.

    Where the tests are root's it runs as the user that the pod names, and can write nothing but the mounts that are not
    read-only. Else it runs as the user of the tests.

    Args:
        rendered: Manifests with one Deployment or StatefulSet.
        root: An empty folder, in which the mounts are.
        given: Files by ConfigMap or Secret that the manifests only name.
    """

    def __init__(self, rendered: str, root: Path, given: Mapping[str, Mapping[str, bytes]]) -> None:
        found = kinds(rendered)
        (workload,) = found.get("Deployment", []) + found.get("StatefulSet", [])
        spec = workload["spec"]["template"]["spec"]
        containers = [*spec.get("initContainers", ()), *spec["containers"]]
        (self.container,) = [one for one in containers if one["name"] == "mlexporter"]
        (self.named_port,) = self.container["ports"]
        context = {**spec["securityContext"], **self.container["securityContext"]}
        assert context["readOnlyRootFilesystem"] is True
        self.user = context["runAsUser"] if os.geteuid() == 0 else os.geteuid()
        self.places = {mount["mountPath"]: root / mount["mountPath"][1:] for mount in self.container["volumeMounts"]}
        files = {one["metadata"]["name"]: contents(one) for one in found.get("ConfigMap", []) + found.get("Secret", [])}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        volumes |= {claim["metadata"]["name"]: {} for claim in workload["spec"].get("volumeClaimTemplates", ())}
        for mount in self.container["volumeMounts"]:
            place = self.places[mount["mountPath"]]
            place.mkdir(parents=True)
            for name in sources(volumes[mount["name"]]):
                for file, content in {**files, **given}[name].items():
                    (place / file).write_bytes(self.moved(content.decode()).encode())
            if os.geteuid() == 0 and not mount.get("readOnly"):
                os.chown(place, self.user, self.user)
        self.writable = [self.places[m["mountPath"]] for m in self.container["volumeMounts"] if not m.get("readOnly")]
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
        moved = [self.moved(argument) for argument in self.container["args"]]
        listen = f"--web.listen-address=:{self.named_port['containerPort']}"
        assert listen in moved
        return [f"--web.listen-address=127.0.0.1:{self.port}" if one == listen else one for one in moved]

    def confined(self, *command: str) -> list[str]:
        """A command as the container would run it: as its user, and on a read-only root where one can be made."""
        if os.geteuid() != 0:
            return list(command)
        if not mounts_allowed():
            return [*as_user(self.user), *command]
        shell = ["unshare", "--mount", shutil.which("sh") or "sh", "-ec", READ_ONLY, "sh"]
        return [*shell, *map(str, self.writable), "--", *as_user(self.user), *command]

    def probe(self, name: str) -> bool:
        """Whether a probe of the container succeeds."""
        probe = self.container[name]
        (handler,) = probe.keys() & {"tcpSocket", "httpGet"}
        assert probe[handler]["port"] == self.named_port["name"]
        if handler == "httpGet":
            scheme = probe["httpGet"].get("scheme", "HTTP").lower()
            return answers(f"{scheme}://127.0.0.1:{self.port}{probe['httpGet']['path']}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """The container, from when its startup probe has succeeded."""
        environment = {one["name"]: one["value"] for one in self.container.get("env", ())}
        process = subprocess.Popen(
            self.confined(sys.executable, "-P", "-m", "mlexporter", *self.arguments),
            cwd="/",
            env={**os.environ, "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            end = time.monotonic() + SECONDS
            while not self.probe("startupProbe"):
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < end
                time.sleep(0.1)
            if os.geteuid() == 0:
                assert f"Uid:\t{self.user}\t" in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            yield process
        finally:
            process.kill()
            process.communicate()


def reachable(folder: Path) -> Path:
    """A folder of pytest, made one that the container's user can get to; of a process of several it is one deeper."""
    for one in (folder, *list(folder.parents)[:3]):
        if not one.stat().st_mode & stat.S_IXOTH:
            one.chmod(0o711)
    return folder
