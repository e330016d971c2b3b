"""What several tests need: baselines from raw values, a clock that stands still, and the rule about skips."""

import importlib.util
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from mlexporter.baseline import Baseline, CategoricalColumn, Column, NumericColumn, sealed
from mlexporter.samples import Role


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def bin_counts(edges: Sequence[float], values: ArrayLike) -> NDArray[np.int64]:
    """What the project promises, by numpy: below, the bins (edge, next edge], above, missing."""
    x = np.asarray(values, dtype=np.float64)
    missing = np.isnan(x)
    index = np.searchsorted(np.asarray(edges), x[~missing], side="left")
    return np.append(np.bincount(index, minlength=len(edges) + 1), missing.sum()).astype(np.int64)


def numeric(
    name: str,
    edges: Sequence[float],
    values: ArrayLike,
    *,
    coarse: Sequence[int] | None = None,
    role: Role = Role.FEATURE,
) -> NumericColumn:
    """A numeric column of a baseline from raw values, NaN where missing; every edge is exported unless said."""
    x = np.asarray(values, dtype=np.float64)
    finite = x[np.isfinite(x)]
    counts = bin_counts(edges, x)
    index = np.searchsorted(np.asarray(edges), finite, side="left")
    return NumericColumn(
        role=role,
        name=name,
        edges=tuple(map(float, edges)),
        coarse=tuple(range(len(edges)) if coarse is None else coarse),
        counts=tuple(counts.tolist()),
        means=tuple(float(finite[index == i].mean()) if k else None for i, k in enumerate(counts[:-1])),
        mean=float(finite.mean()) if len(finite) else 0.0,
        stddev=float(finite.std()) if len(finite) else 0.0,
        minimum=float(finite.min()) if len(finite) else 0.0,
        maximum=float(finite.max()) if len(finite) else 0.0,
    )


def categorical(
    name: str,
    counts: Mapping[str, int],
    *,
    rare: Mapping[str, int] | None = None,
    missing: int = 0,
    boolean: bool = False,
    complete: bool = True,
    role: Role = Role.FEATURE,
) -> CategoricalColumn:
    """A categorical column of a baseline from its counts."""
    rare = rare or {}
    return CategoricalColumn(
        role=role,
        name=name,
        boolean=boolean,
        categories=tuple(counts),
        rare=tuple(rare) if complete else (),
        complete=complete,
        counts=(*counts.values(), sum(rare.values()), 0, missing),
    )


def baseline(*columns: Column) -> Baseline:
    """A baseline of these columns."""
    rows = max((sum(column.counts) for column in columns), default=0)
    return sealed(Baseline(rows=rows, columns=columns))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code gives")


PROMTOOL_3 = Path(__file__).parents[1] / "tools" / "promtool" / "bin" / "promtool"


@pytest.fixture(params=["2", "3"])
def promtool(request: pytest.FixtureRequest) -> str:
    """Both promtools: the one that is installed, Prometheus 2's in Debian, and that of Prometheus 3."""
    if request.param == "3":
        if not PROMTOOL_3.exists():
            pytest.skip("promtool of Prometheus 3 is not built: make tools/promtool/bin/promtool")
        return str(PROMTOOL_3)
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of the golden files."""
    return Path(__file__).with_name("golden")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where none of these programs, which are one under several names, is installed."""
    return pytest.mark.skipif(not any(map(shutil.which, programs)), reason=f"{programs[0]} is not installed")


def skip_without(*modules: str) -> None:
    """Skip the module that asks, where a package is not installed; looked for, not imported, for some load pandas."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what drives programs: one such file at the end would leave a processor idle for minutes."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


# In CI every program that a test needs is there: a test that skips is one that nobody runs.


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} with CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
