"""The masked images themselves, for pictures and for other losses than ``attention_wmse``."""

from typing import Any

import torch
from torch import Tensor

from ichfast.ops._checks import require_floating, require_one_device
from ichfast.ops._layout import empty_gradient
from ichfast.ops.reference.attention_mask import attention_mask as plain_attention_mask

__all__ = ["attention_mask"]


def attention_mask(image: Tensor, logits: Tensor) -> Tensor:
    """x ⊙ (1−m) and x ⊙ m with m = σ(logits), differentiable in both arguments.

    Args:
        image: (B, 1, *spatial).
        logits: (B, 1, *spatial), the segmentation before its sigmoid.

    Returns:
        (B, 2, *spatial), channel 0 background, 1 foreground, in the image's dtype.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
    """
    require_floating("attention_mask", image=image, logits=logits)
    require_one_device("attention_mask", image=image, logits=logits)
    if not (image.ndim >= 3 and image.shape[1] == 1 and image.shape == logits.shape):
        raise ValueError(
            "attention_mask: image and logits must be (B, 1, *spatial) of one shape, "
            f"not {tuple(image.shape)} and {tuple(logits.shape)}"
        )
    masked: Tensor = _AttentionMask.apply(image, logits)
    return masked


class _AttentionMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(image, logits)
        masked: Tensor = torch.ops.ichfast.attention_mask(image, logits)
        return masked

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, logits = ctx.saved_tensors
        want_image, want_logits = ctx.needs_input_grad
        if torch.is_grad_enabled():  # double backward: differentiate the plain form instead
            masked = plain_attention_mask(image, logits)
            wanted = [image] * want_image + [logits] * want_logits
            grads = iter(torch.autograd.grad(masked, wanted, grad, create_graph=True))
            return next(grads) if want_image else None, next(grads) if want_logits else None
        grad_image, grad_logits = torch.ops.ichfast.attention_mask_backward(
            grad, image, logits, want_image, want_logits
        )
        return grad_image if want_image else None, grad_logits if want_logits else None


@torch.library.register_fake("ichfast::attention_mask")
def _(image: Tensor, logits: Tensor) -> Tensor:
    return image.new_empty((image.shape[0], 2, *image.shape[2:]))


@torch.library.register_fake("ichfast::attention_mask_backward")
def _(
    grad: Tensor, image: Tensor, logits: Tensor, image_gradient: bool, logits_gradient: bool
) -> tuple[Tensor, Tensor]:
    return (
        empty_gradient(image) if image_gradient else image.new_empty((0,)),
        empty_gradient(logits) if logits_gradient else logits.new_empty((0,)),
    )
