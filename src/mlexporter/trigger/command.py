"""Starts a program, in a process group of its own which ends as a whole, and waits for it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Final

from mlexporter.trigger.actions import Command, Result

GRACE: Final = 1.0
"""Seconds between asking a process group to end and making it."""

_LOOK_EVERY: Final = 0.05  # seconds


def run(command: Command, stopping: threading.Event) -> Result:
    """Run a program until it ends, its time is over, or `stopping` is set.

    Its output goes nowhere, as it may hold secrets. Nothing of what it was given passes through a shell.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the program is the configuration's, and never a template
            command.arguments,
            env=command.environment,
            cwd=command.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Result("failed", f"cannot be started: {getattr(error, 'strerror', None) or 'bad argument'}")
    end = time.monotonic() + command.timeout
    while (left := end - time.monotonic()) > 0:
        if stopping.wait(min(_LOOK_EVERY, left)):
            _end(process)
            return Result("interrupted", "ended with the trigger")
        if process.poll() is not None:
            return _judged(process.returncode)
    _end(process)
    return Result("failed", f"ended after {command.timeout:g} s, its timeout")


def _judged(code: int) -> Result:
    if code == 0:
        return Result("succeeded", "ended with 0")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return Result("failed", how)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group."""
    # Until it is waited for, a process keeps its number, and no other group can have got it meanwhile.
    _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and not _has_ended(process.pid):
        time.sleep(_LOOK_EVERY)
    _signal(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def _signal(group: int, number: signal.Signals) -> None:
    # a program may have become another user's, and then it cannot be ended from here
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, without waiting for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
