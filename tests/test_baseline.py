import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from mlexporter.baseline import (
    Baseline,
    BaselineError,
    CategoricalColumn,
    Days,
    NumericColumn,
    Season,
    Variation,
    encode,
    read,
    sealed,
)
from mlexporter.outcome_profile import ClassProfile
from mlexporter.samples import Role

AGE = NumericColumn(
    role=Role.FEATURE,
    name="age",
    edges=(0.0, 10.0, 20.0, 30.0),
    coarse=(0, 2, 3),
    counts=(0, 1, 2, 3, 0, 4),
    means=(None, 5.0, 15.0, 25.0, None),
    mean=18.0,
    stddev=5.0,
    minimum=1.0,
    maximum=30.0,
)
PLAN = CategoricalColumn(
    role=Role.FEATURE, name="plan", boolean=False, categories=("a", "b"), rare=("c",), counts=(5, 3, 1, 0, 1)
)
GOOD = sealed(Baseline(model="churn", version="7", rows=10, columns=(PLAN, AGE)))


def written(path: Path, baseline: Baseline) -> Path:
    path.write_bytes(encode(baseline))
    return path


def test_round_trip(tmp_path: Path) -> None:
    assert read(written(tmp_path / "b.json", GOOD)) == GOOD


def test_round_trip_of_seasons_days_and_singletons(tmp_path: Path) -> None:
    off = Variation(typical=0.25, usual=0.5)
    days = Days(count=60, divergence=off, missing=off, strange=off, beyond=(("2024-10-04", 0.75),))
    season = Season(timezone="Europe/Berlin", hours=tuple((hour, 2, 0, 0) for hour in range(24)))
    age, plan = (msgspec.structs.replace(column, season=season, days=days) for column in (AGE, PLAN))
    profile = sealed(msgspec.structs.replace(GOOD, columns=(age, msgspec.structs.replace(plan, singletons=3))))
    assert read(written(tmp_path / "b.json", profile)) == profile
    assert profile.hash != GOOD.hash
    assert json.loads(encode(GOOD))["format_version"] == 2


def test_columns_are_ordered_by_role_and_name() -> None:
    label = msgspec.structs.replace(AGE, role=Role.LABEL, name="a")
    assert [c.name for c in sealed(Baseline(rows=10, columns=(label, PLAN, AGE))).columns] == ["age", "plan", "a"]


def test_order_of_columns_does_not_change_the_file() -> None:
    assert encode(sealed(Baseline(model="churn", version="7", rows=10, columns=(AGE, PLAN)))) == encode(GOOD)


def test_file_is_json_in_lines_and_the_hash_is_of_its_content() -> None:
    text = encode(GOOD)
    assert text.endswith(b"}\n")
    assert json.loads(text)["columns"][0]["type"] == "numeric"
    content = msgspec.json.encode(msgspec.structs.replace(GOOD, hash=""))
    assert GOOD.hash == hashlib.sha256(content).hexdigest()[:16]


def test_without_outcomes_the_file_is_as_it_was_before_there_were_any(tmp_path: Path) -> None:
    # as version 0.1 wrote it
    assert GOOD.hash == "567afb881f5ed86b"
    assert "outcomes" not in json.loads(encode(GOOD))
    assert read(written(tmp_path / "b.json", GOOD)).outcomes is msgspec.UNSET


def test_outcomes_are_part_of_the_file_and_its_hash(tmp_path: Path) -> None:
    outcomes = ClassProfile(task="binary", classes=("no", "yes"), rows=3, bins=(1, 0, 1, 1), sums=(0.0, 0.0))
    profile = sealed(msgspec.structs.replace(GOOD, outcomes=outcomes))
    assert profile.hash != GOOD.hash
    assert read(written(tmp_path / "b.json", profile)) == profile
    written_outcomes = json.loads(encode(profile))["outcomes"]
    assert (written_outcomes["kind"], written_outcomes["task"]) == ("classification", "binary")


def test_changed_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "b.json", GOOD)
    path.write_text(path.read_text().replace('"mean": 18.0', '"mean": 19.0'))
    with pytest.raises(BaselineError) as error:
        read(path)
    assert str(error.value) == (
        f"{path}: its content does not match its hash {GOOD.hash}: it was changed after it was built; "
        "build it again with `mlexporter baseline build`"
    )


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="cannot be read: No such file or directory"):
        read(tmp_path / "b.json")


NOT_READ = "not a baseline that this version reads: "


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (msgspec.structs.replace(GOOD, format_version=1), "format_version is 1, accepted is 2"),
        (msgspec.structs.replace(GOOD, format_version=3), "format_version is 3, accepted is 2"),
        (msgspec.structs.replace(GOOD, columns=(AGE, AGE)), "feature column 'age' is there twice"),
        *(
            (
                msgspec.structs.replace(GOOD, columns=(msgspec.structs.replace(AGE, **change),)),
                f"feature column 'age': {m}",
            )
            for change, m in (
                ({"edges": (0.0, 10.0, 10.0, 30.0)}, "its edges do not ascend"),
                ({"edges": (0.0,)}, "0 bins, accepted are 1 to 200"),
                ({"counts": (1, 2)}, "3 bins go with 6 counts and 5 means, none of the counts negative"),
                ({"counts": (0, 1, 2, -3, 0, 4)}, "3 bins go with 6 counts and 5 means, none of the counts negative"),
                ({"means": (1.0,)}, "3 bins go with 6 counts and 5 means, none of the counts negative"),
                ({"coarse": (0, 2)}, "its coarse edges do not ascend from 0 to 3"),
                ({"coarse": (0, 2, 2, 3)}, "its coarse edges do not ascend from 0 to 3"),
            )
        ),
        *(
            (
                msgspec.structs.replace(GOOD, columns=(msgspec.structs.replace(PLAN, **change),)),
                f"feature column 'plan': {m}",
            )
            for change, m in (
                ({"counts": (5, 3)}, "2 categories go with 5 counts, none negative"),
                ({"rare": ("b",)}, "a category is there twice"),
            )
        ),
    ],
)
def test_broken_content_is_refused(tmp_path: Path, baseline: Baseline, message: str) -> None:
    path = written(tmp_path / "b.json", baseline)
    with pytest.raises(BaselineError) as error:
        read(path)
    assert str(error.value) == f"{path}: {NOT_READ}{message}"


def test_other_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text('{"rows": "many", "columns": []}')
    with pytest.raises(BaselineError) as error:
        read(path)
    assert str(error.value) == f"{path}: {NOT_READ}Expected `int`, got `str` - at `$.rows`"
    for content in (b"[", b'{"hash": "\xff"}', b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"):
        path.write_bytes(content)
        with pytest.raises(BaselineError, match=NOT_READ):
            read(path)


def test_sum_limits() -> None:
    assert AGE.sum_limits == (18.0 - 5e6, 18.0 + 5e6)
    constant = msgspec.structs.replace(AGE, mean=0.0, stddev=0.0)
    assert constant.sum_limits == (-1e6, 1e6)
    huge = msgspec.structs.replace(AGE, mean=1e139, stddev=1e139)
    assert huge.sum_limits == (-1e140, 1e140)
