"""Structured logs on standard error, as logfmt or as JSON lines. Values of samples are never logged."""

import datetime
import json
import logging
import sys
import threading
import traceback
from typing import Any, Literal

logger = logging.getLogger(__name__)

LogFormat = Literal["logfmt", "json"]

# what a record has without being asked; everything else came by `extra`
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(level: str, log_format: LogFormat) -> None:
    """Send the logs of this process to standard error, and what ends one of its threads."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(log_format))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Python would write the text of the exception, which may hold a sample's value.
    threading.excepthook = _ended


def _ended(args: threading.ExceptHookArgs) -> None:
    thread = args.thread.name if args.thread is not None else ""
    logger.critical("a thread has ended", exc_info=args.exc_value, extra={"thread_name": thread})


class Formatter(logging.Formatter):
    """Writes a record as one line: time, level, logger, message, then what `extra` holds."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields: dict[str, Any] = {
            "ts": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = where(record.exc_info[1])
        if self._log_format == "json":
            return json.dumps(fields, default=str)
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def where(error: BaseException) -> str:
    """The kind of an exception and the lines it came through, without its text, which may hold a sample's value."""
    frames = traceback.extract_tb(error.__traceback__)
    path = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {path}"


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(character in text for character in ' "=')
    return text if plain else json.dumps(text)
