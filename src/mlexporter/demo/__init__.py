"""The demo: a real model on real data behind a model server, with live traffic that starts to drift,
and labels that come later.

Nothing outside this package imports it but the command line, and it uses the exporter only as a stranger
would: through its commands and its HTTP routes. scikit-learn and the data come with ``mlexporter[demo]``.
"""

import click


@click.command("demo")
@click.option(
    "--once",
    is_flag=True,
    help="Run fast; exit 0 only if exactly the drifted columns show it, labels are joined and concept drift is found.",
)
@click.option(
    "--web.listen-address",
    "listen",
    metavar="ADDRESS",
    default=None,
    help="Address of the exporter, such as :9877. Default: 127.0.0.1:9877, or a free port if that one is taken.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Seed of the data and the traffic."
)
@click.option("--no-drift", is_flag=True, hidden=True, help="Leave the traffic clean: --once then has to fail.")
@click.option("--warm-up", type=click.FloatRange(min=0), default=60.0, hidden=True, help="Seconds of clean traffic.")
def demo_command(once: bool, listen: str | None, seed: int, no_drift: bool, warm_up: float) -> None:
    """Watch a real model drift: trains it, starts the exporter, sends live traffic.

    What became of each flight follows some ten seconds after its prediction, but
    for one flight in ten. After a minute of clean traffic two features drift and
    one goes missing. A minute later the concept drifts: flights with the same
    features arrive later than they used to. Ctrl-C ends it.
    """
    # scikit-learn is neither there for everyone nor quick to import: nobody else's command pays for it.
    from mlexporter.demo.run import run_demo

    raise SystemExit(run_demo(once=once, listen=listen, seed=seed, drift=not no_drift, warm_up=warm_up))


__all__ = ["demo_command"]
