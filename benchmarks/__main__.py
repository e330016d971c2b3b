"""`python -m benchmarks [compute] [http]`: prints every budget beside what is measured."""

import platform
import sys

import numpy as np

from benchmarks import compute, http
from benchmarks.harness import Report

SUITES = {"compute": compute.run, "http": http.run}

if __name__ == "__main__":
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}; medians of rounds in turn"
    )
    report = Report()
    for name in sys.argv[1:] or SUITES:
        SUITES[name](report)
