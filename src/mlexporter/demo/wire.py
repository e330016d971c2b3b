"""A kept-alive HTTP connection to a server on this machine: all that the demo needs of a client."""

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import orjson

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 3
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as a base for URLs, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer, and how long to wait before trying again if the server said so."""

    status: int
    body: bytes
    retry_after: float | None = None


class Connection:
    """Requests to one server, one at a time; opens itself anew after an error. For use by one thread."""

    def __init__(self, address: Address, timeout: float = TIMEOUT_SECONDS) -> None:
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def get(self, path: str) -> Answer:
        """Answer to a GET."""
        return self._request("GET", path, None)

    def post(self, path: str, body: bytes) -> Answer:
        """Answer to a POST of JSON."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: bytes | None) -> Answer:
        """Send and read.

        Raises OSError where nobody answers.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        except OSError:
            self._connection.close()
            raise
        return Answer(response.status, content, _seconds(response.headers.get("Retry-After")))


def push(connection: Connection, path: str, body: bytes, size: int, pause: Callable[[float], bool]) -> tuple[int, int]:
    """Send samples or labels, and again where that may help.

    Args:
        connection: to the exporter.
        path: of the exporter's.
        body: that holds `size` of them.
        size: how many.
        pause: waits so many seconds; gives True where it is not worth to try again.

    Returns:
        How many the exporter accepted and rejected, by its own word; (0, 0) where it could not be told of them.

    """
    for _ in range(ATTEMPTS):
        wait = RETRY_SECONDS
        try:
            answer = connection.post(path, body)
        except OSError:
            pass
        else:
            if answer.status != 503:
                return _outcome(answer, size)
            wait = answer.retry_after or wait
        if pause(wait):
            break
    return 0, 0


def _outcome(answer: Answer, size: int) -> tuple[int, int]:
    """All are rejected where it says no."""
    if answer.status != 200:
        return 0, size
    counts = orjson.loads(answer.body)
    return int(counts["accepted"]), int(counts["rejected"])


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
