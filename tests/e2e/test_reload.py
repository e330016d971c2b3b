"""The real exporter, whose configuration changes while it runs."""

import json
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from conftest import baseline, numeric
from e2e.conftest import Exporter, Start, poll, sum_of
from mlexporter import baseline as baseline_files

LIFECYCLE = "--web.enable-lifecycle"
NORMAL = np.random.default_rng(1).normal(0, 1, 5000)
OLD = baseline(numeric("x", np.quantile(NORMAL, np.linspace(0, 1, 11)).tolist(), NORMAL))
NEW = baseline(numeric("x", np.quantile(NORMAL + 3, np.linspace(0, 1, 21)).tolist(), NORMAL + 3))
MODELS = [{"name": "m", "version": "1", "baseline": "1.json"}, {"name": "m", "version": "2", "baseline": "2.json"}]
SUCCESSFUL = "mlexporter_config_last_reload_successful"
TIMESTAMP = "mlexporter_config_last_reload_success_timestamp_seconds"
RELOADED = "configuration reloaded"


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def files(folder: Path) -> Path:
    """The baselines of both versions; the configuration's name is that which `start` gives it."""
    for version in ("1", "2"):
        (folder / f"{version}.json").write_bytes(baseline_files.encode(OLD))
    return folder / "mlexporter-0.yml"


def rows_of(version: str, rows: int, seed: int = 0) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(0, 1, rows).tolist()
    return {"model": "m", "version": version, "columns": {"features": {"x": x}}}


def reload(exporter: Exporter) -> requests.Response:
    return exporter.session.post(f"{exporter.url}/-/reload", timeout=20)


def test_reload_over_http_is_off_by_default(start_exporter: Start, tmp_path: Path) -> None:
    config = files(tmp_path)
    exporter = start_exporter(config={"models": MODELS})
    write(config, {"models": MODELS, "windows": ["6h"]})
    answer = reload(exporter)
    assert (answer.status_code, answer.text) == (403, "Lifecycle API is not enabled.\n")
    assert RELOADED not in exporter.log()
    exporter.send_signal(signal.SIGHUP)
    poll(lambda: RELOADED in exporter.log(), 10, exporter.log)
    exporter.post(rows_of("1", 1000))
    assert exporter.total("mlexporter_column_window_samples", version="1", window="6h") == 1000


@pytest.mark.parametrize("server", ["granian", "waitress"])
def test_a_bad_configuration_changes_nothing_and_the_next_good_one_holds(
    start_exporter: Start, tmp_path: Path, server: str
) -> None:
    pytest.importorskip(server, reason=server)
    config = files(tmp_path)
    exporter = start_exporter(LIFECYCLE, f"--web.server={server}", config={"models": MODELS})
    exporter.post(rows_of("1", 1000))
    before = exporter.scrape()
    config.write_text("models:\n  - name: m\n    baseline: none.json\nwindwos: [1h]\n")
    answer = reload(exporter)
    assert answer.status_code == 500
    assert answer.text == f"failed to reload config: {config}:4:1: windwos: unknown key; did you mean windows?\n"
    config.write_text("models:\n  - name: m\n    baseline: none.json\n")
    answer = reload(exporter)
    assert answer.status_code == 500
    assert "models[0].baseline: " in answer.text
    assert "none.json" in answer.text
    exporter.send_signal(signal.SIGHUP)
    poll(lambda: exporter.log().count("the new configuration is refused") == 3, 10, exporter.log)
    after = exporter.scrape()
    assert sum_of(after, SUCCESSFUL) == 0
    assert sum_of(after, TIMESTAMP) == sum_of(before, TIMESTAMP)
    own = {key: value for key, value in before.items() if ("model", "m") in key[1]}
    assert {key: value for key, value in after.items() if ("model", "m") in key[1]} == own

    write(config, {"models": MODELS[:1], "windows": ["1h"]})
    answer = reload(exporter)
    assert (answer.status_code, answer.text) == (200, "")
    good = exporter.scrape()
    assert sum_of(good, SUCCESSFUL) == 1
    assert sum_of(good, TIMESTAMP) > sum_of(before, TIMESTAMP)
    assert sum_of(good, "mlexporter_samples_total", version="1") == 1000
    assert not any(("version", "2") in labels or ("window", "24h") in labels for _, labels in good)
    code, seconds = exporter.stop()
    assert (code, seconds < 5) == (0, True)


