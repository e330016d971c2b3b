"""Which version a batch belongs to, and the caps that no client can pass."""

from collections.abc import Sequence

import pytest

from conftest import baseline, categorical, numeric
from mlexporter.baseline import Baseline
from mlexporter.config import UNVERSIONED, Config, DetectionConfig, DiscoveryConfig, LimitsConfig, ModelConfig, Window
from mlexporter.registry import Registry, Version
from mlexporter.samples import Batch, Reason, Rejection
from mlexporter.snapshot import Monitor

NOW = 1_700_000_000.0
HOUR = 3600.0
OLD = baseline(numeric("x", (0.0, 1.0, 2.0), [0.5, 1.5]), categorical("plan", {"a": 1}))
NEW = baseline(numeric("x", (0.0, 1.0), [0.5]))
# 34 of any version; x: 2 x 5 bins, 5 of the histogram, invalid, 5 of the alarm, 9 gauges a window;
# plan: 2 x 4 bins, invalid, 5 of the alarm, 7 gauges
OLD_SERIES = 34 + (10 + 5 + 2 + 1 + 5 + 2 * 9) + (8 + 1 + 5 + 2 * 7)

# against the version before: info, agreement (2), right (4), and both columns in both windows
COMPARED = 7 + 2 * 2


def registry(
    *models: tuple[str, str | None],
    profiles: Sequence[Baseline] = (),
    discovery: bool = False,
    max_models: int = 8,
    max_versions: int = 8,
    max_series: int = 50_000,
) -> Registry:
    """A registry of configured models, the first ones of which have these baselines."""
    config = Config(
        models=tuple(ModelConfig(name=name, version=version, task="binary") for name, version in models),
        windows=(Window(60.0, "1m"), Window(HOUR, "1h")),
        discovery=DiscoveryConfig(enabled=discovery, max_models=max_models),
        limits=LimitsConfig(max_versions=max_versions, max_series=max_series),
    )
    named = [(name, version or UNVERSIONED) for name, version in models]
    return Registry(config, dict(zip(named, profiles, strict=False)), NOW)


def resolve(
    known: Registry, model: str | None, version: str | None = None, now: float = NOW
) -> tuple[str, str] | Reason:
    """What a batch belongs to, which it is then added to, or why it is refused."""
    found = known.resolve(model, version, now)
    if isinstance(found, Rejection):
        return found.reason
    found.accept(Batch(1, {}), now)
    return found.model, found.name


def get(known: Registry, model: str, version: str) -> Version:
    (found,) = (one for one in known if (one.model, one.name) == (model, version))
    return found


def listed(known: Registry) -> list[str]:
    return [f"{version.model} {version.name}" for version in known]


def test_configured_versions_are_there_from_the_start() -> None:
    known = registry(("m", "2"), ("a", None), ("m", "1"), profiles=[OLD])
    assert listed(known) == ["a unversioned", "m 1", "m 2"]
    assert [version.configured for version in known] == [True] * 3
    # one without a baseline learns it
    assert [(version.monitor is None, version.learns) for version in known] == [
        (True, True),
        (True, True),
        (False, False),
    ]
    counts = get(known, "m", "2").counts
    assert counts is not None
    assert counts.bins.tolist() == [0] * 9
    assert known.series == OLD_SERIES + 34 + 34


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([("m", "2")], ("m", "2")),
        ([("m", None)], ("m", UNVERSIONED)),
        ([("m", "2"), ("m", "1")], ("m", "2")),  # the first one that is configured
        ([("m", "2"), ("n", "1")], Reason.UNKNOWN_MODEL),
        ([], Reason.UNKNOWN_MODEL),
    ],
)
def test_samples_that_name_neither_model_nor_version(
    models: list[tuple[str, str | None]], expected: tuple[str, str] | Reason
) -> None:
    assert resolve(registry(*models, discovery=True), None) == expected


def test_messages_say_what_is_known() -> None:
    two = registry(("m", "1"), ("a", "1"))
    for model, expected in [
        (None, '"model" is needed unless exactly one is known; known: a, m'),
        ("x", "model 'x' is not configured; known: a, m"),
    ]:
        refused = two.resolve(model, None, NOW)
        assert isinstance(refused, Rejection)
        assert refused.message == expected


def test_a_model_is_discovered_only_where_that_is_on() -> None:
    assert resolve(registry(("m", "1")), "x", "1") is Reason.UNKNOWN_MODEL
    known = registry(("m", "1"), discovery=True)
    assert resolve(known, "x", "1") == ("x", "1")
    found = get(known, "x", "1")
    assert (found.configured, found.learns, found.config) == (False, True, None)
    # a model that was met once may be left out if it is the only one
    only = registry(discovery=True)
    assert resolve(only, "x", "1") == ("x", "1")
    assert resolve(only, None) == ("x", "1")


def test_default_version_of_a_discovered_model() -> None:
    known = registry(discovery=True)
    assert resolve(known, "a") == ("a", UNVERSIONED)
    assert resolve(known, "b", "9") == ("b", "9")
    assert resolve(known, "b") == ("b", "9")
    # two versions, and nobody said which
    assert resolve(known, "b", "10") == ("b", "10")
    assert resolve(known, "b") == ("b", UNVERSIONED)


def test_default_version_of_a_configured_model_is_no_rollout() -> None:
    known = registry(("m", "5"), profiles=[OLD])
    assert [resolve(known, "m", version) for version in ("1", "9", None)] == [("m", "1"), ("m", "9"), ("m", "5")]


