"""`python -m benchmarks [SUITE ...]`: budgets beside measurements, of all suites unless some are named."""

import platform
import sys

import numpy as np

from benchmarks import alarm, compute, estimation, feedback, rules, serving, state, tls
from benchmarks.harness import Report

SUITES = {
    "compute": compute.run,
    "alarm": alarm.run,
    "serving": serving.run,
    "feedback": feedback.run,
    "rules": rules.run,
    "estimation": estimation.run,
    "state": state.run,
    "tls": tls.run,
}

if __name__ == "__main__":
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}; medians of rounds in turn"
    )
    report = Report()
    for name in sys.argv[1:] or SUITES:
        SUITES[name](report)
