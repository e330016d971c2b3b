"""`mlexporter check`."""

import sys
from pathlib import Path

import click

from mlexporter import config
from mlexporter.config import ConfigError
from mlexporter.loading import load_baselines, missing_extra, shifted_seasons, uncounted_outcomes


@click.group("check")
def check() -> None:
    """Check files before they are used."""


@check.command("config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Check a configuration file and the baselines it names.

    Prints every mistake with its line, column and key path, and exits 1 if there is one.
    """
    try:
        settings = config.load(file)
        baselines = load_baselines(settings, file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    missing = missing_extra(settings)
    notes = [*uncounted_outcomes(settings, baselines), *shifted_seasons(settings, baselines)]
    for note in notes if missing is None else [*notes, missing]:  # the file may be served elsewhere
        click.echo(f"{file}: warning: {note}", err=True)
    models = len(settings.models)
    click.echo(f"{file}: valid, {models} model{'' if models == 1 else 's'}")


@check.command("trigger-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_trigger_config(file: Path) -> None:
    """Check a configuration file of `mlexporter trigger`, its templates among it.

    Prints every mistake with its line, column and key path, and exits 1 if there is one. Token files need not be there.
    """
    from mlexporter.trigger import config as trigger_config

    try:
        settings = trigger_config.load(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    routes, actions = len(settings.routes), len(settings.actions)
    click.echo(
        f"{file}: valid, {routes} route{'' if routes == 1 else 's'}, {actions} action{'' if actions == 1 else 's'}"
    )


@check.command("web-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_web_config(file: Path) -> None:
    """Check a file for --web.config.file, with the certificates, keys and tokens it names.

    Prints every mistake with its line, column and key path, and exits 1 if there is one.
    """
    from mlexporter.web_files import WebFiles

    try:
        loaded = WebFiles(file).load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    users, tokens = len(loaded.users), len(loaded.tokens)
    click.echo(
        f"{file}: valid, {'TLS' if loaded.tls is not None else 'no TLS'}, {users} user{'' if users == 1 else 's'}, "
        f"{tokens} token{'' if tokens == 1 else 's'}"
    )
