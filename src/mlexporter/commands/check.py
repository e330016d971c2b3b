"""`mlexporter check`."""

import sys
from pathlib import Path

import click

from mlexporter import config
from mlexporter.baseline import BaselineError
from mlexporter.commands.serve import load_baselines, shifted_seasons
from mlexporter.config import ConfigError


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
        baselines = load_baselines(settings)
    except (ConfigError, BaselineError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    for note in shifted_seasons(settings, baselines):
        click.echo(f"{file}: warning: {note}", err=True)
    models = len(settings.models)
    click.echo(f"{file}: valid, {models} model{'' if models == 1 else 's'}")
