"""`mlexporter trigger`."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from mlexporter import __version__, addresses, logs
from mlexporter.commands.logging_options import logging_options
from mlexporter.config import ConfigError

if TYPE_CHECKING:
    from mlexporter.trigger.config import TriggerConfig

logger = logging.getLogger(__name__)

_GIVE_UP_SECONDS = 4.5


@click.command("trigger")
@click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    required=True,
    help="Configuration file: which alerts start what.",
)
@click.option(
    "--web.listen-address", "listen_address", default=":9878", show_default=True, help="Address to listen on."
)
@click.option("--dry-run", is_flag=True, help="Do everything but the actions; the log says what they would be.")
@logging_options
def trigger_command(
    config_file: Path, listen_address: str, dry_run: bool, log_level: str, log_format: logs.LogFormat
) -> None:
    """Start retraining or rollback on alerts that Alertmanager sends.

    Ends within 5 seconds of SIGTERM; a run that goes on then is interrupted, and started again when the alert repeats.
    """
    # Heavy imports stand here, so that --help and `check` answer at once.
    from mlexporter.trigger import config
    from mlexporter.trigger.app import TriggerApplication
    from mlexporter.trigger.journal import Journal, JournalError
    from mlexporter.trigger.ledger import Ledger
    from mlexporter.trigger.listener import Listener
    from mlexporter.trigger.receiver import Receiver
    from mlexporter.trigger.runner import perform, rehearse
    from mlexporter.trigger.token import TokenError

    logs.set_up(log_level, log_format)
    try:
        host, port = addresses.split_address(listen_address)
        settings = config.load(config_file)
        _check_tokens(settings)
        if (problem := addresses.problem_with(host, port)) is not None:
            raise ValueError(problem)
        # a rehearsal must not be remembered as the real thing
        file = Path(f"{settings.journal.file}.dry-run") if dry_run else settings.journal.file
        journal = Journal(file, settings.journal.max_bytes)
        ledger = Ledger(journal, time.time, settings.journal.forget_after, dry_run=dry_run)
        receiver = Receiver(settings, ledger, time.time, rehearse if dry_run else perform)
        application = TriggerApplication(settings.web, receiver)
        listener = Listener(application, addresses.ip_of(host), port)
    except (ConfigError, JournalError, TokenError, ValueError, OSError) as error:
        click.echo(f"mlexporter: {error}", err=True)
        sys.exit(1)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    signal.signal(signal.SIGHUP, _stay)
    threading.Thread(name="listener", target=listener.serve_forever, args=(0.1,), daemon=True).start()
    application.ready.set()
    logger.info(
        "listening",
        extra={"version": __version__, "address": f"{host}:{port}", "routes": len(settings.routes), "dry_run": dry_run},
    )
    # The system may hand a signal to any thread, and Python runs its handler in this one, once it wakes.
    while not stopped.wait(0.1):
        pass
    logger.info("stopping")
    _give_up_later()
    application.ready.clear()
    receiver.stop()
    listener.shutdown()
    with contextlib.suppress(OSError):
        listener.server_close()
    logger.info("stopped")
    # Threads that wait for an answer of another server may still be there, and it would be torn down under them.
    logging.shutdown()
    os._exit(0)


def _check_tokens(settings: "TriggerConfig") -> None:
    """Raise TokenError where a token cannot be read: better now than when an alert comes."""
    from mlexporter.trigger.config import CommandAction, HttpAction
    from mlexporter.trigger.token import TokenError, read_token

    files = {"web.bearer_token_file": settings.web.bearer_token_file}
    for name, each in settings.actions.items():
        action = each.only()
        if isinstance(action, HttpAction) and action.bearer_token_file is not None:
            files[f"actions.{name}.http.bearer_token_file"] = action.bearer_token_file
        elif not isinstance(action, CommandAction | HttpAction) and action.token_file is not None:
            kind = "github" if each.github is not None else "argo"
            files[f"actions.{name}.{kind}.token_file"] = action.token_file
    problems: list[str] = []
    for path, file in files.items():
        try:
            read_token(file)
        except TokenError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise TokenError("\n".join(problems))


def _stay(_: int, __: FrameType | None) -> None:
    logger.info("SIGHUP ignored: there is nothing to reload")


def _give_up_later() -> None:
    """End the process even if something does not."""

    def give_up() -> None:
        logger.error("a run did not end in time; leaving without it")
        os._exit(1)

    timer = threading.Timer(_GIVE_UP_SECONDS, give_up)
    timer.daemon = True
    timer.start()
