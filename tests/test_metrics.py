"""Dice and Jaccard: MONAI as an independent oracle, and properties that any counts must keep."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_iou
from sklearn.metrics import confusion_matrix, recall_score
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index
from torchmetrics.functional.segmentation import dice_score, mean_iou

from ichfast import metrics, ops
from ichfast.metrics import EmptyRule

RULES: tuple[EmptyRule, ...] = ("nan", "one", "zero")
count = st.integers(0, 2**40)
rows = st.lists(
    st.tuples(st.one_of(st.just(0), count), st.one_of(st.just(0), count), count | st.just(0)),
    min_size=1,
    max_size=12,
)
rule = st.sampled_from(RULES)


def as_counts(items: list[tuple[int, int, int]]) -> Tensor:
    return torch.tensor(items, dtype=torch.int64).reshape(-1, 3)


@pytest.fixture(scope="module")
def masks() -> tuple[Tensor, Tensor]:
    """Twelve slices: random overlaps, then missed, false alarm and both empty."""
    generator = torch.Generator().manual_seed(0)
    prediction = (torch.rand(12, 1, 16, 16, generator=generator) > 0.6).float()
    target = (torch.rand(12, 1, 16, 16, generator=generator) > 0.7).float()
    prediction[9] = 0
    target[10] = 0
    prediction[11], target[11] = 0, 0
    return prediction, target


@pytest.mark.parametrize(("ours", "oracle"), [("dice", compute_dice), ("jaccard", compute_iou)])
def test_agrees_with_monai(ours, oracle, masks):
    prediction, target = masks
    counts = ops.overlap_counts(prediction, target)[:, 0]
    got = getattr(metrics, ours)(counts, empty="one")
    expected = oracle(prediction, target, ignore_empty=False)[:, 0]
    torch.testing.assert_close(got, expected.double(), rtol=1e-6, atol=0)

    undefined = oracle(prediction, target, ignore_empty=True)[:, 0]
    got = getattr(metrics, ours)(counts, empty="nan")
    torch.testing.assert_close(got[:10], undefined[:10].double(), rtol=1e-6, atol=0)
    assert undefined[10].isnan()
    assert got[10] == 0
    assert undefined[11].isnan()
    assert got[11].isnan()


def test_dice_of_slices_agrees_with_torchmetrics(masks):
    prediction, target = masks
    found = metrics.dice(ops.overlap_counts(prediction, target)[:, 0], empty="nan")
    expected = dice_score(
        prediction.int(), target.int(), num_classes=1, average="macro",
        include_background=True, aggregation_level="samplewise",
    )  # fmt: skip
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0, equal_nan=True)


def test_torchmetrics_scores_what_has_no_jaccard(masks):
    """A disagreement that docs/metrics.md names: −1 for both empty, which a mean would take in."""
    prediction, target = masks
    found = metrics.jaccard(ops.overlap_counts(prediction, target)[:, 0], empty="nan")
    expected = mean_iou(
        prediction.int(), target.int(), num_classes=1, include_background=True, per_class=True
    )[:, 0]
    torch.testing.assert_close(found[:11], expected[:11].double(), rtol=1e-6, atol=0)
    assert found[11].isnan()
    assert expected[11] == -1


def test_aggregations_by_hand():
    counts = as_counts([(10, 0, 0), (0, 0, 10), (5, 5, 0), (0, 0, 0)])
    scores = metrics.aggregate(counts, ["a", "a", "b", "b"])
    assert scores["dice"]["pooled"] == 30 / 45
    assert scores["dice"]["per_slice"] == pytest.approx((1 + 0 + 10 / 15) / 3)
    assert scores["dice"]["per_patient"] == pytest.approx((20 / 30 + 10 / 15) / 2)
    assert scores["jaccard"]["pooled"] == 15 / 30
    assert metrics.count_detections(counts) == {
        "positive": 3,
        "missed": 1,
        "negative": 1,
        "false_alarms": 0,
    }


@pytest.mark.parametrize(("empty", "value"), [("one", 1.0), ("zero", 0.0), ("nan", math.nan)])
def test_empty_rule_speaks_only_for_both_empty(empty, value):
    counts = as_counts([(0, 0, 0), (0, 3, 0), (0, 0, 3)])
    for score in (metrics.dice, metrics.jaccard):
        both, false_alarm, missed = score(counts, empty=empty).tolist()
        assert both == value or (math.isnan(both) and math.isnan(value))
        assert (false_alarm, missed) == (0, 0)


@settings(deadline=None)
@given(rows, rule)
def test_bounds_and_conversion(items, empty):
    d, j = (score(as_counts(items), empty=empty) for score in (metrics.dice, metrics.jaccard))
    assert torch.equal(d.isnan(), j.isnan())
    d, j = d[~d.isnan()], j[~j.isnan()]
    assert ((j >= 0) & (j <= d) & (d <= 1)).all()
    torch.testing.assert_close(d, 2 * j / (1 + j), rtol=1e-12, atol=0)


@settings(deadline=None)
@given(rows, rule, st.randoms(use_true_random=False), st.data())
def test_order_of_slices_does_not_matter(items, empty, random, data):
    patients = data.draw(st.lists(st.sampled_from("abc"), min_size=len(items), max_size=len(items)))
    shuffled = list(range(len(items)))
    random.shuffle(shuffled)
    one = metrics.aggregate(as_counts(items), patients, empty=empty)
    two = metrics.aggregate(
        as_counts([items[i] for i in shuffled]), [patients[i] for i in shuffled], empty=empty
    )
    for name in one:
        assert one[name] == pytest.approx(two[name], rel=1e-12, nan_ok=True)
    assert one["dice"]["pooled"] == pytest.approx(two["dice"]["pooled"], rel=0, nan_ok=True)


@settings(deadline=None)
@given(rows, rule, st.data())
def test_missing_more_never_looks_better(items, empty, data):
    """Voxels that go from found to missed raise no score in any aggregation, under any rule."""
    patients = data.draw(st.lists(st.sampled_from("abc"), min_size=len(items), max_size=len(items)))
    worse = [
        (tp - lost, fp, fn + lost)
        for tp, fp, fn in items
        for lost in [data.draw(st.integers(0, tp))]
    ]
    before = metrics.aggregate(as_counts(items), patients, empty=empty)
    after = metrics.aggregate(as_counts(worse), patients, empty=empty)
    for name in before:
        for key in metrics.AGGREGATIONS:
            a, b = after[name][key], before[name][key]
            assert a <= b + 1e-12 or (math.isnan(a) and math.isnan(b))
    assert (
        metrics.count_detections(as_counts(worse))["missed"]
        >= metrics.count_detections(as_counts(items))["missed"]
    )


def test_counts_beyond_32_bits_are_exact():
    counts = as_counts([(2**40, 0, 0)] * 4)
    assert metrics.aggregate(counts, ["a"] * 4)["dice"]["pooled"] == 1.0


@pytest.mark.parametrize(
    "counts", [torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 3), torch.tensor(3)]
)
def test_wrong_counts_are_refused(counts):
    with pytest.raises(ValueError, match="int64 with a last dimension of 3"):
        metrics.dice(counts)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="one of nan, one, zero"):
        metrics.dice(as_counts([(1, 1, 1)]), empty="skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one patient for each"):
        metrics.aggregate(as_counts([(1, 1, 1)]), ["a", "b"])
    with pytest.raises(ValueError, match="N >= 1"):
        metrics.aggregate(as_counts([]), [])


@settings(deadline=None)
@given(rows, st.data())
def test_calls_agree_with_scikit_learn(items, data):
    counts = as_counts(items)
    scans = data.draw(st.lists(st.sampled_from("abcd"), min_size=len(items), max_size=len(items)))
    of_scans = torch.stack(
        [counts[[own == scan for own in scans]].sum(0) for scan in sorted(set(scans))]
    )
    for found, each in (
        (metrics.count_confusion(counts), counts),
        (metrics.count_confusion(counts, scans), of_scans),
    ):
        truth, called = (each[:, 0] + each[:, 2] > 0), (each[:, 0] + each[:, 1] > 0)
        (tn, fp), (fn, tp) = confusion_matrix(truth, called, labels=[False, True]).tolist()
        assert found == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
        for ours, positive in ((metrics.sensitivity, True), (metrics.specificity, False)):
            theirs = recall_score(truth, called, pos_label=positive, zero_division=math.nan)
            assert ours(found) == pytest.approx(theirs, nan_ok=True)


@settings(deadline=None)
@given(rows)
def test_dice_and_jaccard_agree_with_torchmetrics(items):
    """As F1 and Jaccard of voxels, which have no slices: pooled."""
    small = [tuple(min(n, 9) for n in row) for row in items]
    tp, fp, fn = (sum(column) for column in zip(*small, strict=True))
    prediction = torch.tensor([1] * (tp + fp) + [0] * fn)
    target = torch.tensor([1] * tp + [0] * fp + [1] * fn)
    found = metrics.aggregate(as_counts(small), ["a"] * len(small), empty="zero")
    for name, theirs in (("dice", binary_f1_score), ("jaccard", binary_jaccard_index)):
        expected = theirs(prediction, target).item() if len(target) else 0
        assert found[name]["pooled"] == pytest.approx(expected)
