"""What the join costs: ingest with it against the same requests without it, labels by id, a scrape with performance."""

import json
import subprocess
import tempfile
import time
import urllib.request
from typing import Any

import msgspec
import numpy as np

from benchmarks.compute import baseline_of
from benchmarks.harness import Report, medians
from benchmarks.serving import CONNECTIONS, Exporter, exporter
from mlexporter.baseline import Baseline, sealed
from mlexporter.columns import learn_column
from mlexporter.config import Config, LimitsConfig, ModelConfig
from mlexporter.exposition import Exposition
from mlexporter.pending.records import Direct, Joined
from mlexporter.profiling import OutcomeProfiler
from mlexporter.samples import Role
from mlexporter.store import Store

# of the same code one exporter is up to 3 % faster than the next: where its memory happens to lie
_EXPORTERS = 3
_ROUNDS = 2
_SECONDS = 3
# longer than predictions wait for company
_SETTLED_SECONDS = 1.2
# wrk asks for each request; an id that is in none before it goes where the mark stands
# ids are decoded, and go nowhere
_NO_JOIN = "from mlexporter.pending.joiner import Joiner\nJoiner.offer = lambda *_: None"
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local parts = {%s}
local rows = %d
local number = 0
request = function()
  local body = parts
  if rows > 0 then
    local ids = {}
    for i = 1, rows do
      number = number + 1
      ids[i] = '"r' .. number .. '-%s"'
    end
    body = {parts[1], table.concat(ids, ","), parts[2]}
  end
  return wrk.format(nil, nil, nil, table.concat(body))
end
"""


def judged_baseline(columns: int) -> Baseline:
    """A baseline of normal columns and of a binary model's scores, with outcomes."""
    plain = baseline_of(columns)
    rng = np.random.default_rng(2)
    scores = rng.random(plain.rows)
    labels = (rng.random(plain.rows) < scores).astype(int)
    profiler = OutcomeProfiler("binary", ("0", "1"), None)
    profiler.add(scores.tolist(), labels.tolist())
    outcomes = profiler.result()
    assert outcomes is not None
    prediction = learn_column(Role.PREDICTION, "prediction", scores.tolist(), "numeric")
    return sealed(msgspec.structs.replace(plain, columns=(*plain.columns, prediction), outcomes=outcomes))


def _parts(columns: int, rows: int, *, ids: bool) -> list[str]:
    """A request, cut where its ids go; whole where it has none."""
    rng = np.random.default_rng(4)
    mark = "@ids@"
    features = {f"feature_{i:03d}": rng.normal(size=rows).round(4).tolist() for i in range(columns)}
    document: dict[str, Any] = {
        "model": "bench",
        "version": "1",
        "columns": {"features": features, "prediction": rng.random(rows).round(4).tolist()},
    }
    if rows == 1:
        one = {name: values[0] for name, values in features.items()}
        document = {"model": "bench", "version": "1", "features": one, "prediction": 0.3571}
        text = json.dumps({**document, "id": mark} if ids else document, separators=(",", ":"))
        return text.split(f'"{mark}"') if ids else [text]
    if ids:
        document["columns"]["id"] = [mark]
    return json.dumps(document, separators=(",", ":")).split(f'"{mark}"')


def _drive(running: Exporter, parts: list[str], rows: int, connections: int, salt: str) -> None:
    quoted = ",".join(f"[==[{part}]==]" for part in parts)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (quoted, rows if len(parts) > 1 else 0, salt))
        script.flush()
        url = f"http://127.0.0.1:{running.port}/v1/samples"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{_SECONDS}s", "-s", script.name, url]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ingest(report: Report) -> None:
    """In turn, each with exporters of its own, as the store fills up."""
    report.heading("Ingest with the join, in a file, against the very same requests without it (20 columns)")
    profile = judged_baseline(20)
    for what, rows, connections in (
        ("one sample a request", 1, CONNECTIONS),
        ("20 rows a request", 20, CONNECTIONS),
        ("1,000 rows a request, column form", 1000, 4),
    ):
        per_cpu: dict[str, list[float]] = {name: [] for name in ("join", "no join", "no ids")}
        per_second: dict[str, list[float]] = {name: [] for name in per_cpu}
        dropped = 0.0
        for _ in range(_EXPORTERS):
            with (
                exporter(profile, stores=True) as joining,
                exporter(profile, stores=True, prelude=_NO_JOIN) as parting,
                exporter(profile, stores=True) as without_ids,
            ):
                exporters = {"join": joining, "no join": parting, "no ids": without_ids}
                for turn in range(_ROUNDS + 1):
                    for name, running in exporters.items():
                        before, cpu, start = running.samples(), running.cpu_seconds(), time.perf_counter()
                        _drive(running, _parts(20, rows, ids=name != "no ids"), rows, connections, f"{turn}")
                        counted, elapsed = running.samples() - before, time.perf_counter() - start
                        _settle(running)
                        if turn:  # the first round warms up
                            per_cpu[name].append(counted / (running.cpu_seconds() - cpu))
                            per_second[name].append(counted / elapsed)
                dropped += _value(joining, "mlexporter_pending_dropped_total")
        for unit, rates in (("second", per_second), ("processor second", per_cpu)):
            # of neighbours in time: the machine is not always as fast
            ratio = np.median(np.array(rates["join"]) / np.array(rates["no join"]))
            medians_of = {name: np.median(rounds) for name, rounds in rates.items()}
            report.add(
                f"{what}: samples a {unit} with the join",
                f"{ratio:.0%}",
                "80 %",
                f"{medians_of['join']:,.0f} of {medians_of['no join']:,.0f}; without ids {medians_of['no ids']:,.0f}",
            )
        report.add(f"{what}: predictions that were not taken", f"{dropped:,.0f}", "0", "")


