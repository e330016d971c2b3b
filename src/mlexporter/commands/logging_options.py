"""How much the programs that run on log, and in which form."""

from collections.abc import Callable

import click


def logging_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options `--log.level` and `--log.format`, as `log_level` and `log_format`."""
    command = click.option(
        "--log.format",
        "log_format",
        type=click.Choice(["logfmt", "json"]),
        default="logfmt",
        show_default=True,
        help="Format of log lines.",
    )(command)
    return click.option(
        "--log.level",
        "log_level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="Least severe messages to log.",
    )(command)
