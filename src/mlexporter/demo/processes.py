"""The exporter as a process of its own, started and stopped by the demo; and signals that ask the demo to end."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from mlexporter.demo.data import DemoError
from mlexporter.demo.model import MODEL, VERSION
from mlexporter.demo.wire import Address, Connection

COMMAND = (sys.executable, "-m", "mlexporter")
DEFAULT_PORT = 9877
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LOG_TAIL_LINES = 15


class StopRequestedError(Exception):
    """Somebody asked the demo to end."""


class StopSignals:
    """Notes the signals that ask the demo to end, instead of dying from them with a process left behind.

    The handler only sets a flag: an exception out of a handler could come between a process's start and the note
    of its id. A second signal is taken as impatience and does raise KeyboardInterrupt.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def check(self) -> None:
        """Raise StopRequestedError if it is time to end."""
        if self.received is not None:
            raise StopRequestedError

    def wait(self, seconds: float) -> None:
        """Sleep, and raise StopRequestedError as soon as it is time to end."""
        # In short sleeps: a signal does not cut a sleep short when its handler returns.
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
            self.check()


def listen_address(given: str | None) -> tuple[str, Address]:
    """The exporter's `--web.listen-address`, and where to call it from this machine.

    Raises DemoError where `given` is no address, or is taken.
    """
    if given is None:
        port = DEFAULT_PORT if _is_free("127.0.0.1", DEFAULT_PORT) else _free_port("127.0.0.1")
        return f"127.0.0.1:{port}", Address("127.0.0.1", port)
    host, colon, digits = given.rpartition(":")
    if not colon or not digits.isdecimal() or int(digits) > 65535:
        raise DemoError(f"--web.listen-address: {given!r} is not host:port or :port")
    host = host.removeprefix("[").removesuffix("]")
    port = int(digits) or _free_port(host)
    if not _is_free(host, port):
        raise DemoError(f"--web.listen-address: cannot listen at {given}; is something else there?")
    called = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{given.rpartition(':')[0]}:{port}", Address(called, port)


def _is_free(host: str, port: int) -> bool:
    try:
        with _bound(host, port):
            return True
    except OSError:
        return False


def _free_port(host: str) -> int:
    try:
        with _bound(host, 0) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise DemoError(f"--web.listen-address: cannot listen at {host}: {error}") from error


def _bound(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def build_baseline(data: Path, output: Path, stop: StopSignals) -> None:
    """Have `mlexporter baseline build` make a baseline of the CSV file.

    Raises DemoError where it cannot.
    """
    log = output.with_suffix(".log")
    command = [*COMMAND, "baseline", "build", str(data), "-o", str(output), f"--model={MODEL}", f"--version={VERSION}"]
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                stop.wait(_POLL_SECONDS)
        finally:
            _end(process)
    if process.returncode != 0:
        raise DemoError(f"{' '.join(command)} failed with {process.returncode}:\n{_tail(log)}")


def write_config(path: Path, baseline: Path, windows: tuple[str, ...]) -> None:
    """The exporter's configuration for the demo's model."""
    path.write_text(
        "models:\n"
        f"  - name: {MODEL}\n"
        f'    version: "{VERSION}"\n'
        "    task: binary\n"
        f"    baseline: {json.dumps(str(baseline))}\n"
        f"windows: [{', '.join(windows)}]\n",
        encoding="utf-8",
    )


class Program:
    """A server in a process of its own; as a context it is started, ready, and stopped at the end.

    It is ready when `GET /-/ready` says so, as in all programs of Prometheus' kind.
    """

    def __init__(self, name: str, command: Sequence[str], address: Address, log: Path, stop: StopSignals) -> None:
        self.name = name
        self.address = address
        self.log = log
        self._command = list(command)
        self._stop = stop
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is for the demo, which then ends the program in its turn.
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own command
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait_until_ready()
        except BaseException:
            _end(self._process)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            _end(self._process)

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    def check(self) -> None:
        """Raise DemoError with the end of its log if it is no longer there."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise DemoError(f"{self.name} ended with {code}; the end of its log:\n{_tail(self.log)}")

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        with Connection(self.address) as connection:
            while time.monotonic() < end:
                self.check()
                try:
                    if connection.get("/-/ready").status == 200:
                        return
                except OSError:
                    pass  # it does not listen yet
                self._stop.wait(_POLL_SECONDS)
        raise DemoError(f"{self.name} is not ready after {READY_SECONDS:.0f} s; the end of its log:\n{_tail(self.log)}")


class Exporter(Program):
    """`mlexporter serve`."""

    def __init__(self, config: Path, listen: str, address: Address, stop: StopSignals) -> None:
        command = [*COMMAND, "serve", f"--config.file={config}", f"--web.listen-address={listen}"]
        command.append(f"--storage.path={config.with_name('state')}")  # where predictions wait for their labels
        super().__init__("the exporter", command, address, config.with_name("exporter.log"), stop)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and make it end where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
