"""What the drift alarm tells a person, held against the way in which the samples were made to drift."""

import re
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from conftest import Clock, baseline, categorical, numeric
from mlexporter.baseline import Baseline, NumericColumn, Season, sealed
from mlexporter.binning import Binner
from mlexporter.columns import learn_column
from mlexporter.config import ColumnConfig, Config, DiscoveryConfig, ModelConfig
from mlexporter.explanation import drift_of
from mlexporter.samples import Batch, Role
from mlexporter.store import Store

TICK = 15.0
ROWS = 200  # a tick
QUIET_TICKS = 30
DRIFT_TICKS = 12
BASELINE_ROWS = 20_000

Columns = dict[str, list[object]]
Random = np.random.Generator


def with_chance(random: Random, share: float, there: object, values: list[Any]) -> list[object]:
    """Values of which a share is something else."""
    return [there if odd else value for odd, value in zip(random.random(len(values)) < share, values, strict=True)]


def drawn(random: Random, rows: int, *, drift: bool) -> Columns:
    """Columns that drift each in a way of its own."""
    x = random.uniform(size=rows)
    in_bin = random.random(rows) < (0.3 if drift else 0.0)
    cities = [f"c{i:02}" for i in range(40)]
    return {
        "up": random.normal(12 if drift else 10, 2, rows).tolist(),
        "down": random.normal(9.2 if drift else 10, 1, rows).tolist(),
        "wide": random.normal(0, 1.5 if drift else 1, rows).tolist(),
        "narrow": random.normal(0, 0.5 if drift else 1, rows).tolist(),
        "peak": np.where(in_bin, random.uniform(0.42, 0.48, rows), x).tolist(),
        "hole": random.choice(np.array([1, 2, 4, 8, 16]), rows, p=[0.25, 0.25, 0, 0.25, 0.25] if drift else None)
        .tolist(),
        "zeros": np.where(random.random(rows) < (0.7 if drift else 0.5), 0.0, random.lognormal(size=rows)).tolist(),
        "gone": with_chance(random, 0.05 if drift else 0.0, None, random.normal(size=rows).tolist()),
        "gaps": with_chance(random, 0.3 if drift else 0.1, None, random.normal(size=rows).tolist()),
        "far": with_chance(random, 0.06 if drift else 0.0, 1.5, random.uniform(size=rows).tolist()),
        "city": with_chance(random, 0.05 if drift else 0.0, "nowhere", random.choice(cities, rows).tolist()),
        "plan": random.choice(list("abcdef"), rows, p=[0.4, *[0.12] * 5] if drift else None).tolist(),
        "flag": (random.random(rows) < (0.4 if drift else 0.2)).tolist(),
        "still": random.normal(size=rows).tolist(),
    }  # fmt: skip


class Stream:
    """A store that gets samples, and the time."""

    def __init__(self, profile: Baseline, columns: dict[str, ColumnConfig] | None = None, now: float = 1.7e9) -> None:
        self.clock = Clock(now)
        model = ModelConfig(name="m", version="1", columns=columns or {})
        self.store = Store(Config(models=(model,)), {("m", "1"): profile}, self.clock)
        self.evidence: list[NDArray[np.float64]] = []
        self.names = [column.name for column in Binner(profile).columns]

    def tick(self, columns: Columns) -> None:
        size = len(next(iter(columns.values())))
        self.clock.now += TICK
        self.store.observe([Batch(size, dict(columns), model="m", version="1")])
        self.store.tick()
        alarm = self.store.alarm("m", "1")
        assert alarm is not None
        self.evidence.append(alarm.evidence.log_evidence)

    def drift(self) -> dict[str, Any]:
        told = drift_of(self.store.snapshot(), "m", "1")
        assert told is not None
        return told

    def column(self, name: str) -> dict[str, Any]:
        (found,) = (column for column in self.drift()["columns"] if column["column"] == name)
        tiers: dict[str, Any] = found["tiers"]
        return tiers


class Drifted(NamedTuple):
    stream: Stream
    profile: Baseline
    history: Columns
    live: list[Columns]
    begin: float
    told: dict[str, Any]

    def tiers(self, name: str) -> dict[str, Any]:
        (found,) = (column for column in self.told["columns"] if column["column"] == name)
        tiers: dict[str, Any] = found["tiers"]
        return tiers


