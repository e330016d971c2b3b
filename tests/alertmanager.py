"""Notifications in the form that Alertmanager's documentation and its own programs give them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LABELS = {
    "alertname": "MLExporterPredictionDrift", "severity": "critical", "namespace": "prod", "job": "mlexporter",
    "model": "churn", "version": "7", "role": "prediction", "column": "prediction",
}  # fmt: skip
GROUP_KEY = '{}/{severity="critical"}:{alertname="MLExporterPredictionDrift", model="churn"}'


def alert(status: str = "firing", **labels: str) -> dict[str, Any]:
    """An alert, as version 0.25 writes it."""
    return {
        "status": status,
        "labels": {**LABELS, **labels},
        "annotations": {"summary": "Predictions of churn drift", "runbook_url": "https://example.com/runbook"},
        "startsAt": "2026-02-06T13:08:45.828Z",
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2026-02-06T14:00:00Z",
        "generatorURL": "http://prometheus.example.org:9090/graph?g0.expr=x+%3E+0\\u0026g0.tab=1",
        "fingerprint": "1a30ba71cca2921f",
    }


def notification(*alerts: Mapping[str, Any], key: str = GROUP_KEY, **changes: Any) -> dict[str, Any]:
    """The body of a webhook; it fires if one of its alerts does."""
    given = alerts or (alert(),)
    return {
        "receiver": "mlexporter-trigger",
        "status": "firing" if any(each["status"] == "firing" for each in given) else "resolved",
        "alerts": list(given),
        "groupLabels": {"alertname": "MLExporterPredictionDrift", "model": "churn"},
        "commonLabels": dict(LABELS),
        "commonAnnotations": {"summary": "Predictions of churn drift"},
        "externalURL": "http://alertmanager.example.org:9093",
        "version": "4",
        "groupKey": key,
        "truncatedAlerts": 0,
        **changes,
    }


def body(*alerts: Mapping[str, Any], key: str = GROUP_KEY, **changes: Any) -> bytes:
    """The same as bytes."""
    return json.dumps(notification(*alerts, key=key, **changes)).encode()


class Target:
    """A server that notes what it is asked, and answers what it is told; the last answer again and again."""

    def __init__(self, *answers: int | tuple[int, dict[str, str]]) -> None:
        self.answers = list(answers or (200,))
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.came = threading.Semaphore(0)
        self.url = ""

    def take(self, method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[int, dict[str, str]]:
        self.requests.append((method, path, headers, content))
        self.came.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, tuple) else (answer, {})


@contextmanager
def serving(target: Target) -> Iterator[Target]:
    """The target, listening on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            code, more = target.take(self.command, self.path, headers, content)
            if code == 0:  # hang up without a word
                return
            self.send_response(code)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    target.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield target
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
