"""Parts of other images, pasted in, in plain PyTorch."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ichfast.ops.reference._dtypes import widen
from ichfast.ops.reference._gaussian import make_weights

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
    weights = make_weights(feather, math.ceil(3 * _LARGEST_FEATHER)).to(x.dtype)
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
