"""From matches to totals: counts by hand; corrections; pairs of versions; panes."""

import msgspec
import numpy as np
import orjson

from mlexporter.feedback import RIGHT, FeedbackTotals, decoded, encoded
from mlexporter.outcome_profile import ClassProfile, RegressionProfile
from mlexporter.outcomes import OutcomeBinner
from mlexporter.pending.records import Direct, Joined, Match, Pair
from mlexporter.tally import Increment, Side, increments

BINARY = OutcomeBinner(ClassProfile(task="binary", classes=("no", "yes")))
NUMBERS = OutcomeBinner(RegressionProfile(prediction_edges=(10.0, 20.0)))
KEY = ("m", "2")
WIDTHS = (5.0, 60.0)


def side(binner: OutcomeBinner | None = BINARY, totals: FeedbackTotals | None = None) -> Side:
    return Side(binner, totals or FeedbackTotals.zero(binner), WIDTHS)


def match(said: object, label: object, time: float = 1000.0, replaced: tuple[object, float] | None = None) -> Match:
    before = None if replaced is None else (orjson.dumps(replaced[0]), replaced[1])
    return Match("m", "2", orjson.dumps(said), orjson.dumps(label), 30.0, time, before)


def one(joined: Joined, direct: tuple[Direct, ...] = (), of: Side | None = None) -> Increment:
    return increments({KEY: of or side()}, {}, joined, direct)[KEY]


def confusion(increment: Increment) -> list[list[int]]:
    found: list[list[int]] = BINARY.confusion(increment.totals.outcomes.bins).tolist()
    return found


def test_matches_are_counted_by_what_was_said_and_what_was_true() -> None:
    found = one(Joined(matches=[match("yes", "yes"), match("yes", "no"), match("no", "no"), match("no", "no")]))
    assert confusion(found) == [[2, 0], [1, 1]]
    assert (found.totals.labels, found.totals.corrected, found.totals.last_label) == (4, 0, 1000.0)
    assert found.totals.retracted.bins.sum() == 0
    # 30 seconds are in the third bucket: 1, 10, 60, ...
    assert found.totals.delay_counts[:4].tolist() == [0, 0, 4, 0]
    assert found.totals.delay_sum == 120.0


def test_a_correction_takes_back_what_it_replaces() -> None:
    before = one(Joined(matches=[match("yes", "no", 1000.0)]))
    after = one(Joined(matches=[match("yes", "yes", 1100.0, ("no", 1000.0))]), of=side(totals=before.totals))
    assert confusion(after) == [[0, 0], [1, 1]]
    assert BINARY.confusion(after.totals.retracted.bins).tolist() == [[0, 0], [1, 0]]
    assert (after.totals.labels, after.totals.corrected) == (1, 1)
    # the delay is that of the first label
    assert after.totals.delay_counts.sum() == 1
    for timed in after.by_window:
        assert [(each.sign, each.time, each.counts.rows) for each in timed] == [(1, 1100.0, 1), (-1, 1000.0, 1)]


def test_a_correction_takes_back_only_what_was_counted() -> None:
    """What was counted before a restart is in no window of now, and what was counted in other bins nowhere."""
    corrections = [match("yes", "yes", 1100.0, ("no", time)) for time in (900.0, 950.0, 1000.0)]
    began = msgspec.structs.replace(FeedbackTotals.zero(BINARY), since=950.0)
    found = one(Joined(matches=corrections), of=Side(BINARY, began, WIDTHS, since=1000.0))
    assert confusion(found) == [[0, 0], [0, 3]]
    assert BINARY.confusion(found.totals.retracted.bins).tolist() == [[0, 0], [2, 0]]
    assert (found.totals.labels, found.totals.corrected, found.totals.since) == (0, 3, 950.0)
    for timed in found.by_window:
        assert [(each.sign, each.time, each.counts.rows) for each in timed] == [(1, 1100.0, 3), (-1, 1000.0, 1)]


