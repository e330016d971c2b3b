"""Every decoder under bytes that nobody meant: by hypothesis, and in a short run of what `make fuzz` does."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import skip_without
from fuzz.targets import TARGETS, together
from mlexporter.config import Config
from test_server import Exporter

ROOT = Path(__file__).parents[1]
PIECES = st.binary(max_size=4) | st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\n",
        b"null",
        b"1e999",
        b"-1",
        b"NaN",
        b"&a",
        b"*a",
        b"!",
        b"\x91",
    ]
)


def changed(content: bytes, data: st.DataObject) -> bytes:
    for _ in range(data.draw(st.integers(0, 4))):
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(begin + 8, len(content))))
        content = content[:begin] + data.draw(PIECES) * data.draw(st.sampled_from([1, 1, 1, 3000])) + content[end:]
    return content


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_good_bytes_that_are_changed(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target.run(changed(data.draw(st.sampled_from(target.seeds)), data))


@pytest.mark.parametrize("name", TARGETS)
@given(content=st.binary(max_size=100))
@settings(max_examples=40, deadline=None)
def test_any_bytes(name: str, content: bytes) -> None:
    TARGETS[name].run(content)


@pytest.mark.parametrize("name", TARGETS)
def test_nested_deeply(name: str) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"x":', b"}"), (b"\x91", b""), (b"- ", b"")):
        TARGETS[name].run(opening * 100_000 + closing * 100_000)


def test_the_target_of_all_reaches_each() -> None:
    every = together()
    assert len(every.seeds) == sum(len(target.seeds) for target in TARGETS.values())
    assert {seed[0] for seed in every.seeds} == set(range(len(TARGETS)))
    every.run(b"")


def test_a_decoder_that_raises_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the error that a decoder promises comes through, or nothing here could fail."""

    def broken(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mlexporter.decode.samples_json.decode", broken)
    with pytest.raises(ZeroDivisionError):
        TARGETS["samples"].run(b"{}")


# -- headers ----------------------------------------------------------------------------------------------------------

HEADERS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60) | st.lists(
    st.sampled_from(
        [
            "application/openmetrics-text",
            "text/plain",
            "*/*",
            ";version=1.0.0",
            ";q=0",
            ";q=x",
            ";",
            ",",
            "=",
            "0.0.4",
            " ",
        ]
    ),
    max_size=12,
).map("".join)


@given(accept=HEADERS, encoding=HEADERS | st.sampled_from(["gzip", "gzip;q=0", "x-gzip;q=0.0", "*"]))
@settings(max_examples=150, deadline=None)
def test_any_negotiation_gets_a_page_in_a_format_that_it_names(accept: str, encoding: str) -> None:
    exporter = Exporter(Config())
    answer = exporter.call("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": encoding})
    assert answer.code == 200
    page = answer.body
    if answer.headers.get("Content-Encoding") == "gzip":
        page = gzip.decompress(page)
        assert "gzip" in encoding
    openmetrics = answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert list((parse_openmetrics if openmetrics else parse_text)(page.decode()))
    assert not openmetrics or "application/openmetrics-text" in accept


# -- coverage ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="atheris is built for Linux")
def test_a_short_run_of_atheris(tmp_path: Path) -> None:
    skip_without("atheris")
    command = [sys.executable, "-m", "fuzz", "--together=12000"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PYTHONHASHSEED": "0"}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-6000:]
    assert "Done 12000 runs" in ran.stderr
