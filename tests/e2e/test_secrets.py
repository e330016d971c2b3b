"""What clients send and operators keep secret stands in no log, on no page and in no error, whatever breaks."""

import base64
import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from conftest import needs
from e2e.conftest import Exporter, Start, free_port, poll
from e2e.feedback import built, config_of, model

SECONDS = 30.0

# Each of a client's marks is told apart, so that a failure says what has leaked; and none is a part of another.
SENT = {
    "id": "ident-4929111122",
    "category": "catego-7730441",
    "text in a numeric column": "textin-6155093",
    "prediction": "predic-3381920",
    "label": "labelx-9024417",
    "error": "errorm-1180263 is no code, which would be a label",
    "query": "queryx-5540917",
    "path": "pathof-2093384",
    "broken body": "broken-8816402",
    "header": "header-6602915",
    "bearer token": "bearer-33019482-33019482",
    "password": "passwo-7741120",
    "user": "userof-2291045",
    "media type": "mediat-9938105",
}
NUMBER = 739251846.0625
SERVER_TOKEN = "server-token-5520187346"
FILE_TOKEN = "token-of-a-file-8812640"
STORE_PASSWORD = "store-password-66120"
PASSWORD = "operators-password-17"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
KEPT = {
    "token": SERVER_TOKEN, "token in a file": FILE_TOKEN, "password of the store": STORE_PASSWORD,
    "password": PASSWORD, "hash": HASH[7:],
}  # fmt: skip
AUTHORIZED = {"Authorization": f"Bearer {SERVER_TOKEN}"}


def marks_in(text: str) -> list[str]:
    """Names of the marks that a text has."""
    marks = SENT | KEPT | {"number": str(NUMBER).partition(".")[0], "number in E": "7.3925"}
    encoded = {
        f"{name} in base64": base64.b64encode(value.encode()).decode().rstrip("=")[:-1] for name, value in marks.items()
    }
    return [name for name, value in (marks | encoded).items() if value in text]


def test_marks_are_found() -> None:
    assert marks_in(f"x {SENT['id']} y {NUMBER}") == ["id", "number"]
    assert marks_in(base64.b64encode(SENT["id"].encode()).decode()) == ["id in base64"]
    assert marks_in(HASH) == ["hash"]
    assert marks_in("a log") == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis with another password than the exporter has: the port, and its process."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "another"]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield f"redis://exporter:{STORE_PASSWORD}@127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.wait(10)


def configured(folder: Path, **more: Any) -> dict[str, Any]:
    """A model with a numeric and a categorical column; the category of the mark is one that nobody expects."""
    rows = [
        {
            "x": number % 10,
            "plan": "free" if number % 3 else "pro",
            "prediction": (number % 10) / 10,
            "label": number % 2,
        }
        for number in range(400)
    ]
    return config_of(model("churn", built(folder, "churn", rows)), **more)


def web_config(folder: Path, **more: Any) -> None:
    (folder / "token").write_text(FILE_TOKEN)
    both = ["push", "scrape"]
    tokens = [
        {"name": "all", "token": SERVER_TOKEN, "permissions": both},
        {"name": "file", "token_file": "token", "permissions": both},
    ]
    (folder / "web.yml").write_text(json.dumps({"basic_auth_users": {"ops": HASH}, "bearer_tokens": tokens} | more))