@pytest.fixture(scope="module")
def drifted() -> Drifted:
    random = np.random.default_rng(3)
    history = drawn(random, BASELINE_ROWS, drift=False)
    learned = tuple(learn_column(Role.FEATURE, name, values, None) for name, values in history.items())
    profile = sealed(Baseline(rows=BASELINE_ROWS, columns=learned))
    stream = Stream(profile)
    for _ in range(QUIET_TICKS):
        stream.tick(drawn(random, ROWS, drift=False))
    begin = stream.clock.now
    live = [drawn(random, ROWS, drift=True) for _ in range(DRIFT_TICKS)]
    for columns in live:
        stream.tick(columns)
    return Drifted(stream, profile, history, live, begin, stream.drift())


NUMBER = r"<?([-+.e0-9]+)"
LEADING = [
    # column, direction, bin, text, the numbers in it, by how much of itself each may be off
    ("up", "mean_up", None, f"mean up by about {NUMBER} standard deviations, from {NUMBER} to {NUMBER}", (1, 10, 12)),
    ("down", "mean_down", None, f"mean down by about {NUMBER} standard deviations, from {NUMBER} to {NUMBER}",
     (0.8, 10, 9.2)),
    ("narrow", "variance_down", None, f"spread down: about {NUMBER} times the baseline's variance", (0.25,)),
    ("hole", "loss", "03 2..4", f"bin 03 2..4 lost {NUMBER} points, from {NUMBER} % to {NUMBER} %", (20, 20, 0)),
    ("zeros", "gain", "01 0", f"bin 01 0 gained {NUMBER} points, from {NUMBER} % to {NUMBER} %", (20, 50, 70)),
    ("gone", "missing_up", None, f"missing rose from {NUMBER} % to {NUMBER} %", (0, 5)),
    ("gaps", "missing_up", None, f"missing rose from {NUMBER} % to {NUMBER} %", (10, 30)),
    ("far", "out_of_range_up", None, f"values out of the baseline's range rose from {NUMBER} % to {NUMBER} %", (0, 6)),
    ("city", "new_categories_up", None,
     f"categories that the baseline does not know rose from {NUMBER} % to {NUMBER} %", (0, 5)),
    ("plan", "gain", "a", f"category a gained {NUMBER} points, from {NUMBER} % to {NUMBER} %", (23.3, 16.7, 40)),
    ("flag", "gain", "true", f"category true gained {NUMBER} points, from {NUMBER} % to {NUMBER} %", (20, 20, 40)),
]  # fmt: skip


@pytest.mark.parametrize("tier", ["warn", "page"])
@pytest.mark.parametrize(("name", "direction", "label", "text", "numbers"), LEADING, ids=[each[0] for each in LEADING])
def test_the_first_reason_is_the_drift(
    drifted: Drifted, name: str, direction: str, label: str | None, text: str, numbers: tuple[float, ...], tier: str
) -> None:
    told = drifted.tiers(name)[tier]
    first = told["reasons"][0]
    assert (first["direction"], first["bin"]) == (direction, label)
    found = re.fullmatch(text.replace("..", r"\.\."), first["text"])
    assert found is not None, first["text"]
    # 800 samples or more: the standard error of the largest of these numbers is a tenth of what they may be off by
    assert [float(number) for number in found.groups()] == pytest.approx(numbers, rel=0.25, abs=0.02)


@pytest.mark.parametrize("tier", ["warn", "page"])
def test_a_wider_spread(drifted: Drifted, tier: str) -> None:
    """1.5 standard deviations; but bins tell little of how far values lie in the outermost ones."""
    (reason,) = drifted.tiers("wide")[tier]["reasons"]
    assert reason["direction"] == "variance_up"
    found = re.fullmatch(f"spread up: about {NUMBER} times the baseline's variance", reason["text"])
    assert found is not None
    assert 1.3 < float(found[1]) < 1.1 * 1.5**2


@pytest.mark.parametrize("tier", ["warn", "page"])
def test_a_peak_within_a_bin(drifted: Drifted, tier: str) -> None:
    """The bin is the fifth of ten, and has the 30 % that moved, and a tenth of the others."""
    (reason,) = drifted.tiers("peak")[tier]["reasons"]
    assert (reason["direction"], reason["bin"][:5]) == ("gain", "05 0.")
    found = re.fullmatch(rf"bin 05 .* gained {NUMBER} points, from {NUMBER} % to {NUMBER} %", reason["text"])
    assert found is not None
    assert [float(number) for number in found.groups()] == pytest.approx((27, 10, 37), rel=0.2)