def test_outcomes_go_to_the_panes_of_their_labels() -> None:
    found = one(Joined(matches=[match("yes", "yes", 1001.0), match("yes", "no", 1003.0), match("no", "no", 1021.0)]))
    narrow, wide = found.by_window
    assert [(each.time // 5, each.counts.rows) for each in narrow] == [(200.0, 2), (204.0, 1)]
    assert [(each.time // 60, each.counts.rows) for each in wide] == [(16.0, 2), (17.0, 1)]
    assert sum(each.counts.bins for each in narrow).tolist() == found.totals.outcomes.bins.tolist()  # type: ignore[union-attr]


def test_what_came_together_is_counted_without_a_delay() -> None:
    found = one(Joined(), (Direct("m", "2", ["yes", "no", "maybe"], ["yes", "yes", "no"], 7.0),))
    assert confusion(found) == [[0, 1], [0, 1]]
    assert found.totals.outcomes.invalid == 1
    assert (found.totals.labels, found.totals.delay_counts.sum(), found.totals.last_label) == (3, 0, 7.0)


def test_before_there_is_a_baseline_labels_are_counted_and_outcomes_are_not() -> None:
    found = one(Joined(matches=[match("yes", "yes")]), of=side(None))
    assert found.totals.labels == 1
    assert (found.totals.outcomes.rows, found.by_window) == (0, ())


def test_versions_that_are_not_there_are_passed_over() -> None:
    other = Match("m", "9", b'"yes"', b'"yes"', 1.0, 1.0)
    assert increments({KEY: side()}, {}, Joined(matches=[other], tracked={("n", "1"): 4}), ()) == {}


def test_tracked_and_repeated_are_counted() -> None:
    found = one(Joined(tracked={KEY: 5}, repeated={KEY: 2}))
    assert (found.totals.tracked, found.totals.repeated, found.totals.labels) == (5, 2, 0)


def pairs(label: object | None, *said: tuple[object, object], versions: tuple[str, str] = ("2", "1")) -> list[Pair]:
    known = None if label is None else orjson.dumps(label)
    return [Pair("m", versions, (orjson.dumps(a), orjson.dumps(b)), known) for a, b in said]


def compared(found: list[Pair], binner: OutcomeBinner = BINARY) -> tuple[list[int], dict[str, int]]:
    sides = {("m", "1"): side(binner), KEY: side(binner)}
    totals = increments(sides, {KEY: "1"}, Joined(pairs=found), ())[KEY].totals
    return totals.agreement.tolist(), dict(zip(RIGHT, totals.right.tolist(), strict=True))


def test_a_version_is_compared_with_the_one_before() -> None:
    agreement, right = compared(
        [
            *pairs(None, ("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "what")),
            *pairs("yes", ("yes", "yes"), ("yes", "no"), ("yes", "no"), ("no", "yes"), ("no", "no")),
        ]
    )
    assert agreement == [1, 2]
    assert right == {"this": 2, "previous": 1, "both": 1, "neither": 1}


def test_another_version_before_is_counted_afresh() -> None:
    """As where the version between is gone: what was counted against it says nothing of the one before that."""
    sides = {("m", "0"): side(), ("m", "1"): side(), KEY: side()}
    found = pairs("yes", ("yes", "no"), ("no", "no"))
    first = increments(sides, {KEY: "1"}, Joined(pairs=found), ())[KEY].totals
    assert (first.previous, first.right.tolist()) == ("1", [1, 0, 0, 1])
    sides[KEY] = side(totals=first)
    untouched = increments(sides, {KEY: "0"}, Joined(tracked={KEY: 1}), ())[KEY].totals
    assert (untouched.previous, untouched.right.tolist()) == ("1", [1, 0, 0, 1])
    assert [each.sum() for each in untouched.against("0")] == [0, 0]
    other = pairs("yes", ("yes", "no"), versions=("2", "0"))
    after = increments(sides, {KEY: "0"}, Joined(pairs=other), ())[KEY].totals
    assert (after.previous, after.right.tolist()) == ("0", [1, 0, 0, 0])


def test_pairs_are_turned_so_that_the_later_version_is_this_one() -> None:
    found = pairs("yes", ("yes", "no"), versions=("1", "2"))
    assert compared(found)[1] == {"this": 0, "previous": 1, "both": 0, "neither": 0}
    assert increments({KEY: side()}, {KEY: "0"}, Joined(pairs=found), ()) == {}


def test_of_two_numbers_the_nearer_one_is_right_and_those_of_a_bin_agree() -> None:
    agreement, right = compared([*pairs(None, (11, 19.5), (9, 11)), *pairs(15, (14, 11), (11, 16), (14, 16))], NUMBERS)
    assert agreement == [1, 1]
    assert right == {"this": 1, "previous": 1, "both": 1, "neither": 0}


def test_totals_come_back_from_their_bytes() -> None:
    matches = [match("yes", "no"), match("no", "no", 5.0, ("yes", 4.0)), match("yes", "perhaps")]
    totals = one(Joined(matches=matches, tracked={KEY: 3})).totals
    assert totals.outcomes.invalid == 1
    totals = msgspec.structs.replace(totals, since=77.0)
    again = decoded(encoded(totals, BINARY), BINARY, 99.0)
    for name in FeedbackTotals.__struct_fields__:
        mine, its = getattr(totals, name), getattr(again, name)
        if name in ("outcomes", "retracted"):
            assert (mine.bins.tolist(), mine.sums.tolist(), mine.rows, mine.invalid) == (
                its.bins.tolist(),
                its.sums.tolist(),
                its.rows,
                its.invalid,
            )
        else:
            assert np.array_equal(mine, its), name


def test_totals_of_other_bins_keep_what_has_no_bins() -> None:
    totals = one(Joined(matches=[match("yes", "no")], tracked={KEY: 3})).totals
    again = decoded(encoded(totals, BINARY), NUMBERS, 99.0)
    assert (again.labels, again.tracked, again.outcomes.rows, again.since) == (1, 3, 0, 99.0)
    assert len(again.outcomes.bins) == len(NUMBERS.zero().bins)


def test_damaged_totals_begin_afresh() -> None:
    kept = encoded(one(Joined(matches=[match("yes", "no")])).totals, BINARY)
    for length in range(len(kept)):
        assert decoded(kept[:length], BINARY).labels == 0