def push_marks(exporter: Exporter) -> None:
    """Samples and labels, well-formed and not, with marks in each place where a client can put one."""
    row = {"x": NUMBER, "plan": SENT["category"]}
    good = {"id": SENT["id"], "features": row, "prediction": 0.3, "label": 1}
    exporter.session.headers.update(AUTHORIZED)
    assert exporter.post({"model": "churn", "samples": [good] * 3}).json()["accepted"] == 3
    odd: list[object] = [
        {**good, "features": {"x": SENT["text in a numeric column"], "plan": [SENT["category"]]}},
        {**good, "prediction": SENT["prediction"]}, {**good, "label": SENT["label"]}, {**good, "error": SENT["error"]},
        {**good, "prediction": {SENT["prediction"]: NUMBER}}, {**good, "id": [SENT["id"]]}, {**good, "label": NUMBER},
        {**good, "latency_seconds": SENT["text in a numeric column"]}, {**good, "id": SENT["id"] * 100}, SENT["id"],
        {"id": SENT["id"], "features": SENT["category"]}, {**good, "prediction": NUMBER},
    ]  # fmt: skip
    exporter.post({"model": "churn", "samples": odd})
    for one in odd:
        exporter.post({"model": "churn", "samples": [one]})
    exporter.post({"model": "churn", "columns": {"features": {"x": [NUMBER], "plan": [SENT["category"]] * 2}}})
    labels: list[dict[str, object]] = [
        {"id": SENT["id"], "label": 1}, {"id": f"{SENT['id']}-unknown", "label": SENT["label"]},
        {"id": SENT["id"], "label": NUMBER}, {"label": SENT["label"]}, {"id": {"a": SENT["id"]}, "label": [1]},
    ]  # fmt: skip
    exporter.label({"model": "churn", "labels": labels})
    for label in labels:
        exporter.label({"model": "churn", **label})
    break_bodies(exporter)


def break_bodies(exporter: Exporter) -> None:
    """Requests that cannot be read, and such as no application should see."""
    broken = SENT["broken body"]
    for path in ("/v1/samples", "/v1/labels"):
        for body in (
            f'{{"model": "churn", "samples": [{{"id": "{broken}", }}]}}', f'"{broken}', f"[{broken}]", broken,
            f'"{broken}"', f'{{"{broken}": {broken}}}', "{" * 2000 + broken, f'{{"samples": "{broken}"}}',
        ):  # fmt: skip
            exporter.post(body.encode(), path=path)
            exporter.post(gzip.compress(body.encode())[:-9], path=path, Content_Encoding="gzip")
            exporter.post(body.encode(), path=path, Content_Type=f"application/{SENT['media type']}")
            exporter.post(body.encode(), path=path, Content_Encoding=SENT["header"])
        exporter.post(f'{{"id": "{broken}"\n{broken}\n'.encode(), path=path, Content_Type="application/x-ndjson")
    exporter.get(f"/{SENT['path']}?{SENT['query']}={SENT['query']}", X_Trace=SENT["header"], Cookie=SENT["header"])
    exporter.get(f"/api/v1/models/{SENT['path']}/versions/1/drift?{SENT['query']}", Accept=SENT["header"])
    exporter.get(f"/metrics?{SENT['query']}", Accept=SENT["header"], Accept_Encoding=SENT["header"])
    for raw in (
        f"GET /{SENT['path']} HTTP/9.9\r\n{SENT['header']}\r\n\r\n", f"{SENT['header']}\r\n\r\n",
        f"POST /v1/samples HTTP/1.1\r\nHost: a\r\nContent-Length: {SENT['header']}\r\n\r\n{broken}",
        f"POST /v1/samples HTTP/1.1\r\nHost: a\r\n{AUTHORIZED['Authorization']}\r\nContent-Length: 99\r\n\r\n{broken}",
    ):  # fmt: skip
        with exporter.connect() as connection:
            connection.sendall(raw.encode())


def show_wrong_credentials(exporter: Exporter) -> None:
    for user, password in ((SENT["user"], SENT["password"]), ("ops", SENT["password"]), (PASSWORD, "")):
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        assert exporter.get("/metrics", Authorization=f"Basic {pair}").status_code == 401
    for wrong in (f"Bearer {SENT['bearer token']}", SENT["bearer token"], f"Basic {SENT['password']}"):
        assert exporter.get("/metrics", Authorization=wrong).status_code == 401
    assert exporter.session.get(f"{exporter.url}/-/ready", auth=("ops", PASSWORD), timeout=20).status_code == 200