def test_reasons_are_shares_of_the_evidence(drifted: Drifted) -> None:
    for column in drifted.told["columns"]:
        for told in column["tiers"].values():
            shares = [reason["share"] for reason in told.get("reasons", ())]
            assert shares == sorted(shares, reverse=True)
            assert len(shares) <= 3
            assert sum(shares) <= 1 + 1e-9
            assert all(share >= 0.05 for share in shares)
    # what one of two categories gains the other one loses
    both = drifted.tiers("flag")["warn"]["reasons"]
    assert [(reason["direction"], reason["bin"]) for reason in both] == [("gain", "true"), ("loss", "false")]


def test_times_are_those_of_the_ticks(drifted: Drifted) -> None:
    threshold = drifted.told["log_threshold"]
    # 14 columns, a false alarm in 30 days of 15 s ticks
    assert threshold == pytest.approx(np.log(14 * 30 * 86400 / 15), abs=1e-12)
    start = drifted.begin - QUIET_TICKS * TICK
    for name in set(drifted.stream.names) - {"still"}:
        i = drifted.stream.names.index(name)
        for tier, told in enumerate(drifted.tiers(name).values()):
            evidence = [own[tier, i] for own in drifted.stream.evidence]
            crossed = next(tick for tick, own in enumerate(evidence) if own >= threshold)
            assert crossed >= QUIET_TICKS
            assert told["state"] == "firing"
            assert told["log_evidence"] == evidence[-1] >= threshold
            assert told["fired"] == start + (crossed + 1) * TICK
            assert abs(told["since"] - drifted.begin) <= 2 * TICK
            assert told["since"] < told["fired"]


def test_a_column_without_drift_is_quiet(drifted: Drifted) -> None:
    for tolerance, told in zip((0.001, 0.02), drifted.tiers("still").values(), strict=True):
        # 13 bins, 20,000 rows: a baseline resolves no less
        least = stats.chi2.ppf(0.999, 12) / (2 * BASELINE_ROWS)
        assert told["tolerance"] == pytest.approx(max(tolerance, least), rel=1e-6)
        assert told["log_evidence"] < 4
        assert set(told) == {"state", "log_evidence", "tolerance", "fired", "since"}
        assert (told["state"], told["fired"], told["since"]) == ("quiet", None, None)


def test_the_strongest_column_is_the_first(drifted: Drifted) -> None:
    columns = drifted.told["columns"]
    assert sorted(column["column"] for column in columns) == sorted(drifted.stream.names)
    strongest = [max(tier["log_evidence"] for tier in column["tiers"].values()) for column in columns]
    assert strongest == sorted(strongest, reverse=True)
    assert columns[-1]["column"] == "still"
    assert all(column["dispersion"] == pytest.approx(1.0, abs=0.5) for column in columns)


def test_shares_are_those_of_the_samples(drifted: Drifted) -> None:
    """Categories by name, numbers by rank: bins of equal shares of the history."""
    for column in drifted.told["columns"]:
        for told in column["tiers"].values():
            for side in ("baseline", "live"):
                assert sum(own[side] for own in told.get("bins", [{side: 1.0}])) == pytest.approx(1.0, abs=1e-9)
    plan = {own["bin"]: own for own in drifted.tiers("plan")["page"]["bins"]}
    assert list(plan)[-3:] == ["__other__", "__new__", "__missing__"]
    for name in "abcdef":
        share = drifted.history["plan"].count(name) / BASELINE_ROWS
        assert plan[name]["baseline"] == pytest.approx(share, abs=2e-4)
        assert plan[name]["live"] == pytest.approx(0.4 if name == "a" else 0.12, abs=0.05)
    up = drifted.tiers("up")["page"]["bins"]
    assert [own["bin"][:2] for own in up] == ["__", *(f"{i:02}" for i in range(1, 11)), "__", "__"]
    assert [own["baseline"] for own in up[1:-2]] == pytest.approx([0.1] * 10, abs=2e-4)
    deciles = [-np.inf, *stats.norm.ppf(np.arange(1, 10) / 10), np.inf]
    shifted = np.diff(stats.norm.cdf(np.array(deciles) - 1))
    assert [own["live"] for own in up[1:-2]] == pytest.approx(shifted, abs=0.05)


# -- a stream of few samples, to the last one --------------------------------------------------------------------------

EDGES = [0.0, 0.25, 0.5, 0.75, 1.0]
X = np.random.default_rng(5).uniform(0.01, 0.99, 4000)
SMALL = baseline(numeric("x", EDGES, X), categorical("name", {"Ann": 2000, "Bob": 1500, "Zoe": 500}))


def names(ann: int, bob: int, new: int) -> list[object]:
    return [*["Ann"] * ann, *["Bob"] * bob, *["Eve"] * new]


