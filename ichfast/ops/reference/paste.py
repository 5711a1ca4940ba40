"""Parts of other images, pasted in, in plain PyTorch."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ichfast.ops.reference._dtypes import widen

__all__ = ["paste"]

_LARGEST_FEATHER = 4.0  # pixels


def paste(
    image: Tensor,
    target: Tensor | None,
    source: Tensor,
    source_target: Tensor | None,
    region: Tensor,
    *,
    feather: Tensor,
    low: float = -math.inf,
    high: float = math.inf,
) -> tuple[Tensor, Tensor | None]:
    """x + a·(s − x), a being the blurred region; see :func:`ichfast.ops.paste`."""
    x, s = widen(image, source)
    chosen = (region != 0) & (x >= low) & (x <= high)
    weights = _gaussian_weights(feather).to(x.dtype)
    # A convolution with weights of its own for each image: images as channels, each its group.
    a = chosen.to(x.dtype).transpose(0, 1)
    a = functional.conv2d(a, weights[:, None, None, :], padding="same", groups=len(image))
    a = functional.conv2d(a, weights[:, None, :, None], padding="same", groups=len(image))
    a = a.transpose(0, 1)
    mixed = torch.where(a >= 1, s, x + a * (s - x))
    pasted = torch.where(a > 0, mixed, x).to(image.dtype)
    if target is None or source_target is None:
        return pasted, None
    return pasted, torch.where(chosen, source_target, target)


def _gaussian_weights(sigma: Tensor) -> Tensor:
    """(B,) standard deviations up to ``_LARGEST_FEATHER`` → (B, 2n + 1) float64 weights of sum 1, 0
    from ``ceil(3·sigma)`` on; with a sigma of 0, 1 in the middle."""
    reach = math.ceil(3 * _LARGEST_FEATHER)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=sigma.device)
    sigma = sigma.double()[:, None]
    weights = torch.where(offset == 0, 1.0, torch.exp(-0.5 * (offset / sigma).square()))
    weights = torch.where(offset.abs() <= torch.ceil(3 * sigma), weights, 0.0)
    return weights / weights.sum(1, keepdim=True)