def break_web_config(exporter: Exporter, folder: Path) -> None:
    """Have secrets stand where they may not."""
    good = (folder / "web.yml").read_text()
    failures = "mlexporter_web_config_reload_failures_total"
    breaks: list[str | dict[str, Any]] = [
        good[:-3], good.replace('"push"', f'"{SERVER_TOKEN}"'), good.replace(HASH, f"{HASH}x"),
        {"bearer_tokens": [SERVER_TOKEN], "basic_auth_users": {"ops": PASSWORD}, "rate_limit": FILE_TOKEN},
    ]  # fmt: skip
    for number, broken in enumerate(breaks, 1):
        (folder / "web.yml").write_text(broken if isinstance(broken, str) else json.dumps(broken))
        poll(lambda: exporter.total(failures) == number, SECONDS, exporter.log)  # noqa: B023
    (folder / "web.yml").write_text(good)
    poll(lambda: exporter.total("mlexporter_web_config_last_reload_successful") == 1, SECONDS, exporter.log)
    (folder / "token").write_text("short")
    poll(lambda: exporter.total(failures) == len(breaks) + 1, SECONDS, exporter.log)


def assert_nothing_shows(exporter: Exporter) -> None:
    """On no page, and not in the log."""
    for path in ("/metrics", "/", "/api/v1/status", "/api/v1/models/churn/versions/1/drift",
                 "/api/v1/models/churn/versions/1/baseline", "/nowhere", "/-/healthy", "/-/ready"):  # fmt: skip
        assert marks_in(exporter.get(path).text) == [], path
    openmetrics = exporter.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert marks_in(openmetrics.text) == []
    assert marks_in(exporter.log()) == []


@pytest.mark.parametrize(("server", "log_format"), [("granian", "logfmt"), ("waitress", "json")])
def test_nothing_that_was_sent_or_is_secret_shows(
    tmp_path: Path, start_exporter: Start, server: str, log_format: str
) -> None:
    web_config(tmp_path)
    exporter = start_exporter(
        "--log.level=debug", f"--log.format={log_format}", f"--web.server={server}", "--web.config.file=web.yml",
        "--storage.path=data", config=configured(tmp_path),
    )  # fmt: skip
    push_marks(exporter)
    show_wrong_credentials(exporter)
    exporter.session.headers.update(AUTHORIZED)
    assert exporter.total("mlexporter_samples_total") >= 3  # they were taken in, so they could show
    poll(lambda: exporter.total("mlexporter_labels_total") >= 1, SECONDS)
    break_web_config(exporter, tmp_path)
    assert_nothing_shows(exporter)
    assert "request refused" in exporter.log()  # the log is that of debug
    assert exporter.stop()[0] == 0
    assert marks_in(exporter.log()) == []
    (tmp_path / "data" / "pending.sqlite").write_bytes("\n".join(SENT.values()).encode())  # damaged, by marks
    (tmp_path / "data" / "pending.sqlite-wal").unlink(missing_ok=True)  # or it would be mended by this
    again = start_exporter(
        "--log.level=debug", "--web.config.file=web.yml", "--storage.path=data", config=configured(tmp_path), wait=False
    )
    assert again.process.wait(SECONDS) == 1  # its token file is still too short
    web_config(tmp_path)
    again = start_exporter(
        "--log.level=debug", "--web.config.file=web.yml", "--storage.path=data", config=configured(tmp_path)
    )
    push_marks(again)
    assert_nothing_shows(again)
    assert "set aside" in again.log()


@needs("redis-server")
def test_a_store_that_refuses_its_password_does_not_make_it_show(
    tmp_path: Path, start_exporter: Start, store: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, process = store
    web_config(tmp_path)
    exporter = start_exporter(
        "--log.level=debug", "--web.config.file=web.yml", config=configured(tmp_path, labels={"store": url})
    )
    push_marks(exporter)
    poll(lambda: exporter.total("mlexporter_pending_store_errors_total") >= 1, SECONDS, exporter.log)
    process.kill()
    push_marks(exporter)
    assert_nothing_shows(exporter)
    assert "predictions and labels wait in memory" in exporter.log()


def test_a_url_of_a_store_that_is_none_does_not_show(start_exporter: Start) -> None:
    for number, url in enumerate((f"redis://:{STORE_PASSWORD}@[", f"https://:{STORE_PASSWORD}@a/", STORE_PASSWORD)):
        exporter = start_exporter(config={"labels": {"store": url}}, wait=False)
        assert exporter.process.wait(SECONDS) == 1
        assert "labels.store" in exporter.log(), number
        assert marks_in(exporter.log()) == []
