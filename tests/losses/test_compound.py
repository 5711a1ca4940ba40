"""Overlap and cross-entropy together as modules: MONAI's numbers, and nnU-Net's formula."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ichfast.losses import DiceCELoss, DiceLoss, TverskyBCELoss, TverskyLoss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a target, and a mask of one channel that counts less than half in one image."""
    torch.manual_seed(0)
    logits, target = 2 * torch.randn(3, 4, 17, 19), (torch.rand(3, 4, 17, 19) < 0.2).float()
    share = torch.tensor([0.9, 0.6, 0.1]).view(3, 1, 1, 1)
    return logits, target, torch.rand(3, 1, 17, 19) < share


def check(
    loss: torch.nn.Module, expected: Any, logits: Tensor, *others: Tensor, factor: float = 1.0
) -> None:
    """The value and the gradient of ``expected``, a module or a function."""
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, reference = loss(a, *others), expected(b, *others)
    assert value.shape == reference.shape
    torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-6)
    (factor * value).backward()
    (factor * reference).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("jaccard", [False, True])
@pytest.mark.parametrize("over_batch", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "weight", [None, torch.tensor([3.0]), torch.tensor(0.5), torch.tensor([3])], ids=str
)
@pytest.mark.parametrize(
    "options",
    [{}, {"smooth_nr": 1.0, "smooth_dr": 0.5}, {"lambda_dice": 0.3, "lambda_ce": 2.0}],
    ids=str,
)
def test_numbers_of_monai(
    batch: tuple[Tensor, Tensor, Tensor],
    jaccard: bool,
    over_batch: bool,
    reduction: str,
    weight: Tensor | None,
    options: dict[str, float],
) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target, _ = batch
    arguments: dict[str, Any] = {
        "sigmoid": True,
        "jaccard": jaccard,
        "batch": over_batch,
        "reduction": reduction,
        "weight": weight,
        **options,
    }
    theirs = monai_losses.DiceCELoss(**arguments)
    check(DiceCELoss(**arguments), theirs, logits[:, :1], target[:, :1], factor=3.0)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int16, torch.uint8, torch.bool, torch.float64], ids=str
)
def test_targets_of_any_dtype(batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch[0][:, :1], batch[1][:, :1]
    expected = monai_losses.DiceCELoss(sigmoid=True)(logits, target)
    torch.testing.assert_close(DiceCELoss(sigmoid=True)(logits, target.to(dtype)), expected)


def test_positional_arguments(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Every argument of MONAI, in its order."""
    theirs = pytest.importorskip("monai.losses").DiceCELoss
    parameters = inspect.signature(theirs).parameters
    names = list(parameters)
    assert list(inspect.signature(DiceCELoss).parameters)[: len(names)] == names
    values = {
        **{name: parameter.default for name, parameter in parameters.items()},
        "sigmoid": True,
        "jaccard": True,
        "reduction": "sum",
        "smooth_nr": 1.0,
        "smooth_dr": 0.5,
        "batch": True,
        "weight": torch.tensor([2.0]),
        "lambda_dice": 0.5,
        "lambda_ce": 3.0,
    }
    arguments = [values[name] for name in names]
    logits, target = batch[0][:, :1], batch[1][:, :1]
    torch.testing.assert_close(
        DiceCELoss(*arguments)(logits, target), theirs(*arguments)(logits, target)
    )


@pytest.mark.parametrize("option", ["to_onehot_y", "include_background"])
@pytest.mark.filterwarnings("ignore:single channel prediction")
def test_one_channel_is_neither_encoded_nor_left_out(
    batch: tuple[Tensor, Tensor, Tensor], option: str
) -> None:
    """As in MONAI, which warns of it."""
    monai_losses = pytest.importorskip("monai.losses")
    arguments = {"sigmoid": True, option: option == "to_onehot_y"}
    logits, target = batch[0][:, :1], batch[1][:, :1]
    expected = monai_losses.DiceCELoss(**arguments)(logits, target)
    torch.testing.assert_close(DiceCELoss(**arguments)(logits, target), expected)


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        ({}, "needs sigmoid=True"),
        ({"sigmoid": True, "softmax": True}, "TverskyBCELoss .*monai.losses.DiceCELoss"),
        ({"softmax": True}, "TverskyBCELoss .*monai.losses.DiceCELoss"),
        ({"sigmoid": True, "other_act": torch.tanh}, "logits of a sigmoid"),
        ({"sigmoid": True, "squared_pred": True}, "monai.losses.DiceCELoss has it"),
        ({"sigmoid": True, "label_smoothing": 0.1}, "leave it out"),
    ],
)
def test_what_monai_has_and_we_have_not(arguments: dict[str, Any], instead: str) -> None:
    with pytest.raises(TypeError, match=f"DiceCELoss .*{instead}"):
        DiceCELoss(**arguments)


def test_label_smoothing_is_nothing_to_monai(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """So that leaving it out, as we advise, gives MONAI's number."""
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch[0][:, :1], batch[1][:, :1]
    expected = monai_losses.DiceCELoss(sigmoid=True, label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(DiceCELoss(sigmoid=True)(logits, target), expected)


@pytest.mark.parametrize("weight", [2.0, 2, [2.0], [2]], ids=str)
def test_a_weight_need_not_be_a_tensor(batch: tuple[Tensor, Tensor, Tensor], weight: Any) -> None:
    logits, target = batch[0][:, :1], batch[1][:, :1]
    expected = DiceCELoss(sigmoid=True, weight=torch.tensor([2.0]))(logits, target)
    assert torch.equal(DiceCELoss(sigmoid=True, weight=weight)(logits, target), expected)


def test_several_channels_are_a_softmax_to_monai(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"takes one channel, not 4: .*TverskyBCELoss .*monai"):
        DiceCELoss(sigmoid=True)(*batch[:2])


def nnunet_dc_and_bce(
    logits: Tensor, target: Tensor, mask: Tensor | None, *, batch_dice: bool, smooth: float
) -> Tensor:
    """nnU-Net's DC_and_BCE_loss (v2, weights 1): soft Dice of regions, counted by the mask, and the
    cross-entropy's sum over counted voxels by their number."""
    p = logits.sigmoid()
    counted = torch.ones_like(target[:, :1]) if mask is None else mask
    axes = (0, 2, 3) if batch_dice else (2, 3)
    intersection = (p * target * counted).sum(axes)
    sums = (p * counted).sum(axes) + (target * counted).sum(axes)
    dice = (2 * intersection + smooth) / (sums + smooth).clip(1e-8)
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    if mask is None:
        return each.mean() - dice.mean()
    return (each * mask).sum() / mask.sum().clip(min=1e-8) - dice.mean()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("channels", [1, 4])
def test_formula_of_nnunet(
    batch: tuple[Tensor, Tensor, Tensor], masked: bool, batch_dice: bool, channels: int
) -> None:
    """But for a constant 1, and the channels, by which nnU-Net divides where it has no mask."""
    logits, target, mask = batch[0][:, :channels], batch[1][:, :channels], batch[2]
    loss = TverskyBCELoss(
        batch=batch_dice, smooth_nr=5e-6, smooth_dr=5e-6, lambda_ce=channels if masked else 1
    )
    check(
        loss,
        lambda z, t, w=None: 1 + nnunet_dc_and_bce(z, t, w, batch_dice=batch_dice, smooth=1e-5),
        logits,
        target,
        *[mask] * masked,
    )


class TestTverskyBCELoss:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_parts(self, batch: tuple[Tensor, Tensor, Tensor], reduction: str) -> None:
        """Each is what the losses of one part say."""
        logits, target, _ = batch
        shared: dict[str, Any] = {"reduction": reduction}
        options = {"alpha": 0.3, "beta": 0.8, "batch": True, "smooth_nr": 0.5, **shared}
        tversky = TverskyLoss(sigmoid=True, **options)
        loss = TverskyBCELoss(**options, lambda_tversky=2.0, lambda_ce=0.0)
        check(loss, lambda z, t: 2 * tversky(z, t), logits, target)
        weights = [1.0, 2.0, 0.5, 3.0]
        loss = TverskyBCELoss(**shared, lambda_tversky=0.0, lambda_ce=3.0, pos_weight=weights)
        pos_weight = torch.tensor(weights).view(4, 1, 1)
        cross_entropy = torch.nn.BCEWithLogitsLoss(pos_weight=pos_weight, **shared)
        check(loss, lambda z, t: 3 * cross_entropy(z, t), logits, target)

    @pytest.mark.parametrize("mask", [None, 1, 4])
    def test_weights(self, batch: tuple[Tensor, Tensor, Tensor], mask: int | None) -> None:
        """As MONAI weighs its losses, and torch its voxels; what is left out takes no weight."""
        logits, target, counted = batch
        weight, q = torch.tensor([0.0, 2.0, 1.5]), torch.tensor([3.0, 1.0, 0.5])
        masks = [] if mask is None else [torch.rand(3, mask, 17, 19) * counted]

        def expected(z: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
            z, t = z[:, 1:], t[:, 1:]
            w = torch.ones_like(t) if w is None else w.expand(3, 4, 17, 19)[:, 1:]
            p = z.sigmoid()
            intersection, sums = (w * p * t).sum((2, 3)), (w * (p + t)).sum((2, 3))
            dice = 1 - (2 * intersection + 2e-5) / (sums + 2e-5)
            each = binary_cross_entropy_with_logits(
                z, t, w * weight.view(3, 1, 1), pos_weight=q.view(3, 1, 1), reduction="none"
            )
            return (dice * weight).mean() + each.sum() / w.sum()

        loss = TverskyBCELoss(include_background=False, weight=weight, pos_weight=q)
        check(loss, expected, logits, target, *masks)

    def test_one_channel_is_never_left_out(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        arguments = (batch[0][:, :1], batch[1][:, :1], batch[2])
        loss = TverskyBCELoss(include_background=False)
        assert torch.equal(loss(*arguments), TverskyBCELoss()(*arguments))

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_nothing_counts(self, batch: tuple[Tensor, Tensor, Tensor], reduction: str) -> None:
        logits, target, mask = batch
        logits.requires_grad_()
        value = TverskyBCELoss(reduction=reduction)(logits, target, torch.zeros_like(mask))  # type: ignore[arg-type]
        value.backward()
        assert value.item() == 0
        assert logits.grad is not None
        assert logits.grad.count_nonzero() == 0

    def test_weights_follow_the_module(self) -> None:
        loss = TverskyBCELoss(weight=[1, 2], pos_weight=torch.tensor([3, 4])).to("meta")
        for buffer in (loss.weight, loss.pos_weight):
            assert buffer is not None
            assert buffer.is_meta
            assert buffer.dtype == torch.float32

    def test_bad_arguments(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, target, mask = batch
        with pytest.raises(ValueError, match=r"TverskyBCELoss: weight must be \(4,\).* not \(2,\)"):
            TverskyBCELoss(weight=[1.0, 2.0])(logits, target)
        with pytest.raises(ValueError, match=r"pos_weight must be \(3,\)"):
            TverskyBCELoss(False, pos_weight=[1.0] * 4)(logits, target)
        with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', not 'none'"):
            TverskyBCELoss(reduction="none")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="mask must be bool"):
            TverskyBCELoss()(logits, target, mask.long())
        with pytest.raises(TypeError, match=r"mask must be a torch\.Tensor, not list"):
            TverskyBCELoss()(logits, target, [mask])  # type: ignore[arg-type]


def test_a_mask_for_dice_alone(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """What is masked is as if it were not there."""
    logits, target = batch[0][:, :1], batch[1][:, :1]
    mask = torch.zeros(3, 1, 17, 19, dtype=torch.bool)
    mask[..., :9] = True
    loss = DiceCELoss(sigmoid=True, lambda_ce=0.0)
    expected = DiceLoss(sigmoid=True)(logits[..., :9], target[..., :9])
    torch.testing.assert_close(loss(logits, target, mask), expected)
