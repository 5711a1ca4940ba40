"""Strong views in plain PyTorch, their noise in integers."""

import math

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen

__all__ = ["strong_view"]

_WORD = 2**32 - 1


def strong_view(
    image: Tensor, *, gamma: Tensor, blur: Tensor, noise: Tensor, seed: Tensor
) -> Tensor:
    """Blur, gamma and noise one after the other; see :func:`ichfast.ops.strong_view`.

    Blurred by a convolution of the batch's largest radius, as far as which a NaN goes here.
    """
    (x,) = widen(image)
    x = x.clamp(0, 1)
    if x.numel() == 0:
        return x.to(image.dtype)
    x = _blur(x, blur)
    x = x ** gamma.to(x.dtype).view(-1, 1, 1, 1)
    z = normal(seed, image.shape[2] * image.shape[3]).to(x.dtype).view_as(x)
    x = x + noise.to(x.dtype).view(-1, 1, 1, 1) * z
    return x.clamp(0, 1).to(image.dtype)


def normal(seed: Tensor, pixels: int) -> Tensor:
    """N(0, 1) for each pixel of an image: (B, pixels) float64."""
    u = ((_hash(seed, 0, pixels) >> 9) * 2 + 1).double() / 2**24
    turn = _hash(seed, 1, pixels)
    v = ((turn >> 8) - ((turn >> 31) << 24)).double() / 2**24  # as a signed number
    return (-2 * u.log()).sqrt() * (2 * math.pi * v).sin()


def _hash(seed: Tensor, stream: int, pixels: int) -> Tensor:
    """32 bits for each pixel."""
    z = seed[:, None] + _signed((stream + 1) * 0x9E3779B97F4A7C15)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift_right(z, 31)
    h = torch.arange(pixels, device=seed.device) ^ (z & _WORD)
    h = (h ^ (h >> 16)) * 0x7FEB352D & _WORD
    h = (h ^ (h >> 15) ^ _shift_right(z, 32)) * 0x846CA68B & _WORD
    return h ^ (h >> 16)


def _signed(word: int) -> int:
    """The int64 with these 64 bits; its products keep the low ones."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Without the sign that ``>>`` copies."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _blur(x: Tensor, blur: Tensor) -> Tensor:
    sigma = blur.double()[:, None]
    radius = (3 * sigma).ceil()
    most = int(radius.max())
    distance = torch.arange(-most, most + 1, device=x.device).double()
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-300)) ** 2)
    weights = weights * (distance.abs() <= radius)
    weights = (weights / weights.sum(1, keepdim=True)).to(x.dtype)
    x = x.transpose(0, 1)  # a channel per image
    for kernel, padding in (
        (weights[:, None, :, None], (0, 0, most, most)),
        (weights[:, None, None, :], (most, most, 0, 0)),
    ):
        padded = torch.nn.functional.pad(x, padding, mode="replicate")
        x = torch.nn.functional.conv2d(padded, kernel, groups=len(weights))
    return x.transpose(0, 1)
