"""The losses as modules, with MONAI as the oracle for what both have."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ichfast import ops
from ichfast.losses import AttentionWMSELoss, DiceLoss, JaccardLoss, TverskyLoss

SMOOTHING = [{}, {"smooth_nr": 1.0, "smooth_dr": 0.5}, {"smooth_nr": 0.0}]
PAIRS: list[tuple[type[nn.Module], str, dict[str, Any], dict[str, Any]]] = [
    (DiceLoss, "DiceLoss", {}, {}),
    (JaccardLoss, "DiceLoss", {}, {"jaccard": True}),
    (TverskyLoss, "TverskyLoss", {}, {}),
    (TverskyLoss, "TverskyLoss", {"alpha": 0.3, "beta": 0.8}, {"alpha": 0.3, "beta": 0.8}),
]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(3, 4, 17, 19), (torch.rand(3, 4, 17, 19) < 0.2).float()


@pytest.mark.parametrize(("loss", "name", "ours", "theirs"), PAIRS)
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("smoothing", SMOOTHING, ids=str)
def test_numbers_of_monai(
    batch: tuple[Tensor, Tensor],
    loss: type[nn.Module],
    name: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    sigmoid: bool,
    smoothing: dict[str, float],
) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch
    input = logits if sigmoid else logits.sigmoid()
    for over_batch in (False, True):
        for background in (True, False):
            for reduction in ("mean", "sum", "none"):
                shared: dict[str, Any] = {
                    "sigmoid": sigmoid,
                    "batch": over_batch,
                    "reduction": reduction,
                }
                shared |= {"include_background": background, **smoothing}
                one, other = loss(**shared, **ours), getattr(monai_losses, name)(**shared, **theirs)
                a, b = input.clone().requires_grad_(), input.clone().requires_grad_()
                value, expected = one(a, target), other(b, target)
                assert value.shape == expected.shape
                torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
                value.sum().backward()
                expected.sum().backward()
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_single_channel_without_background(loss: type[nn.Module]) -> None:
    """There is nothing but the background then, and MONAI keeps it too."""
    input, target = torch.rand(2, 1, 5, 6), torch.ones(2, 1, 5, 6)
    assert torch.equal(loss(include_background=False)(input, target), loss()(input, target))


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_monai_defaults_are_let_through(loss: type[nn.Module]) -> None:
    loss(to_onehot_y=False, softmax=False, other_act=None, squared_pred=False, jaccard=False)
    loss(weight=None, soft_label=False, ignore_index=None)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ({"to_onehot_y": True}, "one_hot"),
        ({"softmax": True}, "torch.softmax"),
        ({"other_act": torch.tanh}, "activation"),
        ({"squared_pred": True}, "no squared form"),
        ({"jaccard": True}, "JaccardLoss"),
        ({"weight": [1.0, 2.0]}, "reduction='none'"),
        ({"soft_label": True}, "soft targets"),
        ({"ignore_index": 255}, "ignored label"),
        ({"gamma": 2}, "has no argument 'gamma'"),
    ],
)
def test_what_monai_has_and_we_have_not(
    loss: type[nn.Module], argument: dict[str, Any], instead: str
) -> None:
    with pytest.raises(TypeError, match=f"{loss.__name__} .*{instead}"):
        loss(**argument)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss])
def test_alpha_is_tverskys_alone(loss: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match=f"{loss.__name__} has no argument 'alpha'"):
        loss(alpha=0.3)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss, AttentionWMSELoss])
def test_unknown_reduction(loss: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', not 'max'"):
        loss(reduction="max")


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"prediction and target .* \(2, 1, 4, 4\)"):
        DiceLoss()(torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4))


class TestAttentionWMSELoss:
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        logits = torch.randn(3, 1, 9, 8, requires_grad=True)
        return torch.rand(3, 1, 9, 8), logits, torch.randn(3, 2, 9, 8, requires_grad=True)

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("sigmoid", [True, False])
    def test_value(self, reduction: str, sigmoid: bool) -> None:
        arguments = self.leaves()
        loss = AttentionWMSELoss(sigmoid_reconstruction=sigmoid, reduction=reduction)  # type: ignore[arg-type]
        each = ops.attention_wmse(*arguments, sigmoid_reconstruction=sigmoid)
        expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
        assert torch.equal(loss(*arguments), expected)

    def test_stop(self) -> None:
        image, logits, reconstruction = self.leaves()
        AttentionWMSELoss()(image, logits, reconstruction).backward()
        assert logits.grad is None
        assert reconstruction.grad is not None
        assert reconstruction.grad.count_nonzero() == reconstruction.numel()

    def test_flow(self) -> None:
        image, logits, reconstruction = self.leaves()
        AttentionWMSELoss("flow")(image, logits, reconstruction).backward()
        assert logits.grad is not None
        assert logits.grad.count_nonzero() == logits.numel()

    def test_unknown_attention_gradient(self) -> None:
        with pytest.raises(
            ValueError, match="attention_gradient must be 'stop' or 'flow', not 'encoder'"
        ):
            AttentionWMSELoss("encoder")  # type: ignore[arg-type]
