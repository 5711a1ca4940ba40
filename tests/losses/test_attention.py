"""The unsupervised loss as a module."""

import pytest
import torch
from torch import Tensor

from ichfast import ops
from ichfast.losses import AttentionWMSELoss


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
