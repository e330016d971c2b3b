"""`mlexporter serve`."""

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from msgspec import UNSET

from mlexporter import __version__, addresses, baseline, config, logs
from mlexporter.baseline import Baseline, BaselineError
from mlexporter.budget import comparison_series, outcome_series, series_of
from mlexporter.commands.logging_options import logging_options
from mlexporter.config import UNVERSIONED, Config, ConfigError
from mlexporter.derived_profile import profile_of
from mlexporter.outcome_profile import ProfileError

if TYPE_CHECKING:
    from mlexporter.persistence import Found, StateFolder

logger = logging.getLogger(__name__)

JOIN_SECONDS: Final = 2.0
"""How long, at the end, what is queued for the store of pending predictions is written."""


def load_baselines(settings: Config, file: Path | None) -> dict[tuple[str, str], Baseline]:
    """The baselines that a configuration names, by model and version.

    Args:
        settings: the configuration.
        file: that it was read from, for messages.

    Raises:
        BaselineError: with every one that cannot be used, a line each; or together they take too many series.

    """
    baselines: dict[tuple[str, str], Baseline] = {}
    problems: list[str] = []
    newest: dict[str, Baseline] = {}
    series, windows = 0, len(settings.windows)
    for i, model in enumerate(settings.models):
        if model.baseline is None:
            continue
        try:
            found = baseline.read(model.baseline)
            said = model.prediction
            profile = profile_of(found, model.task, said.classes, said.threshold)
        except BaselineError as error:
            problems.append(f"models[{i}].baseline: {error}")
            continue
        except ProfileError as error:
            profile = None  # where nobody built a baseline with outcomes, it does without them
            if found.outcomes is not UNSET:
                problems.append(f"models[{i}]: {error}")
        baselines[model.name, model.version or UNVERSIONED] = found
        series += series_of(found.columns, windows) + outcome_series(profile, windows)
        if model.name in newest:
            series += comparison_series(newest[model.name].columns, windows)
        newest[model.name] = found
    if series > settings.limits.max_series:
        problems.append(
            f"limits.max_series: the models take up to {series} series, more than {settings.limits.max_series}; "
            "raise it, or leave out columns or windows"
        )
    if problems:
        raise BaselineError("\n".join(f"{file}: {problem}" for problem in problems))
    return baselines


def missing_extra(settings: Config) -> str | None:
    """What must be installed for a configuration to be served; None where nothing is missing."""
    if settings.labels.store is not None and importlib.util.find_spec("redis") is None:
        return "labels.store needs the extra: pip install 'mlexporter[redis]'"
    return None


def uncounted_outcomes(settings: Config, baselines: dict[tuple[str, str], Baseline]) -> Iterator[str]:
    """What to say of models whose outcomes are not counted: neither baseline nor configuration tells how."""
    for model in settings.models:
        found = baselines.get((model.name, model.version or UNVERSIONED))
        if found is None:
            continue
        try:
            profile_of(found, model.task, model.prediction.classes, model.prediction.threshold)
        except ProfileError as error:
            yield f"model {model.name!r}: outcomes are not counted: {error}"


def shifted_seasons(settings: Config, baselines: dict[tuple[str, str], Baseline]) -> Iterator[str]:
    """What to say of columns whose hours are told in another time zone than that in which their season was learned."""
    for model in settings.models:
        found = baselines.get((model.name, model.version or UNVERSIONED))
        for column in found.columns if found is not None else ():
            own = model.columns.get(column.name)
            if column.season is None or own is None or own.season is False:
                continue
            if own.timezone not in (None, column.season.timezone):
                yield (
                    f"model {model.name!r}, column {column.name!r}: the season was learned by hours of "
                    f"{column.season.timezone}, and is held against hours of {own.timezone}"
                )


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
    web_server: str,
    storage_path: Path | None,
    log_level: str,
    log_format: logs.LogFormat,
) -> None:
    """Receive samples over HTTP and expose drift at /metrics.

    Ends within 5 seconds of SIGTERM; requests that were begun are finished.
    """
    # Heavy imports stand here, so that --help and `check config` answer at once.
    from mlexporter import serving
    from mlexporter.backlog import Backlog
    from mlexporter.connections import Keeper
    from mlexporter.crew import Crew
    from mlexporter.pending.joiner import Joiner
    from mlexporter.pending.opening import kept_totals, open_store
    from mlexporter.persistence import SECONDS, Saver, begin
    from mlexporter.server import Application
    from mlexporter.slow_clients import BodyReader
    from mlexporter.store import Store
    from mlexporter.telemetry import Telemetry
    from mlexporter.web_access import WebAccess
    from mlexporter.web_files import WebFiles

    logs.set_up(log_level, log_format)
    try:
        host, port = addresses.split_address(listen_address)
        settings = config.load(config_file) if config_file is not None else config.default()
        baselines = load_baselines(settings, config_file)
        web_files = WebFiles(web_config_file) if web_config_file is not None else None
        web = web_files.load() if web_files is not None else None
    except (ConfigError, BaselineError, ValueError) as error:
        click.echo(f"mlexporter: {error}", err=True)
        sys.exit(1)
    problem = addresses.problem_with(host, port)
    if web_server == "waitress" and web is not None and web.tls is not None:
        problem = "waitress has no TLS: leave out --web.server=waitress, or tls_server_config"
    if web_server == "waitress" and importlib.util.find_spec("waitress") is None:
        problem = "--web.server=waitress needs the extra: pip install 'mlexporter[waitress]'"
    problem = problem or missing_extra(settings)
    if problem is not None:
        click.echo(f"mlexporter: {problem}", err=True)
        sys.exit(1)
    folder, found = _found_state(storage_path)
    telemetry = Telemetry(time.time)
    crew = Crew()
    reader = BodyReader(settings.limits.max_body_bytes, crew, backlog=Backlog(crew), most=serving.BODIES_AT_ONCE)
    pending = open_store(settings, storage_path)
    store = Store(settings, baselines, time.time, {**found.totals, **kept_totals(pending)})
    begin(store, found)
    saver = None
    if folder is not None:
        telemetry.keeping_state(restored=found.state is not None, damaged=found.damaged)
        saver = Saver(store, folder, telemetry, time.time, SECONDS)
        serving.start_thread("saver", saver.run)
    joiner = Joiner(pending, store.feedback, time.time)
    application = Application(store, joiner, telemetry, settings, reader, time.time)
    access = None
    if web_files is not None and web is not None:
        access = WebAccess(web_files, web, telemetry, crew.held_up)
        serving.start_thread("web-config", access.watch)
    ticker = serving.Ticker(store)
    serving.start_thread("ticker", ticker.run)
    serving.start_thread("joiner", joiner.run)
    serving.start_thread("slow-clients", reader.watch)
    serving.start_thread("crew", crew.watch)
    keeper = Keeper()
    serving.start_thread("connections", keeper.watch)
    telemetry.loaded()
    serving.tune_memory()
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
    ticker.stop()
    reader.stop()
    crew.stop()
    keeper.stop()
    joiner.stop(JOIN_SECONDS)
    if saver is not None:
        saver.finish()
    logger.info("stopped")
    # Threads of the server may still be on their way out of Python, and it would be torn down under them: go at once.
    logging.shutdown()
    os._exit(0)
