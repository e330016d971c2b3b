"""`mlexporter serve`."""

import importlib.util
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlexporter import __version__, addresses, config, logs, memory
from mlexporter.baseline import Baseline
from mlexporter.commands.logging_options import logging_options
from mlexporter.config import Config, ConfigError
from mlexporter.loading import load_baselines, missing_extra, shifted_seasons

if TYPE_CHECKING:
    from mlexporter.persistence import Found, StateFolder

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 2.0
"""How long, at the end, what is queued for the store of pending predictions is written."""


def _load(file: Path | None) -> tuple[Config, dict[tuple[str, str], Baseline]]:
    """The configuration and its baselines. Raises ConfigError."""
    settings = config.load(file) if file is not None else config.default()
    baselines = load_baselines(settings, file)
    return settings, baselines


def _problem_with(web_server: str, *, tls: bool) -> str | None:
    """Why a server cannot be used; None where it can."""
    if web_server != "waitress":
        return None
    if importlib.util.find_spec("waitress") is None:
        return "--web.server=waitress needs the extra: pip install 'mlexporter[waitress]'"
    return "waitress has no TLS: leave out --web.server=waitress, or tls_server_config" if tls else None


def _found_state(path: Path | None) -> "tuple[StateFolder | None, Found]":
    """The folder that state is kept in, and what is in it; ends the program where another one uses it."""
    from mlexporter.persistence import Found, InUseError, StateFolder

    if path is None:
        logger.warning("no --storage.path: what is counted and learned is in memory, and gone after a restart")
        return None, Found()
    folder = StateFolder(path)
    try:
        folder.lock()
    except InUseError as error:
        click.echo(f"mlexporter: {error}", err=True)
        sys.exit(1)
    return folder, folder.take()


@click.command("serve")
@click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    help="Configuration file. Without one, models are discovered and learned from their own traffic.",
)
@click.option(
    "--web.listen-address", "listen_address", default=":9877", show_default=True, help="Address to listen on."
)
@click.option(
    "--web.config.file",
    "web_config_file",
    type=click.Path(path_type=Path),
    help="TLS, users and tokens, in the format of Prometheus's exporter-toolkit. Without one: open to everybody.",
)
@click.option(
    "--web.enable-lifecycle",
    "enable_lifecycle",
    is_flag=True,
    help="Enable reloading the configuration by POST /-/reload; SIGHUP reloads it in any case.",
)
@click.option(
    "--web.server",
    "web_server",
    type=click.Choice(["granian", "waitress"]),
    default="granian",
    show_default=True,
    help="HTTP server; waitress needs the extra of that name.",
)
@click.option(
    "--storage.path",
    "storage_path",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for all that was counted and learned, and for predictions that wait for their labels. "
    "Without one: in memory.",
)
@logging_options
def serve(
    config_file: Path | None,
    listen_address: str,
    web_config_file: Path | None,
    enable_lifecycle: bool,
    web_server: str,
    storage_path: Path | None,
    log_level: str,
    log_format: logs.LogFormat,
) -> None:
    """Receive samples over HTTP and expose drift at /metrics.

    Ends within 5 seconds of SIGTERM; requests that were begun are finished. Reads its configuration again on SIGHUP.
    """
    # Heavy imports stand here, so that --help and `check config` answer at once.
    from mlexporter import serving
    from mlexporter.backlog import Backlog
    from mlexporter.connections import Keeper
    from mlexporter.crew import Crew
    from mlexporter.pending.joiner import Joiner
    from mlexporter.pending.opening import Horizons, kept_totals, open_store
    from mlexporter.persistence import SECONDS, Saver, begin
    from mlexporter.reloader import Reloader
    from mlexporter.server import Application
    from mlexporter.slow_clients import BodyReader
    from mlexporter.store import Store
    from mlexporter.telemetry import Telemetry
    from mlexporter.web_access import WebAccess
    from mlexporter.web_files import WebFiles

    logs.set_up(log_level, log_format)
    try:
        host, port = addresses.split_address(listen_address)
        settings, baselines = _load(config_file)
        web_files = WebFiles(web_config_file) if web_config_file is not None else None
        web = web_files.load() if web_files is not None else None
    except (ConfigError, ValueError) as error:
        click.echo(f"mlexporter: {error}", err=True)
        sys.exit(1)
    problem = (
        _problem_with(web_server, tls=web is not None and web.tls is not None)
        or addresses.problem_with(host, port)
        or missing_extra(settings)
    )
    if problem is not None:
        click.echo(f"mlexporter: {problem}", err=True)
        sys.exit(1)
    # The mark of a clean stop is about to be taken away: who stops this now waits for the server, which leaves another.
    serving.hold_signals()
    folder, found = _found_state(storage_path)
    telemetry = Telemetry(time.time)
    crew = Crew()
    reader = BodyReader(settings.limits.max_body_bytes, crew, backlog=Backlog(crew), most=serving.BODIES_AT_ONCE)
    horizons = Horizons(settings)
    pending = open_store(settings, storage_path, horizons)
    store = Store(settings, baselines, time.time, {**found.totals, **kept_totals(pending)})
    begin(store, found)
    saver = None
    if folder is not None:
        telemetry.keeping_state(restored=found.state is not None, damaged=found.damaged)
        saver = Saver(store, folder, telemetry, time.time, SECONDS)
        serving.start_thread("saver", saver.run)
    joiner = Joiner(pending, store.feedback, time.time)
    application = Application(store, joiner, telemetry, settings, reader, time.time)
    reloader = Reloader(lambda: _load(config_file), settings, store, telemetry, (application.use, horizons.use))
    if enable_lifecycle:
        application.reload = reloader.reload
    signal.signal(signal.SIGHUP, lambda *_: reloader.ask())
    access = None
    if web_files is not None and web is not None:
        access = WebAccess(web_files, web, telemetry, crew.held_up)
        serving.start_thread("web-config", access.watch)
    ticker, keeper = serving.Ticker(store), Keeper()
    serving.start_thread("ticker", ticker.run)
    serving.start_thread("joiner", joiner.run)
    serving.start_thread("slow-clients", reader.watch)
    serving.start_thread("crew", crew.watch)
    serving.start_thread("connections", keeper.watch)
    telemetry.loaded()
    serving.start_thread("reloader", reloader.run)
    memory.tune()
    application.ready.set()
    for note in shifted_seasons(settings, baselines):
        logger.warning(note)
    logger.info(
        "listening",
        extra={
            "version": __version__,
            "address": f"{host}:{port}",
            "models": len(settings.models),
            "discovery": settings.discovery.enabled,
            "tls": web is not None and web.tls is not None,
        },
    )
    run = serving.serve_granian if web_server == "granian" else serving.serve_waitress
    run(application, reader, crew, access, addresses.ip_of(host), port)
    for each in (ticker, reader, crew, keeper):
        each.stop()
    joiner.stop(JOIN_SECONDS)
    if saver is not None:
        saver.finish()
    logger.info("stopped")
    # Threads of the server may still be on their way out of Python, and it would be torn down under them: go at once.
    logging.shutdown()
    os._exit(0)
