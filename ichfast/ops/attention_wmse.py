"""The unsupervised loss L_u: no masked image, mask or residual is ever written to memory."""

from typing import Any, Literal

import torch
from torch import Tensor

from ichfast.ops._autograd import OpFunction, differentiate_gradients
from ichfast.ops._checks import require_floating, require_no_grad, require_one_device
from ichfast.ops._layout import empty_gradient
from ichfast.ops._vmap import fold_into_batch
from ichfast.ops.reference.attention_wmse import attention_wmse as plain_attention_wmse

__all__ = ["attention_wmse"]


def attention_wmse(
    image: Tensor,
    logits: Tensor,
    reconstruction: Tensor,
    *,
    sigmoid_reconstruction: bool = True,
    balance: Literal["paper", "region"] = "paper",
) -> Tensor:
    """MSE of the attention-masked images (Wang et al. 2020, Equation 1), per image::

        (Σ(1−m)/N)·MSE[x ⊙ (1−m), r_b] + (Σm/N)·MSE[x ⊙ m, r_f],    m = σ(logits)

    This is the balance "paper", in which the foreground counts by the square of its area. In the
    balance "region" foreground and background count the same, whatever their areas: each MSE is the
    mean of one over the foreground, with weights m, and one over the background, with weights 1−m::

        ½·MSE′[x ⊙ (1−m), r_b] + ½·MSE′[x ⊙ m, r_f],
        MSE′[a, r] = ½·Σm(a−r)²/(Σm + 1) + ½·Σ(1−m)(a−r)²/(Σ(1−m) + 1)

    where a region of less than a voxel fades out, by the 1.

    The gradient reaches the reconstruction, and the logits (through the masked images **and** all
    weights) where they require it; pass ``logits.detach()`` to take the mask as a constant.

    Args:
        image: (B, 1, *spatial), windowed to [0, 1]; no gradient.
        logits: (B, 1, *spatial), the segmentation before its sigmoid.
        reconstruction: (B, 2, *spatial), channel 0 background, 1 foreground.
        sigmoid_reconstruction: the reconstruction is before its sigmoid too.
        balance: "paper" or "region".

    Each of them float64, float32, float16 or bfloat16, not necessarily the same.

    Returns:
        (B,); float64 where an argument is, else float32.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, image requires grad, no such
            balance.
    """
    tensors = {"image": image, "logits": logits, "reconstruction": reconstruction}
    require_floating("attention_wmse", **tensors)
    require_one_device("attention_wmse", **tensors)
    require_no_grad("attention_wmse", image=image)
    if not (
        image.ndim >= 3
        and image.shape[1] == 1
        and image.shape == logits.shape
        and reconstruction.shape == (image.shape[0], 2, *image.shape[2:])
    ):
        raise ValueError(
            "attention_wmse: image and logits must be (B, 1, *spatial) and reconstruction "
            f"(B, 2, *spatial), not {tuple(image.shape)}, {tuple(logits.shape)} and "
            f"{tuple(reconstruction.shape)}"
        )
    if balance not in ("paper", "region"):
        raise ValueError(f"attention_wmse: balance must be 'paper' or 'region', not {balance!r}")
    loss: Tensor = _AttentionWMSE.run(
        image, logits, reconstruction, sigmoid_reconstruction, balance
    )
    return loss


class _AttentionWMSE(OpFunction):
    @staticmethod
    def select(output: Any) -> Any:
        return output[0]

    @staticmethod
    def forward(
        image: Tensor, logits: Tensor, reconstruction: Tensor, s: bool, balance: str
    ) -> tuple[Tensor, Tensor]:
        results: tuple[Tensor, Tensor] = torch.ops.ichfast.attention_wmse.default(
            image, logits, reconstruction, s, balance
        )
        return results

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.sigmoid_reconstruction, ctx.balance = inputs
        _, sums = output
        ctx.mark_non_differentiable(sums)
        ctx.set_materialize_grads(False)  # zeros for the sums
        ctx.save_for_backward(*tensors, sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None, None
        wanted = of_logits, of_reconstruction = ctx.needs_input_grad[1:3]
        grad_logits, grad_reconstruction = _AttentionWMSEBackward.run_in_backward(
            grad, *ctx.saved_tensors, ctx.sigmoid_reconstruction, ctx.balance, *wanted
        )
        return (
            None,
            grad_logits if of_logits else None,
            grad_reconstruction if of_reconstruction else None,
            None,
            None,
        )


class _AttentionWMSEBackward(OpFunction):
    @staticmethod
    def forward(
        grad: Tensor,
        image: Tensor,
        logits: Tensor,
        reconstruction: Tensor,
        sums: Tensor,
        s: bool,
        balance: str,
        of_logits: bool,
        of_reconstruction: bool,
    ) -> tuple[Tensor, Tensor]:
        grads: tuple[Tensor, Tensor] = torch.ops.ichfast.attention_wmse_backward.default(
            grad, image, logits, reconstruction, sums, s, balance, of_logits, of_reconstruction
        )
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, _, ctx.sigmoid_reconstruction, ctx.balance, of_logits, of_reconstruction = inputs
        ctx.wanted = (of_logits, of_reconstruction)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad, image, *arguments = ctx.saved_tensors

        def plain(logits: Tensor, reconstruction: Tensor) -> Tensor:
            return plain_attention_wmse(
                image,
                logits,
                reconstruction,
                sigmoid_reconstruction=ctx.sigmoid_reconstruction,
                balance=ctx.balance,
            )

        of_grad, of_arguments = differentiate_gradients(
            plain, arguments, ctx.wanted, grad, upstream
        )
        return of_grad, None, *of_arguments, None, None, None, None, None


@torch.library.register_fake("ichfast::attention_wmse")
def _(
    image: Tensor, logits: Tensor, reconstruction: Tensor, s: bool, balance: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.float32
    for tensor in (image, logits, reconstruction):
        dtype = torch.promote_types(dtype, tensor.dtype)
    loss = image.new_empty((image.shape[0],), dtype=dtype)
    return loss, image.new_empty((image.shape[0], 3), dtype=torch.float64)


@torch.library.register_fake("ichfast::attention_wmse_backward")
def _(
    grad: Tensor,
    image: Tensor,
    logits: Tensor,
    reconstruction: Tensor,
    sums: Tensor,
    s: bool,
    balance: str,
    logits_gradient: bool,
    reconstruction_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return (
        empty_gradient(logits) if logits_gradient else logits.new_empty((0,)),
        empty_gradient(reconstruction) if reconstruction_gradient else logits.new_empty((0,)),
    )


fold_into_batch("attention_wmse")
fold_into_batch("attention_wmse_backward")
