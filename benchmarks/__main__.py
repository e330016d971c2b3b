"""`python -m benchmarks [SUITE ...]`: budgets beside measurements, of all suites unless some are named."""

import importlib
import platform
import sys

import numpy as np

from benchmarks.harness import Report

SUITES = (
    "compute",
    "alarm",
    "serving",
    "feedback",
    "rules",
    "dashboards",
    "estimation",
    "state",
    "tls",
    "overload",
    "sizing",
)

if __name__ == "__main__":
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}; medians of rounds in turn"
    )
    report = Report()
    for name in sys.argv[1:] or SUITES:
        if name not in SUITES:
            sys.exit(f"no suite {name}; there are {', '.join(SUITES)}")
        # not before it is asked for: each takes other packages, and the peer of one may not go with those of another
        importlib.import_module(f"benchmarks.{name}").run(report)
