"""A real Prometheus with a history, for what is asked of one."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Report
from mlexporter.demo.processes import Program, StopSignals
from mlexporter.demo.wire import Address


def is_installed(report: Report) -> bool:
    """Whether Prometheus is there; what is missing is reported."""
    missing = [program for program in ("prometheus", "promtool") if shutil.which(program) is None]
    for program in missing:
        report.add(f"{program} is not installed", "-")
    return not missing


def write_blocks(folder: Path, history: Iterable[str]) -> None:
    """Make blocks in `folder`/data from lines of OpenMetrics."""
    text = folder / "history.txt"
    with text.open("w") as file:
        file.writelines(history)
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", text.name, "data"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    text.unlink()


@contextmanager
def running(folder: Path, config: object) -> Iterator[str]:
    """Run Prometheus with the blocks in `folder`/data; gives its address."""
    (folder / "prometheus.json").write_text(json.dumps(config))  # which is YAML too
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())
    command = [
        "prometheus", f"--config.file={folder}/prometheus.json", f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=30d", f"--web.listen-address={address.host}:{address.port}", "--log.level=error",
    ]  # fmt: skip
    with Program("prometheus", command, address, folder / "prometheus.log", StopSignals()):
        yield address.url
