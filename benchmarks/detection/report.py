"""Markdown tables, and goals beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlexporter.edges import Floats


@dataclass
class Goal:
    what: str
    target: str
    measured: str
    met: bool


@dataclass
class Report:
    """Prints as it goes, and keeps the goals for the end."""

    goals: list[Goal] = field(default_factory=list)

    @staticmethod
    def heading(title: str, *paragraphs: str) -> None:
        print("\n".join([f"\n## {title}", *(f"\n{text}" for text in paragraphs)]), flush=True)

    @staticmethod
    def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = [header, ["---"] * len(header), *rows]
        print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)

    def goal(self, what: str, target: str, measured: str, *, met: bool) -> None:
        self.goals.append(Goal(what, target, measured, bool(met)))

    def at_most(self, what: str, most: float, measured: float, unit: str) -> None:
        shown = number(measured) if np.isfinite(measured) else "never"
        self.goal(what, f"<= {number(most)} {unit}", shown, met=measured <= most)

    def print_goals(self) -> None:
        self.heading("Goals")
        rows = [(goal.what, goal.target, goal.measured, "met" if goal.met else "**missed**") for goal in self.goals]
        self.table(("goal", "target", "measured", ""), rows)


def number(value: float) -> str:
    """Three digits are enough, but samples and ticks are whole.

    >>> number(1400), number(0.0321), number(0), number(12.5)
    ('1,400', '0.0321', '0', '12.5')
    """
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def median(values: Floats) -> float:
    """The median where some are infinite; infinite if there are none."""
    return float(np.quantile(values, 0.5, method="higher")) if values.size else np.inf


def delay(samples: Floats) -> str:
    """Median and share of what was found; infinity is what was not."""
    if np.isnan(samples).all():
        return "n/a"
    share = f"({np.isfinite(samples).mean():.0%})"
    middle = median(samples)
    return f"{number(middle)} {share}" if np.isfinite(middle) else f"- {share}"