def test_shares_to_the_last_sample() -> None:
    stream = Stream(SMALL)
    random = np.random.default_rng(6)
    for _ in range(5):
        stream.tick({"x": random.uniform(0, 1, 200).tolist(), "name": names(100, 75, 0) + ["Zoe"] * 25})
    live = [[*random.uniform(0.4, 1.2, 180).tolist(), *[None] * 20] for _ in range(4)]
    for x in live:
        stream.tick({"x": x, "name": names(60, 120, 20)})
    # what told something at once is explained by these samples and no others
    assert (stream.evidence[4] < 4).all()
    assert (stream.evidence[5] > 4).all()
    drift = stream.drift()["columns"]
    assert {column["column"] for column in drift} == {"x", "name"}
    values = np.array([np.nan if v is None else v for x in live for v in x], dtype=np.float64)
    shares = np.array([*np.histogram(values, EDGES)[0], (values > 1).sum(), np.isnan(values).sum()]) / 800
    rows = np.histogram(X, EDGES)[0]
    for told in stream.column("x").values():
        assert told["samples"] == 800
        assert [own["live"] for own in told["bins"]] == pytest.approx([0, *shares])
        # half a row more in each of seven bins
        assert [own["baseline"] for own in told["bins"]] == pytest.approx(
            np.array([0.5, *rows + 0.5, 0.5, 0.5]) / 4003.5
        )
    for told in stream.column("name").values():
        bins = [(own["bin"], own["live"], own["baseline"] * 4003) for own in told["bins"]]
        expected = [("Ann", 0.3, 2000.5), ("Bob", 0.6, 1500.5), ("Zoe", 0, 500.5), ("__other__", 0, 0.5),
                    ("__new__", 0.1, 0.5), ("__missing__", 0, 0.5)]  # fmt: skip
        assert [label for label, *_ in bins] == [label for label, *_ in expected]
        assert [own for _, *own in bins] == [pytest.approx(own) for _, *own in expected]


def test_samples_fade_when_there_are_many() -> None:
    """Yesterday's drift does not hide today's: what was up is down, and soon said to be."""
    stream = Stream(SMALL)
    for low, ticks in ((0.5, 60), (0.0, 12)):
        for _ in range(ticks):
            stream.tick({"x": np.linspace(low + 0.001, low + 0.499, 200).tolist(), "name": names(100, 75, 0)})
    told = stream.column("x")["page"]
    assert told["samples"] < 2000
    assert told["bins"][1]["live"] + told["bins"][2]["live"] > 0.9
    assert told["reasons"][0]["direction"] != "mean_up"


def test_hidden_names_are_shown_nowhere() -> None:
    settings = {"name": ColumnConfig(export_names=False)}
    for columns, shown in (({}, True), (settings, False)):
        stream = Stream(SMALL, columns)
        for _ in range(5):
            stream.tick({"x": [0.5] * 100, "name": names(0, 99, 1)})
        told = msgspec.json.encode(stream.drift()).decode()
        for name in ("Ann", "Bob", "Zoe"):
            assert (name in told) is shown
        assert "Eve" not in told
    page = stream.column("name")["page"]
    assert [own["bin"] for own in page["bins"]] == ["01", "02", "03", "__other__", "__new__", "__missing__"]
    assert page["reasons"][0]["bin"] == "02"
    assert page["reasons"][0]["text"] == "category 02 gained 62 points, from 37 % to 99 %"  # of 1,500.5 / 4,003


# -- by the hour -------------------------------------------------------------------------------------------------------


def seasonal() -> Baseline:
    """Uniform from 0 to 0.5 until noon in Kathmandu, and from 0.5 to 1 after it."""
    x = np.concatenate([np.linspace(0.001, 0.5, 12_000), np.linspace(0.501, 1.0, 12_000)])
    (column,) = baseline(numeric("x", EDGES, x)).columns
    assert isinstance(column, NumericColumn)
    hours = tuple((0, 500, 500, 0, 0, 0, 0) if hour < 12 else (0, 0, 0, 500, 500, 0, 0) for hour in range(24))
    season = Season(timezone="Asia/Kathmandu", hours=hours)
    return sealed(Baseline(rows=24_000, columns=(msgspec.structs.replace(column, season=season),)))