def test_rollout_shares_the_newest_baseline() -> None:
    known = registry(("m", "1"), ("m", "2"), profiles=[OLD, NEW])
    assert resolve(known, "m", "3") == ("m", "3")
    first, second, third = (get(known, "m", version) for version in "123")
    assert third.monitor is second.monitor is not first.monitor
    assert (third.configured, third.learns) == (False, False)
    assert third.config is not None
    assert third.config.task == "binary"
    assert third.counts is not second.counts


def test_rollout_of_a_model_that_has_no_baseline_learns_its_own() -> None:
    known = registry(("m", "1"))
    assert resolve(known, "m", "2") == ("m", "2")
    assert get(known, "m", "2").learner is not get(known, "m", "1").learner is not None


def test_max_models_counts_discovered_ones() -> None:
    known = registry(("m", "1"), ("n", "1"), discovery=True, max_models=2)
    assert [resolve(known, model) for model in "abcam"] == [
        ("a", UNVERSIONED),
        ("b", UNVERSIONED),
        Reason.MODEL_LIMIT,
        ("a", UNVERSIONED),
        ("m", "1"),
    ]
    assert listed(known) == ["a unversioned", "b unversioned", "m 1", "n 1"]


def test_max_versions_and_retirement_of_silent_ones() -> None:
    known = registry(("m", "1"), profiles=[OLD], max_versions=3)
    assert resolve(known, "m", "2", NOW) == ("m", "2")
    assert resolve(known, "m", "3", NOW + 1) == ("m", "3")
    assert resolve(known, "m", "4", NOW + HOUR) is Reason.VERSION_LIMIT
    assert resolve(known, "m", "2", NOW + 2) == ("m", "2")
    assert resolve(known, "m", "4", NOW + HOUR + 1) is Reason.VERSION_LIMIT
    assert known.series == 3 * OLD_SERIES + 2 * COMPARED
    # the one that is silent for longer than the longest window goes; the configured one stays, though it never spoke
    assert resolve(known, "m", "4", NOW + HOUR + 1.5) == ("m", "4")
    assert listed(known) == ["m 1", "m 2", "m 4"]
    assert known.series == 3 * OLD_SERIES + 2 * COMPARED


def test_a_configured_version_is_never_retired() -> None:
    known = registry(("m", "1"), profiles=[OLD], max_versions=2)
    assert resolve(known, "m", "1", NOW - 9 * HOUR) == ("m", "1")
    assert resolve(known, "m", "2", NOW) == ("m", "2")
    assert resolve(known, "m", "3", NOW) is Reason.VERSION_LIMIT
    assert listed(known) == ["m 1", "m 2"]


def test_versions_of_other_models_do_not_count() -> None:
    known = registry(discovery=True, max_versions=1)
    assert resolve(known, "a", "1") == ("a", "1")
    assert resolve(known, "b", "1") == ("b", "1")
    assert resolve(known, "b", "2") is Reason.VERSION_LIMIT


def test_a_version_that_others_wait_for_is_not_retired() -> None:
    """A baseline that is still learned freezes with the version that learns it, for all that are held against it."""
    known = registry(discovery=True, max_versions=2)
    assert resolve(known, "m", "1") == ("m", "1")
    monitor = Monitor.of(Baseline(rows=0, columns=(), provisional=True), DetectionConfig(), {})
    known.watch(get(known, "m", "1"), monitor, NOW)
    assert resolve(known, "m", "2") == ("m", "2")
    assert resolve(known, "m", "3", NOW + 2 * HOUR) == ("m", "3")
    assert listed(known) == ["m 1", "m 3"]
    assert resolve(known, "m", "4", NOW + 2 * HOUR) is Reason.VERSION_LIMIT


def test_max_series_stops_discovery_at_the_last_that_fits() -> None:
    known = registry(discovery=True, max_series=102)
    assert [resolve(known, model) for model in "abcd"] == [
        ("a", UNVERSIONED),
        ("b", UNVERSIONED),
        ("c", UNVERSIONED),
        Reason.SERIES_LIMIT,
    ]
    assert known.series == 102
    assert registry(discovery=True, max_series=101).room_for(101) is None
    assert registry(discovery=True, max_series=101).room_for(102) is not None


@pytest.mark.parametrize("room", [0, -1])
def test_max_series_stops_rollouts_at_the_last_that_fits(room: int) -> None:
    known = registry(("m", "1"), profiles=[OLD], max_series=2 * OLD_SERIES + COMPARED + room)
    assert resolve(known, "m", "2") == (("m", "2") if room == 0 else Reason.SERIES_LIMIT)
    assert known.series == (2 * OLD_SERIES + COMPARED if room == 0 else OLD_SERIES)


def test_a_comparison_takes_the_columns_of_the_version_before() -> None:
    known = registry(("m", "1"), ("m", "2"), profiles=[OLD, NEW])
    alone = registry(("m", "1"), profiles=[OLD]).series + registry(("m", "2"), profiles=[NEW]).series
    assert known.series == alone + COMPARED


def test_a_refused_batch_leaves_no_trace() -> None:
    known = registry(("m", "1"), profiles=[OLD], max_versions=1)
    for model, version in (("x", "1"), ("m", "2"), ("x", None)):
        assert isinstance(resolve(known, model, version), Reason)
    assert listed(known) == ["m 1"]
    assert known.series == OLD_SERIES
