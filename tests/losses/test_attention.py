"""The unsupervised loss as a module."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from ichfast import ops
from ichfast.losses import AttentionWMSELoss

Balance = Literal["paper", "region"]


class TestAttentionWMSELoss:
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        logits = torch.randn(3, 1, 9, 8, requires_grad=True)
        return torch.rand(3, 1, 9, 8), logits, torch.randn(3, 2, 9, 8, requires_grad=True)

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("sigmoid", [True, False])
    @pytest.mark.parametrize("balance", ["paper", "region"])
    def test_value(self, reduction: str, sigmoid: bool, balance: Balance) -> None:
        arguments = self.leaves()
        loss = AttentionWMSELoss("stop", sigmoid, reduction, balance)  # type: ignore[arg-type]
        each = ops.attention_wmse(*arguments, sigmoid_reconstruction=sigmoid, balance=balance)
        expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
        assert torch.equal(loss(*arguments), expected)

    def test_the_paper_s_balance_is_the_default(self) -> None:
        arguments = self.leaves()
        paper, region = AttentionWMSELoss(balance="paper"), AttentionWMSELoss(balance="region")
        assert torch.equal(AttentionWMSELoss()(*arguments), paper(*arguments))
        assert not torch.equal(paper(*arguments), region(*arguments))

    @pytest.mark.parametrize("balance", ["paper", "region"])
    def test_stop(self, balance: Balance) -> None:
        image, logits, reconstruction = self.leaves()
        AttentionWMSELoss(balance=balance)(image, logits, reconstruction).backward()
        assert logits.grad is None
        assert reconstruction.grad is not None
        assert reconstruction.grad.count_nonzero() == reconstruction.numel()

    @pytest.mark.parametrize("balance", ["paper", "region"])
    def test_flow(self, balance: Balance) -> None:
        image, logits, reconstruction = self.leaves()
        AttentionWMSELoss("flow", balance=balance)(image, logits, reconstruction).backward()
        assert logits.grad is not None
        assert logits.grad.count_nonzero() == logits.numel()

    def test_unknown_attention_gradient(self) -> None:
        with pytest.raises(
            ValueError, match="attention_gradient must be 'stop' or 'flow', not 'encoder'"
        ):
            AttentionWMSELoss("encoder")  # type: ignore[arg-type]

    def test_unknown_balance(self) -> None:
        with pytest.raises(ValueError, match="balance must be 'paper' or 'region', not 'area'"):
            AttentionWMSELoss(balance="area")  # type: ignore[arg-type]
