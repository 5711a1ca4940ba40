"""The masked images themselves, for pictures and for other losses than ``attention_wmse``."""

from typing import Any

import torch
from torch import Tensor

from ichfast.ops._autograd import OpFunction, differentiate_gradients
from ichfast.ops._checks import require_floating, require_one_device
from ichfast.ops._layout import empty_gradient
from ichfast.ops._vmap import fold_into_batch
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
    masked: Tensor = _AttentionMask.run(image, logits)
    return masked


class _AttentionMask(OpFunction):
    @staticmethod
    def forward(image: Tensor, logits: Tensor) -> Tensor:
        masked: Tensor = torch.ops.ichfast.attention_mask.default(image, logits)
        return masked

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        of_image, of_logits = ctx.needs_input_grad
        grad_image, grad_logits = _AttentionMaskBackward.run_in_backward(
            grad, *ctx.saved_tensors, of_image, of_logits
        )
        return grad_image if of_image else None, grad_logits if of_logits else None


class _AttentionMaskBackward(OpFunction):
    @staticmethod
    def forward(
        grad: Tensor, image: Tensor, logits: Tensor, of_image: bool, of_logits: bool
    ) -> tuple[Tensor, Tensor]:
        grads: tuple[Tensor, Tensor] = torch.ops.ichfast.attention_mask_backward.default(
            grad, image, logits, of_image, of_logits
        )
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, of_image, of_logits = inputs
        ctx.wanted = (of_image, of_logits)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad, *arguments = ctx.saved_tensors
        of_grad, of_arguments = differentiate_gradients(
            plain_attention_mask, arguments, ctx.wanted, grad, upstream
        )
        return of_grad, *of_arguments, None, None


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


fold_into_batch("attention_mask")
fold_into_batch("attention_mask_backward")
