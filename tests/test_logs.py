"""Log lines: one a record, of a form that machines read, without the text of an exception."""

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from mlexporter import logs
from mlexporter.logs import Formatter, LogFormat

SECRET = "4929-1111-2222-3333"


def record(message: str = "listening", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("mlexporter.server", logging.WARNING, "server.py", 7, message, args, None)
    made.created = 1_700_000_000.1239
    vars(made).update(extra)
    return made


def line(made: logging.LogRecord, log_format: LogFormat = "logfmt") -> str:
    return Formatter(log_format).format(made)


def raised() -> BaseException:
    def parse() -> None:
        try:
            float(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error

    with pytest.raises(KeyError, match=SECRET) as caught:
        parse()
    return caught.value


def test_logfmt() -> None:
    assert line(record(address="127.0.0.1:9877", models=2, share=0.5, discovery=True)) == (
        "ts=2023-11-14T22:13:20.123Z level=warning logger=mlexporter.server msg=listening"
        " address=127.0.0.1:9877 models=2 share=0.5 discovery=True"
    )


def test_json() -> None:
    assert json.loads(line(record("%d closed", 3, count=3, path=None), "json")) == {
        "ts": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "mlexporter.server",
        "msg": "3 closed",
        "count": 3,
        "path": None,
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1.5/x", "plain-1.5/x"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("a\nts=2023 level=info msg=forged", '"a\\nts=2023 level=info msg=forged"'),
        ("\u2028\x1b[31m", '"\\u2028\\u001b[31m"'),
        ("\ud800", '"\\ud800"'),
        ("é", "é"),
    ],
)
def test_values_cannot_break_out_of_their_line(value: str, written: str) -> None:
    assert line(record(path=value)).endswith(f" msg=listening path={written}")
    assert line(record("%s", value)).endswith(f" msg={written}")
    for made in (record(path=value), record("%s", value)):
        text = line(made, "json")
        assert len(text.splitlines()) == 1
        assert value in json.loads(text).values()


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_an_exception_is_told_by_its_kind_and_place_only(log_format: LogFormat) -> None:
    error = raised()
    made = record("request failed")
    made.exc_info = (type(error), error, error.__traceback__)
    text = line(made, log_format)
    assert SECRET not in text
    assert "KeyError at test_logs.py:" in text
    assert " raised" in text
    assert len(text.splitlines()) == 1


def test_where_names_the_innermost_line_first() -> None:
    def outer() -> None:
        inner()

    def inner() -> None:
        raise RuntimeError(SECRET)

    with pytest.raises(RuntimeError) as caught:
        outer()
    kind, _, path = logs.where(caught.value).partition(" at ")
    assert kind == "RuntimeError"
    assert [part.split(" ")[1] for part in path.split(" < ")][:2] == ["inner", "outer"]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level, hook = logger.handlers[:], logger.level, threading.excepthook
    yield logger
    threading.excepthook = hook
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_set_up_sends_what_is_severe_enough_to_standard_error(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("warning", "json")
    logging.getLogger("mlexporter.store").info("not this")
    logging.getLogger("mlexporter.store").warning("this", extra={"count": 1})
    out, err = capsys.readouterr()
    assert out == ""
    (written,) = map(json.loads, err.splitlines())
    assert (written["level"], written["msg"], written["count"]) == ("warning", "this", 1)
    logs.set_up("debug", "logfmt")
    logging.getLogger("mlexporter.store").debug("now")
    assert "level=debug logger=mlexporter.store msg=now" in capsys.readouterr().err
    assert len(root.handlers) == 1


@pytest.mark.usefixtures("root")
def test_what_ends_a_thread_is_told_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    logs.set_up("info", "logfmt")
    thread = threading.Thread(name="ticker", target=fail)
    thread.start()
    thread.join()
    err = capsys.readouterr().err
    assert SECRET not in err
    assert (
        ' level=critical logger=mlexporter.logs msg="a thread has ended" thread_name=ticker error="ValueError at '
        in err
    )
