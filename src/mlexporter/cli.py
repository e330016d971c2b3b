"""The command line: names the commands; each of them wires what it needs."""

import click

from mlexporter import __version__
from mlexporter.commands.backtest import backtest_command
from mlexporter.commands.baseline import baseline_group
from mlexporter.commands.check import check
from mlexporter.commands.serve import serve
from mlexporter.commands.trigger import trigger_command
from mlexporter.demo import demo_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlexporter")
def main() -> None:
    """A Prometheus exporter for machine-learning models."""


main.add_command(serve)
main.add_command(baseline_group)
main.add_command(backtest_command)
main.add_command(trigger_command)
main.add_command(check)
main.add_command(demo_command, "demo")
