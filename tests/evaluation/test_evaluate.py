"""Evaluation of a model that can be computed by hand, and examples chosen by rank alone."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from slice_sets import slice_set
from torch import Tensor, nn

from ichfast import ops
from ichfast.data import SliceSet
from ichfast.errors import DataError
from ichfast.evaluation import evaluate, pick_examples
from ichfast.models import MultiTaskUNet, ReducedUNet

SIDE = 16


class Threshold(nn.Module):
    """Blood is what is brighter than one half. Counts its batches; one layer is asleep."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))
        self.noise = nn.Dropout(0.9)
        self.asleep = nn.BatchNorm2d(1).eval()
        self.batches: list[int] = []

    def segment(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        return self.noise(self.gain * (image - 0.5))

    def forward(self, image: Tensor) -> Tensor:
        return self.segment(image)


def slices(n: int = 11, *, labelled: bool = True, empty: tuple[int, ...] = (3, 7)) -> SliceSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, SIDE, SIDE, generator=generator)
    noise = torch.linspace(0, 1, n).view(-1, 1, 1, 1)
    other = torch.rand(n, 1, SIDE, SIDE, generator=generator)
    masks = ((1 - noise) * images + noise * other > 0.5).to(torch.uint8)
    masks[list(empty)] = 0
    return slice_set(images, masks if labelled else None, tuple("abc"[i % 3] for i in range(n)))


@pytest.fixture
def model() -> Threshold:
    return Threshold().train(False).requires_grad_(True)


def test_counts_are_those_of_the_whole_set_at_once(model):
    data = slices()
    assert data.masks is not None
    expected = ops.overlap_counts((data.hu > 500).float()[:, None], data.masks[:, None])[:, 0]
    probabilities = torch.sigmoid(model.segment(data.batch(range(11))[0])).double()
    for batch_size in (1, 4, 100):
        result = evaluate(model, data, batch_size=batch_size)
        assert torch.equal(result.counts, expected)
        torch.testing.assert_close(result.areas, probabilities.detach().sum((1, 2, 3)))
    assert max(model.batches) == 11


def test_metrics_are_ready_for_json(model):
    data = slices()
    data.hu[3] = 0  # slice 3: nothing there, nothing predicted; slice 7 stays a false alarm
    metrics = evaluate(model, data, batch_size=4, threshold=0.5).metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["n_slices"] == 11
    assert metrics["n_patients"] == 3
    assert (metrics["empty_rule"], metrics["empty_slices"]) == ("nan", 1)
    assert metrics["detection"] == {
        "positive": 9,
        "missed": 0,
        "negative": 2,
        "false_alarms": 1,
    }
    assert set(metrics["dice"]) == {"pooled", "per_slice", "per_patient"}


def test_undefined_score_is_null(model):
    data = slices(2, empty=(0, 1))
    data.hu.zero_()
    result = evaluate(model, data, batch_size=2)
    assert result.metrics["dice"] == {"pooled": None, "per_slice": None, "per_patient": None}


def test_threshold_is_a_probability(model):
    data = slices()
    strict = evaluate(model, data, batch_size=4, threshold=0.9).counts
    loose = evaluate(model, data, batch_size=4, threshold=0.1).counts
    assert (strict[:, 0] <= loose[:, 0]).all()
    assert (strict[:, :2].sum(1) < loose[:, :2].sum(1)).all()


def test_loss_does_not_depend_on_the_batches(model):
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return (logits.sigmoid() - target).square().mean()

    one, four, all_ = (evaluate(model, slices(), batch_size=b, loss=loss).loss for b in (1, 4, 11))
    assert one == pytest.approx(four, rel=1e-6) == pytest.approx(all_, rel=1e-6)
    assert evaluate(model, slices(), batch_size=4).loss is None


@pytest.mark.parametrize("training", [True, False])
def test_every_mode_is_restored_and_nothing_is_recorded(training):
    model = Threshold().train(training)
    model.asleep.eval()
    evaluate(model, slices(), batch_size=4)
    assert (model.training, model.noise.training) == (training, training)
    assert not model.asleep.training
    assert model.gain.grad is None


def test_modes_are_restored_after_an_error():
    model = Threshold().train()
    model.segment = lambda image: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluate(model, slices(), batch_size=4)
    assert model.training
    assert torch.is_grad_enabled()


def test_same_bits_twice():
    torch.manual_seed(0)
    model = MultiTaskUNet((4, 8))
    one, two = (evaluate(model, slices(), batch_size=4) for _ in range(2))
    assert torch.equal(one.counts, two.counts)
    assert one.metrics == two.metrics


@pytest.mark.parametrize("data", [slices(labelled=False), slices().select([])])
def test_nothing_to_compare_with_is_an_error(model, data):
    with pytest.raises(DataError, match="at least one slice with a mask"):
        evaluate(model, data, batch_size=4)


def test_examples_go_from_worst_to_best(model):
    data = slices(30, empty=(0, 5))
    evaluation = evaluate(model, data, batch_size=8)
    chosen = pick_examples(model, data, evaluation, n=5)
    defined = evaluation.dice[data.positive.nonzero()[:, 0]]
    assert chosen["rank"].tolist() == [0, 7, 14, 20, 27]
    assert torch.equal(chosen["dice"], defined.sort().values[chosen["rank"]])
    assert "reconstruction" not in chosen
    for image, target, mask, dice in zip(
        *(chosen[key] for key in ("image", "target", "mask", "dice")), strict=True
    ):
        counts = ops.overlap_counts(mask[None], target[None])[0, 0].tolist()
        tp, fp, fn = counts
        assert dice.item() == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert target.any()
        assert image.shape == (1, SIDE, SIDE)


