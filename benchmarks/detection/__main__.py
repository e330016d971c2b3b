"""`python -m benchmarks.detection [--seed N] [--streams N] [--short] [NAME ...]`: prints the study as Markdown."""

import argparse
import sys
import time
from dataclasses import replace

from benchmarks.detection import clearing, clusters, comparison, days, outcomes, patience, seasons
from benchmarks.detection.calendar_streams import Volume
from benchmarks.detection.report import Report

NAMES = ("comparison", "clusters", "seasons", "days", "clearing", "patience", "outcomes")


class Sizes:
    """How much is simulated: all of it, or little enough for 20 seconds."""

    def __init__(self, *, short: bool) -> None:
        self.comparison = comparison.Size()
        self.clusters = clusters.Size()
        self.seasons = seasons.Size()
        self.days = days.Size()
        self.clearing = clearing.Size()
        self.patience = patience.Size()
        self.outcomes = outcomes.Size()
        if short:
            self.comparison = comparison.Size((10_000,), columns=50, ticks=200, streams=10, lead=20)
            self.comparison = replace(self.comparison, changes=comparison.CHANGES[2:])
            self.clusters = clusters.Size(streams=20, ticks=500)
            self.seasons = seasons.Size(Volume(days=14, seconds=120.0), streams=4, days=2)
            self.days = days.Size(Volume(days=14, seconds=120.0), streams=4, days=5)
            self.clearing = clearing.Size((10_000,), streams=20, ticks=200, after=50)
            self.patience = patience.Size(streams=20, ticks=400)
            self.outcomes = outcomes.Size((10_000,), rates=(0.1,), drifting=(0.5,), streams=3, ticks=60, most=40)

    def with_streams(self, streams: int) -> None:
        """Simulate so many streams in each study."""
        for name in NAMES:
            setattr(self, name, replace(getattr(self, name), streams=streams))
        self.comparison = replace(self.comparison, columns=max(streams, self.comparison.columns))

    def run(self, name: str, report: Report, seed: int) -> None:
        """One of the studies."""
        match name:
            case "comparison":
                comparison.run(report, seed, self.comparison)
            case "clusters":
                clusters.run(report, seed, self.clusters)
            case "seasons":
                seasons.run(report, seed, self.seasons)
            case "days":
                days.run(report, seed, self.days)
            case "clearing":
                clearing.run(report, seed, self.clearing)
            case "patience":
                patience.run(report, seed, self.patience)
            case "outcomes":
                outcomes.run(report, seed, self.outcomes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description="A study of the drift alarm.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--streams", type=int, help="streams in each study")
    parser.add_argument("--short", action="store_true", help="less of everything: 20 seconds")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them if none is given")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such study: {', '.join(sorted(unknown))}")
    sizes = Sizes(short=arguments.short)
    if arguments.streams:
        sizes.with_streams(arguments.streams)
    report = Report()
    print(f"seed {arguments.seed}{', short' if arguments.short else ''}")
    for name in arguments.names or NAMES:
        begin = time.perf_counter()
        sizes.run(name, report, arguments.seed)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    report.print_goals()


if __name__ == "__main__":
    main()
