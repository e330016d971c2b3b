"""Profiles that come from a file: whole ones, and damaged ones."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlexporter import baseline as baselines
from mlexporter.baseline import Baseline, BaselineError, read
from mlexporter.outcome_profile import (
    ClassProfile,
    OutcomeProfile,
    RegressionProfile,
    profile_problem,
    sign_classes,
    task_of,
)
from mlexporter.outcomes import OutcomeBinner

SCORES = (-5e-324, 0.5, 1.0)
# 2 x 2 of the confusion, and two bins of the score by (another class, this class)
BINARY = ClassProfile(
    task="binary", classes=("no", "yes"), score_edges=(SCORES,), rows=3, bins=(1, 1, 0, 1, 1, 1, 0, 1), sums=(0.5,) * 4
)
# 3 x 3, for there is one class more; 2 scored classes, 3 predicted ones
DIGITS = ClassProfile(
    task="multiclass", classes=("a", "b"), score_edges=(SCORES, SCORES), confidence_edges=SCORES, rows=1,
    bins=(1, *[0] * 28), sums=(0.0,) * 12,
)  # fmt: skip
NUMBERS = RegressionProfile(
    prediction_edges=(1.0, 2.0), residual_edges=(0.0,), rows=4, bins=(1, 1, 0, 0, 2, 0), sums=(1.5,) * 9
)
WHOLE: list[OutcomeProfile] = [
    BINARY, DIGITS, NUMBERS, RegressionProfile(), ClassProfile(task="multiclass", classes=("a",)),
    ClassProfile(task="binary", classes=("0", "1"), score_edges=(SCORES,)),
]  # fmt: skip


@pytest.mark.parametrize("profile", WHOLE)
def test_whole(profile: OutcomeProfile) -> None:
    assert profile_problem(profile) is None
    OutcomeBinner(profile)


def test_tasks() -> None:
    assert [task_of(profile) for profile in WHOLE[:3]] == ["binary", "multiclass", "regression"]


edges = st.integers(1, 4).map(lambda bins: (-5e-324, *(i / bins for i in range(1, bins)), 1.0))
inner = st.integers(0, 4).map(lambda n: tuple(float(i) for i in range(n)))
names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True).map(tuple)


@st.composite
def profiles(draw: st.DrawFn) -> OutcomeProfile:
    kind = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    if kind == "regression":
        return RegressionProfile(prediction_edges=draw(inner), residual_edges=draw(inner))
    classes = ("a", "b") if kind == "binary" else draw(names)
    scored = draw(st.booleans()) * (1 if kind == "binary" else len(classes))
    return ClassProfile(
        task=kind,  # type: ignore[arg-type]
        classes=classes,
        score_edges=tuple(draw(edges) for _ in range(scored)),
        confidence_edges=draw(edges) if scored and kind == "multiclass" else (),
    )


@given(profiles())
def test_the_layout_is_that_of_the_binner(profile: OutcomeProfile) -> None:
    zero = OutcomeBinner(profile).zero()
    bins, sums = [0] * len(zero.bins), (0.0,) * len(zero.sums)
    bins[0] = 2
    full = msgspec.structs.replace(profile, rows=2, bins=tuple(bins), sums=sums)
    assert profile_problem(full) is None
    reference = OutcomeBinner(full).reference
    assert reference is not None
    assert (reference.bins.shape, reference.sums.shape) == (zero.bins.shape, zero.sums.shape)
    for wrong in ({"bins": tuple(bins[:-1])}, {"bins": (*bins, 0)}, {"sums": sums[:-1]}, {"sums": (*sums, 0.0)}):
        assert f"2 rows go with {len(bins)} bins and {len(sums)} sums" == profile_problem(
            msgspec.structs.replace(full, **wrong)
        )


ASCEND = "the edges of its scores do not ascend from below 0 to 1"


@pytest.mark.parametrize(
    ("profile", "change", "problem"),
    [
        (BINARY, {"classes": ("no",)}, "1 classes; accepted are 2 with task binary"),
        (BINARY, {"classes": ("a", "b", "c")}, "3 classes; accepted are 2 with task binary"),
        (BINARY, {"classes": ("a", "a")}, "a class is there twice"),
        (BINARY, {"threshold": 1.5}, "its threshold is not between 0 and 1"),
        (BINARY, {"threshold": float("nan")}, "its threshold is not between 0 and 1"),
        (BINARY, {"score_edges": (SCORES, SCORES)}, "scores of 2 classes; accepted are none or 1"),
        (BINARY, {"confidence_edges": SCORES}, "edges of confidence go with the scores of a multiclass model"),
        (BINARY, {"score_edges": ((),)}, ASCEND),
        (BINARY, {"score_edges": ((1.0,),)}, ASCEND),
        (BINARY, {"score_edges": ((0.0, 0.5, 1.0),)}, ASCEND),
        (BINARY, {"score_edges": ((-1.0, 0.5, 0.9),)}, ASCEND),
        (BINARY, {"score_edges": ((-1.0, 0.5, 0.5, 1.0),)}, ASCEND),
        (BINARY, {"score_edges": ((-float("inf"), 1.0),)}, ASCEND),
        (BINARY, {"score_edges": ((-1.0, *(i / 2000 for i in range(1, 2001))),)}, ASCEND),
        (BINARY, {"rows": -1}, "-1 rows"),
        (BINARY, {"rows": 1 << 54}, f"{1 << 54} rows"),
        (BINARY, {"rows": 0}, "0 rows go with 0 bins and 0 sums"),
        (BINARY, {"rows": 4}, "its bins do not count 4 rows"),
        (BINARY, {"bins": (1, 1, 2, -1, 1, 1, 0, 1)}, "its bins do not count 3 rows"),
        (BINARY, {"bins": (1, 1, 0, 1, 1 << 70, 1, 0, 1)}, "its bins do not count 3 rows"),
        (BINARY, {"bins": (1, 1, 0, 1)}, "3 rows go with 8 bins and 4 sums"),
        (BINARY, {"sums": (0.5, 0.5, 0.5, float("inf"))}, "a sum is not finite"),
        (DIGITS, {"classes": ()}, "0 classes; accepted are 1 to 20 with task multiclass"),
        (DIGITS, {"classes": tuple(map(str, range(21)))}, "21 classes; accepted are 1 to 20 with task multiclass"),
        (DIGITS, {"score_edges": (SCORES,)}, "scores of 1 classes; accepted are none or 2"),
        (DIGITS, {"confidence_edges": ()}, "edges of confidence go with the scores of a multiclass model"),
        (DIGITS, {"confidence_edges": (0.5, 0.2)}, ASCEND),
        (NUMBERS, {"prediction_edges": (2.0, 1.0)}, "its edges do not ascend"),
        (NUMBERS, {"residual_edges": (float("inf"),)}, "its edges do not ascend"),
        (NUMBERS, {"centre": float("nan")}, "its centre is beyond 1e+140"),
        (NUMBERS, {"centre": -1e141}, "its centre is beyond 1e+140"),
        (NUMBERS, {"rows": 5}, "its bins do not count 5 rows"),
    ],
)
def test_damaged(profile: OutcomeProfile, change: dict[str, Any], problem: str) -> None:
    assert profile_problem(msgspec.structs.replace(profile, **change)) == problem


def written(path: Path, document: dict[str, Any]) -> Path:
    """A file with a hash that matches, if it has one at all: damage done with care."""
    text = json.dumps(document)
    try:
        decoded = msgspec.json.decode(text, type=Baseline)
        text = json.dumps({**document, "hash": baselines._content_hash(decoded)})
    except (msgspec.DecodeError, OverflowError):
        pass
    path.write_text(text)
    return path


def document_of(profile: OutcomeProfile) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(Baseline(rows=3, columns=(), outcomes=profile))
    return content


@pytest.mark.parametrize("profile", WHOLE)
def test_round_trip(profile: OutcomeProfile, tmp_path: Path) -> None:
    assert read(written(tmp_path / "b.json", document_of(profile))).outcomes == profile


def test_a_damaged_profile_is_no_baseline(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", document_of(msgspec.structs.replace(NUMBERS, rows=5)))
    with pytest.raises(BaselineError) as error:
        read(path)
    assert str(error.value) == (
        f"{path}: not a baseline that this version reads: outcomes: its bins do not count 5 rows"
    )


ODD: list[object] = [None, -1, 0, 1, 2**53, 2**64, 10**400, 0.5, 1e308, "", "a", [], [[]], [0.5, 0.1], {}, True]


@pytest.mark.parametrize("profile", WHOLE)
def test_whatever_is_damaged_is_refused_or_works(profile: OutcomeProfile, tmp_path: Path) -> None:
    rng = random.Random(4)
    refused = 0
    for _ in range(400):
        document = json.loads(json.dumps(document_of(profile)))
        for _ in range(rng.randint(1, 2)):
            place: Any = document["outcomes"]
            key: Any = rng.choice(sorted(place))
            while isinstance(place[key], list) and place[key] and rng.random() < 0.7:
                place, key = place[key], rng.randrange(len(place[key]))
            if rng.random() < 0.2:
                del place[key]
                break
            place[key] = copy.deepcopy(rng.choice(ODD))
        try:
            found = read(written(tmp_path / "b.json", document)).outcomes
        except BaselineError:
            refused += 1
            continue
        assert found is not msgspec.UNSET
        binner = OutcomeBinner(found)
        counts = binner.zero() if binner.reference is None else binner.reference
        assert (counts + binner.count([0.5, "a", 1], [1, "a", 0])).bins.sum() >= counts.bins.sum()
    assert refused > 100


def test_signs() -> None:
    assert sign_classes(["yes", "no"]) == ("no", "yes")
    assert sign_classes(["TRUE"]) == ("false", "TRUE")
    assert sign_classes(["1", "-1"]) == ("-1", "1")
    for names in ([], ["a"], ["0", "1", "2"], ["no", "No"], ["0", "true"]):
        assert sign_classes(names) is None