def _value(running: Exporter, name: str) -> float:
    lines = running.get("/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def _settle(running: Exporter) -> None:
    """Wait until what was offered is written, for its cost belongs to the round; a page a second costs it alike."""
    end = time.monotonic() + 30
    time.sleep(_SETTLED_SECONDS)
    while _value(running, "mlexporter_pending_queue_rows") and time.monotonic() < end:
        time.sleep(_SETTLED_SECONDS)


def labels(report: Report, waiting: int = 200_000, size: int = 5000) -> None:
    """Labels by id, in random order, of predictions that wait in a file."""
    report.heading(f"Labels by id of {waiting:,} predictions that wait, {size:,} a request, over HTTP")
    with exporter(judged_baseline(1), stores=True) as running:
        order = np.random.default_rng(3).permutation(waiting).tolist()
        for begin in range(0, waiting, size):
            ids = [f"r{i}" for i in range(begin, begin + size)]
            columns = {"id": ids, "features": {"feature_000": [0.5] * size}, "prediction": [0.25] * size}
            _post(running, "/v1/samples", {"columns": columns})
        _settle(running)
        cpu, start = running.cpu_seconds(), time.perf_counter()
        for begin in range(0, waiting, size):
            part = order[begin : begin + size]
            _post(running, "/v1/labels", {"columns": {"id": [f"r{i}" for i in part], "label": [i % 2 for i in part]}})
        elapsed = time.perf_counter() - start
        used = running.cpu_seconds() - cpu
        assert _value(running, "mlexporter_labels_total") == waiting
        report.add("labels", f"{waiting / elapsed:,.0f} a second", "", f"{waiting / used:,.0f} a processor second")


def _post(running: Exporter, path: str, document: object) -> None:
    url, headers = f"http://127.0.0.1:{running.port}{path}", {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response)["rejected"] == 0


def page(report: Report) -> None:
    """A page with everything that labels show, against the same model without them."""
    report.heading("A page with two windows' performance, estimates and gaps (20 columns)")
    plain, judged = (_store(profile) for profile in (baseline_of(20), judged_baseline(20)))
    rng = np.random.default_rng(6)
    scores = rng.random(5000)
    direct = Direct("bench", "1", scores.tolist(), (rng.random(5000) < scores).astype(int).tolist(), 1000.0)
    judged.feedback.install(judged.feedback.tally(Joined(), [direct]))
    without, with_labels = Exposition(), Exposition()
    times = medians(
        {
            "without": lambda: without.page(plain.snapshot()),
            "with": lambda: with_labels.page(judged.snapshot()),
        }
    )
    lines = sum(not line.startswith(b"#") for line in with_labels.page(judged.snapshot()).splitlines())
    without_outcomes = f"{times['without'] * 1e3:.2f} ms without outcomes"
    report.add(f"page of {lines:,} series", f"{times['with'] * 1e3:.2f} ms", "", without_outcomes)


def _store(profile: Baseline) -> Store:
    config = Config(models=(ModelConfig(name="bench", version="1"),), limits=LimitsConfig(max_series=1_000_000))
    return Store(config, {("bench", "1"): profile}, lambda: 1000.0)


def run(report: Report) -> None:
    """All of them."""
    ingest(report)
    labels(report)
    page(report)
