"""What TLS and authentication cost: requests per second of the exporter's processor time, with and without, in turn."""

import contextlib
import json
import shutil
import ssl
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import trustme

from benchmarks.compute import baseline_of
from benchmarks.harness import Report
from benchmarks.serving import Exporter, exporter

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 16
TOKEN = "0123456789abcdef"
HEADERS = {
    "none": "",
    "token": f'wrk.headers["Authorization"] = "Bearer {TOKEN}"\n',
    "password": 'wrk.headers["Authorization"] = "Basic YTph"\n',  # a:a
}


@contextlib.contextmanager
def running(folder: Path, *, tls: bool, guarded: bool) -> Iterator[Exporter]:
    """An exporter with a certificate, or a user and a token, or neither."""
    if not tls and not guarded:
        with exporter(baseline_of(20)) as plain:
            yield plain
        return
    settings: dict[str, object] = {}
    context = None
    if tls:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        settings["tls_server_config"] = {"cert_file": "server.pem", "key_file": "server.pem"}
        context = ssl.create_default_context()
        authority.configure_trust(context)
    if guarded:
        settings["basic_auth_users"] = {"a": bcrypt.hashpw(b"a", bcrypt.gensalt(10)).decode()}
        settings["bearer_tokens"] = [{"name": "b", "token": TOKEN, "permissions": ["push"]}]
    path = folder / "web.yml"
    path.write_text(json.dumps(settings))
    with exporter(baseline_of(20), f"--web.config.file={path}", context=context) as found:
        yield found


def rate(found: Exporter, scheme: str, credentials: str, *, kept: bool) -> float:
    """Requests of one sample per second of the exporter's processor time."""
    body = json.dumps({"model": "bench", "version": "1", "features": {f"feature_{i:03d}": 0.5 for i in range(20)}})
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n' + HEADERS[credentials])
        script.write("" if kept else 'wrk.headers["Connection"] = "close"\n')
        script.write(f"wrk.body = [==[{body}]==]\n")
        script.write('done = function(s) io.write("answered ", s.requests, " refused ", s.errors.status, "\\n") end\n')
        script.flush()
        url = f"{scheme}://127.0.0.1:{found.port}/v1/samples"
        before = found.cpu_seconds()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", script.name, url]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answered, refused = (int(number) for number in said.rpartition("answered ")[2].split(" refused "))
    return (answered - refused) / (found.cpu_seconds() - before)


def run(report: Report) -> None:
    """Each way in turn; the first of each connection's kind is what the others are held against."""
    report.heading("TLS and authentication: requests of one sample, per second of the exporter's processor time")
    if shutil.which("wrk") is None:
        print("wrk is not installed")
        return
    ways = {
        "plain": (False, "none"), "token": (False, "token"), "password": (False, "password"), "TLS": (True, "none"),
        "TLS, token": (True, "token"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        started = {}
        for way, (tls, credentials) in ways.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            started[way] = stack.enter_context(running(folder, tls=tls, guarded=credentials != "none"))
        for kept in (True, False):
            found: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(ROUNDS + 1):
                for way, (tls, credentials) in ways.items():
                    measured = rate(started[way], "https" if tls else "http", credentials, kept=kept)
                    if number:  # the first round warms up, and has the password checked
                        found[way].append(measured)
            reference = statistics.median(found["plain"])
            for way, rates in found.items():
                middle = statistics.median(rates)
                what = f"{way}, {'connections that are kept' if kept else 'a connection for each request'}"
                report.add(what, f"{middle:,.0f}", "", f"{1e6 / middle - 1e6 / reference:+.0f} us a request")
