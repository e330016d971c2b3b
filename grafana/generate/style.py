"""Colours that all eyes tell apart (Okabe and Ito, 2008), what they stand for, and thresholds in them."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

BLUE = "#0072B2"
SKY = "#56B4E9"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8C8C8C"

# Good is blue and bad is vermilion: never green against red. Words go with the colours wherever there is room.
GOOD, WARN, BAD, NEUTRAL = SKY, ORANGE, VERMILION, GREY

States = Mapping[int, tuple[str, str]]

ALARM: States = {0: ("quiet", GOOD), 1: ("warning", WARN), 2: ("critical", BAD)}
DRIFT: States = {0: ("quiet", GOOD), 1: ("suspected", WARN), 2: ("drifted", BAD)}
RULES: States = {0: ("missing", BAD), 1: ("evaluated", GOOD)}
SUCCESS: States = {0: ("failed", BAD), 1: ("in order", GOOD)}


def fixed(color: str) -> FieldColor:
    """One colour."""
    return FieldColor().mode(FieldColorModeId.FIXED).fixed_color(color)


def by_threshold() -> FieldColor:
    """The colour of the threshold that a value is over."""
    return FieldColor().mode(FieldColorModeId.THRESHOLDS)


def warn_from(value: float) -> ThresholdsConfig:
    """Good up to a value that asks for a look."""
    return steps([(None, GOOD), (value, WARN)])


def bad_from(value: float) -> ThresholdsConfig:
    """Good up to a value that pages, or that nothing should reach."""
    return steps([(None, GOOD), (value, BAD)])


def steps(pairs: Sequence[tuple[float | None, str]]) -> ThresholdsConfig:
    """Thresholds from values, ascending, with their colours; the first value is None."""
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in pairs])
    )


def state_steps(states: States) -> ThresholdsConfig:
    """Thresholds that give each state its colour."""
    return steps([(None if not i else value, states[value][1]) for i, value in enumerate(sorted(states))])


def state_mappings(states: States) -> list[ValueMapping]:
    """States in words."""
    return [
        ValueMap(
            options={
                str(value): ValueMappingResult(text=text, color=color, index=value)
                for value, (text, color) in states.items()
            }
        )
    ]
