"""HD95 and NSD: MONAI, torchmetrics and brute force as oracles, and what the empty rule keeps."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from torchmetrics.functional.segmentation import hausdorff_distance

from ichfast.evaluation.surface import find_boundary, measure_distances, measure_surface

TOLERANCES = (0.0, 1.0, 2.0)
# Multiples of 1/8, so that a distance along an axis is a tolerance exactly or not at all.
mm = st.integers(2, 16).map(lambda eighths: eighths / 8)
spacing = st.tuples(mm, mm).map(np.array)


@st.composite
def pairs(draw, square: bool = False):
    """Two masks of one shape: noise of any density, with a filled block laid over it."""
    height = draw(st.integers(1, 14))
    width = height if square else draw(st.integers(1, 14))
    masks = []
    for _ in range(2):
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        mask = random.random((height, width)) < draw(st.sampled_from([0.0, 0.05, 0.4, 0.9]))
        if draw(st.booleans()):
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            mask[top : top + draw(st.integers(1, 9)), left : left + draw(st.integers(1, 9))] = True
        masks.append(mask)
    return masks


def score(prediction, target, spacing, tolerances=TOLERANCES):
    found = measure_surface(
        prediction[None], target[None], np.asarray(spacing, float)[None], tolerances
    )
    return found.hd95[0], found.nsd[0]


def as_monai(mask):
    return torch.from_numpy(mask)[None, None].float()


@settings(deadline=None, max_examples=120)
@given(pairs(), spacing)
def test_agrees_with_monai(masks, spacing):
    prediction, target = masks
    assume(prediction.any() and target.any())
    hd95, nsd = score(prediction, target, spacing)
    options = {"include_background": True, "spacing": spacing.tolist()}
    one, other = as_monai(prediction), as_monai(target)
    expected = compute_hausdorff_distance(one, other, percentile=95, **options)
    assert hd95 == pytest.approx(expected.item(), rel=1e-5)
    for tolerance, found in zip(TOLERANCES, nsd, strict=True):
        expected = compute_surface_dice(one, other, [tolerance], **options)
        assert found == pytest.approx(expected.item(), rel=1e-5)


@settings(deadline=None, max_examples=50)
@given(pairs(square=True), spacing)
def test_largest_distance_agrees_with_torchmetrics(masks, spacing):
    """Which has no percentile, and is wrong unless height and width are equal."""
    prediction, target = masks
    assume(prediction.any() and target.any())
    ours = max(
        measure_distances(prediction, target, spacing).max(),
        measure_distances(target, prediction, spacing).max(),
    )
    theirs = hausdorff_distance(
        torch.from_numpy(prediction)[None, None].int(),
        torch.from_numpy(target)[None, None].int(),
        num_classes=1,
        include_background=True,
        spacing=spacing.tolist(),
    )
    assert ours == pytest.approx(theirs.item(), rel=1e-5)


@settings(deadline=None)
@given(pairs(), spacing)
def test_distances_by_brute_force(masks, spacing):
    one, other = masks
    assume(one.any() and other.any())
    here, there = (np.argwhere(find_boundary(mask)) * spacing for mask in masks)
    expected = np.linalg.norm(here[:, None] - there[None], axis=-1).min(1)
    np.testing.assert_allclose(measure_distances(one, other, spacing), expected, rtol=1e-12)


def test_by_hand():
    target = np.zeros((9, 9), bool)
    target[2:7, 2:7] = True
    assert find_boundary(target).sum() == 16
    prediction = np.roll(target, 1, axis=1)
    hd95, nsd = score(prediction, target, (1.0, 0.5), (0.0, 0.5))
    assert hd95 == 0.5
    np.testing.assert_array_equal(nsd, [16 / 32, 1.0])


def test_the_edge_of_the_slice_is_a_boundary():
    whole = np.ones((5, 5), bool)
    assert find_boundary(whole).sum() == 16
    assert not find_boundary(whole)[1:4, 1:4].any()


def test_a_tolerance_is_met_whatever_floats_say():
    target = np.zeros((1, 8), bool)
    target[0, 0] = True
    assert 3 * 0.1 > 0.3
    assert score(np.roll(target, 3, 1), target, (0.1, 0.1), (0.3, 0.29))[1].tolist() == [1, 0]


def test_monai_leaves_missed_blood_out_of_the_mean():
    """A disagreement that docs/metrics.md names: theirs is infinity or NaN, ours the diagonal."""
    blood, nothing = np.eye(4, dtype=bool), np.zeros((4, 4), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prediction, target in ((nothing, blood), (blood, nothing)):
            one, other = as_monai(prediction), as_monai(target)
            theirs = compute_hausdorff_distance(one, other, percentile=95, include_background=True)
            assert not theirs.isfinite().any()
            hd95, nsd = score(prediction, target, (3.0, 4.0))
            assert (hd95, nsd.tolist()) == (15, [0, 0, 0])
    hd95, nsd = score(nothing, nothing, (3.0, 4.0))
    assert np.isnan([hd95, *nsd]).all()


def test_torchmetrics_is_wrong_on_oblong_slices():
    """Likewise: it strides its rows by the height."""
    target = np.zeros((4, 12), bool)
    target[1, 1] = True
    prediction = np.roll(target, 9, 1)
    arguments = (torch.from_numpy(mask)[None, None].int() for mask in (prediction, target))
    assert score(prediction, target, (1.0, 1.0))[0] == 9
    try:
        theirs = hausdorff_distance(*arguments, num_classes=1, include_background=True).item()
    except IndexError:
        return
    assert theirs != 9


@settings(deadline=None)
@given(pairs(), spacing)
def test_nothing_is_worse_than_finding_nothing(masks, spacing):
    """The empty rule's scores bound all others, so that a model gains nothing by staying silent."""
    prediction, target = masks
    assume(target.any())
    hd95, nsd = score(prediction, target, spacing)
    worst, none = score(np.zeros_like(target), target, spacing)
    assert 0 <= hd95 <= worst
    assert (nsd >= none).all()
    assert (nsd <= 1).all()