@pytest.mark.parametrize(("utc", "morning"), [(6.0, True), (6.5, False), (18.0, False), (18.5, True)])
def test_a_column_with_a_season_is_held_against_its_hour(utc: float, morning: bool) -> None:
    """Noon there is at 06:15 UTC, and midnight at 18:15."""
    early, late = np.linspace(0.001, 0.5, 100).tolist(), np.linspace(0.501, 1.0, 100).tolist()
    now = 20_000 * 86_400 + utc * 3600
    usual = Stream(seasonal(), now=now)
    turned = Stream(seasonal(), now=now)
    for _ in range(4):
        usual.tick({"x": early if morning else late})
        turned.tick({"x": late if morning else early})
    assert [told["state"] for told in usual.column("x").values()] == ["quiet", "quiet"]
    for told in turned.column("x").values():
        assert told["state"] == "firing"
        here, there = ([500.5 / 1003.5] * 2, [0.5 / 1003.5] * 2)
        expected = [*here, *there] if morning else [*there, *here]
        assert [own["baseline"] for own in told["bins"][1:5]] == pytest.approx(expected)
        assert [own["live"] for own in told["bins"][1:5]] == ([0, 0, 0.5, 0.5] if morning else [0.5, 0.5, 0, 0])


def test_the_mean_is_told_against_that_of_the_hour() -> None:
    x = np.random.default_rng(1).normal(0, 1, 24_000)
    (column,) = baseline(numeric("x", [-6.0, *stats.norm.ppf(np.arange(1, 10) / 10).tolist(), 6.0], x)).columns
    assert isinstance(column, NumericColumn)
    lower = [0, 200, 150, 150, 100, 100, 100, 80, 60, 40, 20, 0, 0]
    hours = tuple(tuple(lower) for _ in range(24))
    seasonal_column = msgspec.structs.replace(column, season=Season(timezone="UTC", hours=hours))
    stream = Stream(sealed(Baseline(rows=24_000, columns=(seasonal_column,))))
    draw = np.random.default_rng(2)
    for _ in range(5):
        stream.tick({"x": draw.normal(0.5, 1, 200).tolist()})
    first = stream.column("x")["page"]["reasons"][0]
    # the mean of a decile of a normal, by scipy; weighted as the hour has it
    cuts = np.array([-np.inf, *stats.norm.ppf(np.arange(1, 10) / 10), np.inf])
    means = -np.diff(stats.norm.pdf(cuts)) / 0.1
    before = float(np.array(lower[1:-2]) @ means / 1000)
    found = re.fullmatch(f"mean up by about {NUMBER} standard deviations, from {NUMBER} to {NUMBER}", first["text"])
    assert found is not None, first
    assert [float(number) for number in found.groups()] == pytest.approx([0.5 - before, before, 0.5], abs=0.1)


# -- states ------------------------------------------------------------------------------------------------------------


def test_states_of_a_model_that_is_learned() -> None:
    clock = Clock()
    discovery = DiscoveryConfig(enabled=True, learn_samples=200, learn_period=3600.0)
    store = Store(Config(discovery=discovery), {}, clock)

    def told(rows: int, seconds: float) -> tuple[str, int]:
        clock.now += seconds
        x = np.linspace(0, 1, rows).tolist()
        store.observe([Batch(rows, {"x": x, "y": list(x)}, model="m", version="1")])
        store.tick()
        drift = drift_of(store.snapshot(), "m", "1")
        assert drift is not None
        return drift["state"], len(drift["columns"])

    assert drift_of(store.snapshot(), "m", "1") is None
    assert told(150, 15) == ("learning", 0)
    assert told(150, 15) == ("provisional", 0)
    assert told(50, 3600) == ("watching", 2)
    found = drift_of(store.snapshot(), "m", "1")
    assert found is not None
    assert {name: found[name] for name in ("model", "version", "log_threshold")} == {
        "model": "m", "version": "1", "log_threshold": pytest.approx(np.log(2 * 30 * 86400 / 15)),
    }  # fmt: skip
    assert drift_of(store.snapshot(), "m", "2") is None
    assert drift_of(store.snapshot(), "other", "1") is None


def test_before_the_first_tick_and_the_first_sample() -> None:
    store = Store(Config(models=(ModelConfig(name="m", version="1"),)), {("m", "1"): SMALL}, Clock())
    told = drift_of(store.snapshot(), "m", "1")
    assert told is not None
    assert (told["state"], told["columns"]) == ("watching", [])
    store.tick()
    told = drift_of(store.snapshot(), "m", "1")
    assert told is not None
    assert told["state"] == "watching"
    for column in told["columns"]:
        assert [tier["log_evidence"] for tier in column["tiers"].values()] == [None, None]
        assert [tier["state"] for tier in column["tiers"].values()] == ["quiet", "quiet"]
