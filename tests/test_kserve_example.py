"""examples/kubernetes/kserve: events of KServe's logger, through the translator, into a real exporter.

Headers and bodies are those that KServe documents for its logger and its V1 and V2 protocols.
"""

import gzip
import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KSERVE = Path(__file__).parents[1] / "examples" / "kubernetes" / "kserve"
spec = importlib.util.spec_from_file_location("translate", KSERVE / "translate.py")
assert spec is not None
assert spec.loader is not None
translate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(translate)


def samples(request: object, response: object, columns: tuple[str, ...] = ()) -> Any:
    asked = translate.Event("e-1", "request", "iris", json.dumps(request).encode())
    answered = translate.Event("e-1", "response", "iris", json.dumps(response).encode())
    return translate.samples(asked, answered, columns)


def test_v1_lists_get_the_names_that_were_given() -> None:
    found = samples({"instances": [[1, 2], [3, 4]]}, {"predictions": [0, 1]}, ("a", "b"))
    assert found == [
        {"model": "iris", "id": "e-1-0", "features": {"a": 1, "b": 2}, "prediction": 0},
        {"model": "iris", "id": "e-1-1", "features": {"a": 3, "b": 4}, "prediction": 1},
    ]


def test_v1_objects_have_names_and_lists_without_names_are_numbered() -> None:
    (named,) = samples({"instances": [{"a": 1}]}, {"predictions": [[0.3, 0.7]]})
    assert named == {"model": "iris", "id": "e-1", "features": {"a": 1}, "prediction": {"0": 0.3, "1": 0.7}}
    (numbered,) = samples({"instances": [[1, 2]]}, {"predictions": [[0.5]]})
    assert (numbered["features"], numbered["prediction"]) == ({"feature-0": 1, "feature-1": 2}, 0.5)


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_v2_tensors_flat_and_nested(data: list[Any]) -> None:
    request = {
        "inputs": [
            {"name": "x", "shape": [2, 2], "datatype": "INT32", "data": data},
            {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["pro", "free"]},
        ]
    }
    response = {
        "model_name": "iris",
        "model_version": "7",
        "outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [0.1, 0.9]}],
    }
    first, second = samples(request, response)
    assert first["features"] == {"x-0": 1, "x-1": 2, "plan": "pro"}
    assert second["features"] == {"x-0": 3, "x-1": 4, "plan": "free"}
    assert [(one["version"], one["prediction"]) for one in (first, second)] == [("7", 0.1), ("7", 0.9)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(port: int, *command: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()


def post(port: int, kind: str, key: str, body: bytes) -> int:
    headers = {
        "Ce-Specversion": "1.0",
        "Ce-Id": key,
        "Ce-Type": f"org.kubeflow.serving.inference.{kind}",
        "Ce-Source": "http://localhost:9081/",
        "Ce-Inferenceservicename": "iris",
        "Ce-Namespace": "shop",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def test_events_become_samples_of_a_real_exporter() -> None:
    own, exporters = free_port(), free_port()
    url = f"http://127.0.0.1:{exporters}"
    script = (str(KSERVE / "translate.py"), "--address=127.0.0.1", f"--port={own}", f"--exporter={url}/v1/samples")
    with (
        running(exporters, "-m", "mlexporter", "serve", f"--web.listen-address=127.0.0.1:{exporters}"),
        running(own, *script, "--columns=a,b"),
    ):
        asked = json.dumps({"instances": [[1, 2], [3, 4]]}).encode()
        answered = json.dumps({"predictions": [0, 1]}).encode()
        # in either order, compressed without saying so, not JSON, and a request that has no response
        events = [
            ("request", "e-1", asked), ("response", "e-1", answered),
            ("response", "e-2", gzip.compress(answered)), ("request", "e-2", gzip.compress(asked)),
            ("request", "e-3", b"not JSON"), ("response", "e-3", answered),
            ("request", "e-4", asked),
            ("request", "e-5", b"\x1f\x8bnot gzip"), ("response", "e-5", answered),
            ("request", "e-6", asked), ("response", "e-6", answered),
        ]  # fmt: skip
        assert {post(own, *event) for event in events} == {200}
        wanted = 'mlexporter_samples_total{model="iris",version="unversioned"} 6.0'
        end, page = time.monotonic() + 30, ""
        while wanted not in page and time.monotonic() < end:
            time.sleep(0.1)
            page = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
        assert wanted in page


def test_exporter_itself_refuses_the_events_as_the_documentation_says() -> None:
    port = free_port()
    with running(port, "-m", "mlexporter", "serve", f"--web.listen-address=127.0.0.1:{port}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(port, "request", "e-1", b'{"instances": [[1, 2]]}')
        assert refused.value.code == 405
        refused.value.close()