@settings(deadline=None)
@given(pairs(), spacing)
def test_symmetric_and_perfect_only_where_equal(masks, spacing):
    one, other = masks
    assume(one.any() and other.any())
    for first, second in zip(score(one, other, spacing), score(other, one, spacing), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-12)
    assert score(one, one, spacing)[0] == 0
    assert (score(one, one, spacing)[1] == 1).all()
    assert (score(one, other, spacing)[1][0] == 1) == bool(
        (find_boundary(one) == find_boundary(other)).all()
    )


@settings(deadline=None)
@given(pairs(), spacing, st.sampled_from([0.5, 2.0, 4.0]))
def test_mm_scale_with_the_spacing(masks, spacing, factor):
    assume(masks[0].any() or masks[1].any())
    near, far = (
        score(*masks, spacing),
        score(*masks, spacing * factor, tuple(np.multiply(TOLERANCES, factor))),
    )
    assert far[0] == pytest.approx(near[0] * factor)
    np.testing.assert_array_equal(near[1], far[1])


def test_unknown_spacing_is_no_score():
    blood = np.ones((2, 4, 4), np.uint8)
    found = measure_surface(blood, blood, np.array([[np.nan, np.nan], [1, 1]]))
    np.testing.assert_array_equal(found.hd95, [np.nan, 0])
    np.testing.assert_array_equal(found.nsd, [[np.nan, np.nan], [1, 1]])


def test_a_huge_ragged_mask_takes_little_memory():
    """65,536 boundary pixels in each: all pairs would be 32 GiB."""
    checks = np.indices((512, 256)).sum(0) % 2 == 0
    tracemalloc.start()
    assert score(checks, ~checks, (1.0, 1.0))[0] == 1
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((1, 2, 2)), np.ones((1, 2, 3)), np.ones((1, 2))), r"must both be \(N, H, W\)"),
        ((np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2))), r"must both be \(N, H, W\)"),
        ((np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.ones(2)), r"must be \(N, 2\)"),
        ((np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.zeros((1, 2))), "positive"),
        ((np.ones((1, 2, 2)), np.ones((1, 2, 2)), np.ones((1, 2)), (-1.0,)), "at least 0 mm"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure_surface(*arguments)