def test_examples_of_the_two_decoder_model():
    torch.manual_seed(0)
    model, data = MultiTaskUNet((4, 8)), slices(4, empty=(3,))
    chosen = pick_examples(model, data, evaluate(model, data, batch_size=4), n=8)
    assert len(chosen["image"]) == 3  # every slice with blood, and no more
    assert chosen["reconstruction"].shape == (3, 2, SIDE, SIDE)
    assert 0 <= chosen["reconstruction"].min() <= chosen["reconstruction"].max() <= 1
    torch.testing.assert_close(chosen["attention"].sum(1, keepdim=True), chosen["image"])


def test_examples_without_any_blood():
    model, data = ReducedUNet((4, 8)), slices(3, empty=(0, 1, 2))
    chosen = pick_examples(model, data, evaluate(model, data, batch_size=4), n=2)
    assert len(chosen["image"]) == 2


def test_outlines_by_hand(model):
    """Found but for a column, missed, false alarm, nothing to find, and of unknown spacing."""
    masks = torch.zeros(5, 1, SIDE, SIDE, dtype=torch.uint8)
    masks[:2, :, 4:8, 4:8] = 1
    masks[4, :, 4:8, 4:8] = 1
    images = masks.float()
    images[0, :, :, 4] = 0
    images[1], images[2] = 0, masks[0]
    data = slice_set(images, masks, ("a", "a", "b", "c", "a"), spacing=(1.5, 2.0))
    data = replace(data, spacings=(*data.spacings[:4], (math.nan, math.nan)))
    assert "hd95" not in evaluate(model, data, batch_size=2).metrics
    for batch_size in (2, 5):
        result = evaluate(model, data, batch_size=batch_size, surfaces=True)
        diagonal = math.hypot(15 * 1.5, 15 * 2.0)
        expected = [2.0, diagonal, diagonal, math.nan, math.nan]
        np.testing.assert_array_equal(result.surface.hd95, expected)
        # Of 12 and 10 boundary pixels, 8 are in both and 2 are 1.5 mm beside the next.
        scores = result.metrics
        near = result.surface.nsd[0]
        assert scores["hd95"]["per_slice"] == pytest.approx((2 + 2 * diagonal) / 3)
        assert scores["hd95"]["per_patient"] == pytest.approx(((2 + diagonal) / 2 + diagonal) / 2)
        assert near.tolist() == [16 / 22, 1.0]
        assert scores["nsd"]["1 mm"]["per_slice"] == pytest.approx(near[0] / 3)
        assert scores["nsd"]["2 mm"]["per_patient"] == pytest.approx(1 / 4)
        assert scores["surface"] == {
            "n_slices": 3,
            "missed": 1,
            "false_alarms": 1,
            "no_spacing": 1,
            "empty_rule": "diagonal",
        }
        assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_without_any_spacing_the_scores_in_mm_are_null(model):
    data = slice_set(*(slices().batch(range(11))), slices().patients, spacing=(math.nan, math.nan))
    scores = evaluate(model, data, batch_size=4, surfaces=True).metrics
    assert scores["hd95"] == {"per_slice": None, "per_patient": None}
    assert scores["surface"]["no_spacing"] == 11


def test_slices_with_blood_are_scored_apart(model):
    data = slices()
    every, positive = (
        evaluate(model, some, batch_size=4).metrics
        for some in (data, data.select(data.positive.nonzero()[:, 0].tolist()))
    )
    assert every["positive"]["n_slices"] == positive["n_slices"] == 9
    for name in ("dice", "jaccard", "n_patients"):
        assert every["positive"][name] == positive[name] == positive["positive"][name]
    assert every["dice"]["pooled"] < positive["dice"]["pooled"]  # false alarms in the other two
    nothing = evaluate(model, slices(2, empty=(0, 1)), batch_size=2).metrics["positive"]
    assert nothing["n_slices"] == nothing["n_patients"] == 0
    assert nothing["dice"] == {"pooled": None, "per_slice": None, "per_patient": None}


def test_slices_and_scans_are_called(model):
    """Series "s" is of two patients, so it is two scans."""
    masks = torch.zeros(5, 1, SIDE, SIDE, dtype=torch.uint8)
    masks[:2, :, 4:8, 4:8] = 1
    images = masks.float()
    images[1], images[2] = 0, masks[0]
    data = slice_set(images, masks, ("a", "a", "b", "b", "c"))
    data = replace(data, series=("s", "s", "s", "s", "t"))
    scores = evaluate(model, data, batch_size=5).metrics
    assert scores["confusion"]["slices"] == {"tp": 1, "fp": 1, "fn": 1, "tn": 2}
    assert scores["confusion"]["scans"] == {"tp": 1, "fp": 1, "fn": 0, "tn": 1}
    assert scores["sensitivity"] == {"slices": 0.5, "scans": 1.0}
    assert scores["specificity"] == {"slices": pytest.approx(2 / 3), "scans": 0.5}
    positive = evaluate(model, data.select([0, 1]), batch_size=5).metrics
    assert positive["specificity"] == {"slices": None, "scans": None}
