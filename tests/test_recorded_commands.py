"""What the commands on recorded data have in common."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlexporter.baseline import BaselineError
from mlexporter.commands.recorded import (
    bars,
    checked_zone,
    column_options,
    for_people,
    model_of,
    names_of,
    timezone_option,
)
from mlexporter.config import Config, ConfigError, ConfigProblem, DataConfig, DetectionConfig, ModelConfig
from mlexporter.dataset import DatasetError, open_dataset

PATH = Path("mlexporter.yml")


def settings(*models: tuple[str, str | None]) -> Config:
    return Config(models=tuple(ModelConfig(name=name, version=version) for name, version in models))


# -- options -----------------------------------------------------------------------------------------------------------


@click.command()
@column_options
@timezone_option
def told(timezone: str | None, **columns: str | None) -> None:
    click.echo(f"{timezone} {names_of(DataConfig(label='said', time='then'), columns)}")


def test_an_option_for_each_column() -> None:
    result = CliRunner().invoke(told, ["--help"])
    assert re.findall(r"--(\w+)-column", result.output) == [
        "prediction", "label", "id", "version", "latency", "time",
    ]  # fmt: skip
    options = ["--latency-column=took", "--time-column=at", "--timezone=Europe/Berlin"]
    # what is given goes before the configuration, what is not given leaves it
    expected = DataConfig(label="said", latency_seconds="took", time="at")
    assert CliRunner().invoke(told, options).output == f"Europe/Berlin {expected}\n"
    assert CliRunner().invoke(told, []).output == f"None {DataConfig(label='said', time='then')}\n"


@pytest.mark.parametrize("name", ["Berlin", "../etc/passwd", "", "localtime"])
def test_a_time_zone_that_is_none(name: str) -> None:
    result = CliRunner().invoke(told, [f"--timezone={name}"])
    assert result.exit_code == 2
    message = f"Error: Invalid value for '--timezone': \"{name}\" is no time zone; "
    assert result.stderr.splitlines()[-1].startswith(message)


def test_time_zones() -> None:
    zoned = Config(detection=DetectionConfig(timezone="Asia/Tokyo"))
    timed = DataConfig(time="at")
    assert checked_zone(None, Config(), timed) == "UTC"
    assert checked_zone(None, zoned, timed) == "Asia/Tokyo"
    assert checked_zone("Europe/Berlin", zoned, timed) == "Europe/Berlin"
    # without times a zone that was given was given for nothing, one that is set is set for `serve`
    assert checked_zone(None, zoned, DataConfig()) == "Asia/Tokyo"
    with pytest.raises(click.UsageError, match="--timezone is of use with --time-column only"):
        checked_zone("Europe/Berlin", zoned, DataConfig())


# -- models ------------------------------------------------------------------------------------------------------------

MODELS = settings(("churn", "1"), ("churn", "2"), ("churn", None), ("fraud", None))


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("churn", "1", ("churn", "1")),
        ("churn", "9", ("churn", None)),  # the entry for all others
        ("fraud", "9", ("fraud", None)),
        ("fraud", None, ("fraud", None)),
        (None, "2", ("churn", "2")),
    ],
)
def test_the_entry_of_a_model(name: str | None, version: str | None, expected: tuple[str, str | None]) -> None:
    model = model_of(PATH, MODELS, name, version)
    assert (model.name, model.version) == expected


def test_one_entry_needs_no_name() -> None:
    model = model_of(PATH, settings(("churn", "1")), None, None)
    assert (model.name, model.version) == ("churn", "1")
    assert model_of(None, Config(), None, None).name == ""
    assert model_of(None, Config(), "x", "1").name == "x"


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        (None, None, "several models (churn 1, churn 2, churn, fraud); choose one with --model and --version"),
        ("churn", None, "several models (churn 1, churn 2, churn, fraud); choose one with --model and --version"),
        (None, "9", "several models (churn 1, churn 2, churn, fraud); choose one with --model and --version"),
        ("spam", None, "no model spam; there are churn 1, churn 2, churn, fraud"),
        ("spam", "3", "no model spam 3; there are churn 1, churn 2, churn, fraud"),
    ],
)
def test_no_entry_or_many(name: str | None, version: str | None, message: str) -> None:
    with pytest.raises(click.ClickException) as error:
        model_of(PATH, MODELS, name, version)
    assert error.value.message == f"{PATH}: {message}"


# -- errors and bars ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [BaselineError("b: no"), DatasetError("b: no"), ConfigError("b", (ConfigProblem("", 0, 0, "no"),))],
)
def test_expected_errors_are_for_people(error: Exception) -> None:
    with pytest.raises(click.ClickException) as told, for_people():
        raise error
    assert told.value.message == "b: no"
    assert told.value.exit_code == 1


def test_other_errors_are_bugs() -> None:
    with pytest.raises(ZeroDivisionError), for_people():
        raise ZeroDivisionError


def test_no_bar_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    with bars(open_dataset(tmp_path / "a.csv"), ["Reading"]) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")
