"""A configuration with the baselines that it names: read as one, and refused as one."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from msgspec import UNSET

from mlexporter import baseline, config
from mlexporter.baseline import Baseline, BaselineError
from mlexporter.budget import comparison_series, outcome_series, series_of
from mlexporter.config import UNVERSIONED, Config
from mlexporter.config_document import KeyPath
from mlexporter.derived_profile import profile_of
from mlexporter.outcome_profile import ProfileError


def load_baselines(settings: Config, file: Path | None) -> dict[tuple[str, str], Baseline]:
    """The baselines that a configuration names, by model and version.

    Args:
        settings: the configuration.
        file: that it was read from, for messages; None where none names a baseline.

    Raises:
        ConfigError: with every one that cannot be used, a line each; or together they take too many series.

    """
    baselines: dict[tuple[str, str], Baseline] = {}
    problems: list[tuple[KeyPath, str]] = []
    newest: dict[str, Baseline] = {}
    series, windows = 0, len(settings.windows)
    for i, model in enumerate(settings.models):
        if model.baseline is None:
            continue
        try:
            found = baseline.read(model.baseline)
            said = model.prediction
            profile = profile_of(found, model.task, said.classes, said.threshold)
        except BaselineError as error:
            problems.append((("models", i, "baseline"), str(error)))
            continue
        except ProfileError as error:
            profile = None  # where nobody built a baseline with outcomes, it does without them
            if found.outcomes is not UNSET:
                problems.append((("models", i), str(error)))
        baselines[model.name, model.version or UNVERSIONED] = found
        series += series_of(found.columns, windows) + outcome_series(profile, windows)
        if model.name in newest:
            series += comparison_series(newest[model.name].columns, windows)
        newest[model.name] = found
    if series > settings.limits.max_series:
        message = f"the models take up to {series} series, more than {settings.limits.max_series}; "
        problems.append((("limits", "max_series"), f"{message}raise it, or leave out columns or windows"))
    if problems:
        assert file is not None
        config.refuse(file, problems)
    return baselines


def missing_extra(settings: Config) -> str | None:
    """What must be installed for a configuration to be served; None where nothing is missing."""
    if settings.labels.store is not None and importlib.util.find_spec("redis") is None:
        return "labels.store needs the extra: pip install 'mlexporter[redis]'"
    return None


def uncounted_outcomes(settings: Config, baselines: dict[tuple[str, str], Baseline]) -> Iterator[str]:
    """What to say of models whose outcomes are not counted: neither baseline nor configuration tells how."""
    for model in settings.models:
        found = baselines.get((model.name, model.version or UNVERSIONED))
        if found is None:
            continue
        try:
            profile_of(found, model.task, model.prediction.classes, model.prediction.threshold)
        except ProfileError as error:
            yield f"model {model.name!r}: outcomes are not counted: {error}"


def shifted_seasons(settings: Config, baselines: dict[tuple[str, str], Baseline]) -> Iterator[str]:
    """What to say of columns whose hours are told in another time zone than that in which their season was learned."""
    for model in settings.models:
        found = baselines.get((model.name, model.version or UNVERSIONED))
        for column in found.columns if found is not None else ():
            own = model.columns.get(column.name)
            if column.season is None or own is None or own.season is False:
                continue
            if own.timezone not in (None, column.season.timezone):
                yield (
                    f"model {model.name!r}, column {column.name!r}: the season was learned by hours of "
                    f"{column.season.timezone}, and is held against hours of {own.timezone}"
                )
