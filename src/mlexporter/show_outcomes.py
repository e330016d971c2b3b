"""The outcomes of a baseline for people: how well the model did on its training data."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mlexporter.outcome_profile import ClassProfile, OutcomeProfile, task_of
from mlexporter.outcomes import OutcomeBinner
from mlexporter.performance import MIN_OUTCOMES, FigureValue, realised
from mlexporter.terminal import aligned, clipped, printable

FEW_OUTCOMES: Final = 2_000
FEW_OF_CLASS: Final = 50
_LISTED: Final = 5
_LONGEST_NAME: Final = 40


def outcomes_table(profile: OutcomeProfile) -> list[str]:
    """What the outcomes are of; a line for each figure of the whole; a table of the figures of each class."""
    parts = [f"outcomes of {profile.rows:,} rows", task_of(profile)]
    if isinstance(profile, ClassProfile):
        parts.append(f"classes {_names(profile.classes)}")
        if profile.task == "binary":
            parts.append(f"threshold {profile.threshold:g}")
    binner = OutcomeBinner(profile)
    values = [] if binner.reference is None else realised(binner, binner.reference)
    whole = [value for value in values if value.of_class is None]
    longest = max((len(value.figure) for value in whole), default=0)
    lines = [f"{value.figure:<{longest}}  {_number(value)}" for value in whole]
    return [", ".join(parts), *lines, *_by_class([value for value in values if value.of_class is not None])]


def outcome_warnings(profile: OutcomeProfile) -> list[str]:
    """What a person should know before relying on outcomes."""
    notes: list[str] = []
    few = f"only {profile.rows:,} outcomes: below"
    if profile.rows < MIN_OUTCOMES:
        notes.append(f"{few} {MIN_OUTCOMES} there are no figures to compare live performance with")
    if profile.rows < FEW_OUTCOMES:
        estimates = "nothing is estimated without labels, and " if isinstance(profile, ClassProfile) else ""
        notes.append(f"{few} {FEW_OUTCOMES:,} {estimates}there is no alarm on concept drift")
    return [*notes, *_warnings_of_classes(profile)] if isinstance(profile, ClassProfile) else notes


def _warnings_of_classes(profile: ClassProfile) -> list[str]:
    """Classes that are rare, and two that may have been meant as those of a binary model."""
    notes: list[str] = []
    if profile.rows:
        actual = OutcomeBinner(profile).confusion(np.array(profile.bins)).sum(axis=0).tolist()
        few = [f"{name} ({rows})" for name, rows in zip(profile.classes, actual, strict=False) if rows < FEW_OF_CLASS]
        lost = "nothing is" if profile.task == "binary" else "the area under its ROC curve is not"
        if few:
            notes.append(f"few outcomes of class {_names(few)}: below {FEW_OF_CLASS} {lost} estimated without labels")
    if profile.task == "multiclass" and len(profile.classes) == 2:
        notes.append(
            f"multiclass, of two classes, {_names(profile.classes)}: if the model is binary, set prediction.classes, "
            "the negative one first, and build again"
        )
    return notes


def _number(value: FigureValue) -> str:
    error = "" if math.isnan(value.standard_error) else f" ± {value.standard_error:.2g}"
    return f"{value.value:.4g}{error}"


def _by_class(values: Sequence[FigureValue]) -> list[str]:
    """A heading, and a line for each class."""
    if not values:
        return []
    figures = list(dict.fromkeys(value.figure for value in values))
    found = {(value.of_class, value.figure): f"{value.value:.4g}" for value in values}
    classes = dict.fromkeys(value.of_class or "" for value in values)
    lines = ([_name(name), *(found.get((name, figure), "-") for figure in figures)] for name in classes)
    return aligned([["class", *(figure.removesuffix("_ratio") for figure in figures)], *lines], left=[0])


def _name(name: str) -> str:
    return clipped(printable(name), _LONGEST_NAME)


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(map(_name, names[:_LISTED]))
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"