def test_a_new_baseline_under_load(start_exporter: Start, tmp_path: Path) -> None:
    """Every sample that was accepted counts once; the version that nobody changes counts all of them in its bins, and
    never less than before; the other one begins anew with each baseline.
    """
    files(tmp_path)
    exporter = start_exporter(LIFECYCLE, config={"models": MODELS})
    accepted: Counter[str] = Counter()
    problems: list[object] = []
    lock, stop = threading.Lock(), threading.Event()

    def push(seed: int) -> None:
        session = requests.Session()
        session.trust_env = False
        for i in range(80):
            version = "12"[i % 2]
            answer = session.post(f"{exporter.url}/v1/samples", json=rows_of(version, 200 + i, seed), timeout=20)
            with lock:
                accepted[version] += answer.json()["accepted"]
                problems.extend([answer.text] if answer.status_code != 200 else [])
        session.close()

    seen: Counter[str] = Counter()

    def scrape() -> None:
        while not stop.is_set():
            page = exporter.scrape()
            for version in ("1", "2"):
                total = sum_of(page, "mlexporter_samples_total", version=version)
                problems.extend([("samples", version)] if total < seen[version] else [])
                seen[version] = int(total)
            bins = sum_of(page, "mlexporter_column_bin_total", version="2")
            problems.extend(["bins"] if bins < seen["bins"] or bins > total else [])
            seen["bins"] = int(bins)

    threads = [threading.Thread(target=push, args=(seed,)) for seed in range(4)]
    scraping = threading.Thread(target=scrape)
    for thread in (*threads, scraping):
        thread.start()
    reloads = 0
    session = requests.Session()
    session.trust_env = False
    while any(thread.is_alive() for thread in threads):
        (tmp_path / "1.json").write_bytes(baseline_files.encode((NEW, OLD)[reloads % 2]))
        answer = session.post(f"{exporter.url}/-/reload", timeout=20)
        assert answer.status_code == 200, answer.text
        reloads += 1
        if random.random() < 0.3:
            exporter.send_signal(signal.SIGHUP)
    stop.set()
    scraping.join()
    session.close()
    assert problems == []
    assert reloads > 2
    (tmp_path / "1.json").write_bytes(baseline_files.encode(OLD))
    reload(exporter)
    page = exporter.scrape()
    for version in ("1", "2"):
        assert sum_of(page, "mlexporter_samples_total", version=version) == accepted[version]
    assert sum_of(page, "mlexporter_column_bin_total", version="2") == accepted["2"]
    (tmp_path / "1.json").write_bytes(baseline_files.encode(NEW))
    reload(exporter)
    page = exporter.scrape()
    assert sum_of(page, "mlexporter_column_bin_total", version="1") == 0
    exporter.post(rows_of("1", 500))
    assert exporter.total("mlexporter_column_bin_total", version="1") == 500


def test_many_reloads_at_once(start_exporter: Start, tmp_path: Path) -> None:
    files(tmp_path)
    exporter = start_exporter(LIFECYCLE, config={"models": MODELS})
    codes: Counter[int] = Counter()

    def ask() -> None:
        for _ in range(10):
            answer = requests.post(f"{exporter.url}/-/reload", timeout=20)
            codes[answer.status_code] += 1
            assert answer.status_code == 200 or answer.headers["Retry-After"] == "1"

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(codes.values()) == 80
    assert codes[200] > 0
    assert set(codes) <= {200, 503}
    assert exporter.get("/-/ready").status_code == 200
    assert exporter.total(SUCCESSFUL) == 1
