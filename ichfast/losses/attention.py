"""The loss that needs no labels."""

from typing import Literal

from torch import Tensor, nn

from ichfast.losses._arguments import Reduction, check_reduction, reduce
from ichfast.ops.attention_wmse import attention_wmse


class AttentionWMSELoss(nn.Module):
    """The unsupervised loss L_u of the method; see :func:`ichfast.ops.attention_wmse`.

    Args:
        attention_gradient: "stop" takes the mask as a constant; "flow" lets the gradient through it
            into the logits. The paper does not say which.
        sigmoid_reconstruction: the reconstruction is before its sigmoid.
        balance: of the two errors: "paper" weighs them by area, "region" the same.
        reduction: over the images: "mean", "sum" or "none".
    """

    def __init__(
        self,
        attention_gradient: Literal["stop", "flow"] = "stop",
        sigmoid_reconstruction: bool = True,
        reduction: Reduction = "mean",
        balance: Literal["paper", "region"] = "paper",
    ) -> None:
        super().__init__()
        if attention_gradient not in ("stop", "flow"):
            raise ValueError(
                f"attention_gradient must be 'stop' or 'flow', not {attention_gradient!r}"
            )
        if balance not in ("paper", "region"):
            raise ValueError(f"balance must be 'paper' or 'region', not {balance!r}")
        check_reduction(reduction)
        self.attention_gradient = attention_gradient
        self.sigmoid_reconstruction = sigmoid_reconstruction
        self.reduction = reduction
        self.balance = balance

    def forward(self, image: Tensor, logits: Tensor, reconstruction: Tensor) -> Tensor:
        """(B, 1, *S), (B, 1, *S), (B, 2, *S) → a scalar, or (B,) for "none"."""
        if self.attention_gradient == "stop":
            logits = logits.detach()
        loss = attention_wmse(
            image,
            logits,
            reconstruction,
            sigmoid_reconstruction=self.sigmoid_reconstruction,
            balance=self.balance,
        )
        return reduce(loss, self.reduction)
