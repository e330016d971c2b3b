"""Who is paged: a webhook of Alertmanager's, and what its notifications say."""

import json
import queue
import threading
from collections.abc import Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

import click

from mlexporter.demo.traffic import DRIFTED
from mlexporter.terminal import printable

LABELS = ("alertname", "severity", "job", "model", "version")
ANNOTATIONS = ("summary", "description", "runbook_url", "dashboard_url")
COLOURS = {"critical": "red", "warning": "yellow"}

Notification = Mapping[str, Any]


class Receiver(ThreadingHTTPServer):
    """A webhook of Alertmanager's; its notifications wait in `notifications`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Webhook)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        self.notifications: queue.SimpleQueue[Notification] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.1,), name="receiver", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()


class _Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        try:
            content = json.loads(self.rfile.read(int(length))) if length.isdecimal() else None
        except ValueError:
            content = None
        if isinstance(content, dict) and isinstance(content.get("alerts"), list):
            cast(Receiver, self.server).notifications.put(content)
            self.send_response(200)
        else:
            self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Nothing: the notification itself is printed."""


def told(notification: Notification) -> list[str]:
    """A notification as lines for a terminal, the alerts that matter most first."""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    group = " / ".join(notification.get("groupLabels", {}).values())
    alerts = notification["alerts"]
    count = f"{len(alerts)} alert{'' if len(alerts) == 1 else 's'}"
    lines = [click.style(printable(f"{now}  {notification['status'].upper()}  {group}: {count}"), bold=True)]
    for alert in sorted(alerts, key=lambda alert: (alert["status"], alert["labels"].get("severity", ""))):
        labels, notes = alert["labels"], alert["annotations"]
        severity = "resolved" if alert["status"] == "resolved" else labels.get("severity", "")
        numbers = [f"{name} {notes[name]}" for name in ("evidence", "psi") if name in notes]
        lines += [
            f"  {click.style(printable(f'{severity:<9}'), fg=COLOURS.get(severity, 'green'))}"
            f" {printable(labels['alertname'])}: {printable(notes.get('summary', ''))}",
            *(f"            {printable(text)}" for text in (", ".join(numbers),) if text),
            f"            {printable(notes.get('runbook_url', ''))}",
        ]
    return lines


def problems(page: Notification) -> list[str]:
    """What is wrong with the first page: empty fields, and columns that do not drift."""
    found = []
    drifting = DRIFTED | {"prediction"}  # which moves as a consequence
    for alert in page["alerts"]:
        labels, notes = alert["labels"], alert["annotations"]
        name = labels.get("alertname", "an alert")
        found += [f"{name} has no label {label}" for label in LABELS if not labels.get(label)]
        found += [f"{name} has no {note}" for note in ANNOTATIONS if not notes.get(note)]
        found += [f"{name} has an empty {note}" for note in notes if note not in ANNOTATIONS and not notes[note]]
        found += [f"{name} has no {field}" for field in ("startsAt", "generatorURL") if not alert.get(field)]
        if labels.get("column", "prediction") not in drifting:
            found.append(f"{name} is about {labels['column']}, which does not drift")
    if not any(alert["labels"].get("column") in DRIFTED for alert in page["alerts"]):
        found.append(f"the page names none of {', '.join(sorted(DRIFTED))}")
    return found
