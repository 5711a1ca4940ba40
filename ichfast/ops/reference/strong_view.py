"""Strong views in plain PyTorch, their noise in integers."""

import math

import torch
from torch import Tensor

from ichfast.ops.reference._dtypes import widen
from ichfast.ops.reference._gaussian import make_weights

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
    z = normal(seed, *image.shape[2:]).to(x.dtype)[:, None]
    x = x + noise.to(x.dtype).view(-1, 1, 1, 1) * z
    return x.clamp(0, 1).to(image.dtype)


def normal(seed: Tensor, height: int, width: int) -> Tensor:
    """N(0, 1) for each pixel: (B, height, width) float64, of two neighbours in a row at a time."""
    row = torch.arange(height, device=seed.device)[:, None] * width
    pair = row + torch.arange(0, width, 2, device=seed.device)
    u = ((_hash(seed, 0, pair) >> 9) * 2 + 1).double() / 2**24
    turn = _hash(seed, 1, pair)
    v = ((turn >> 8) - ((turn >> 31) << 24)).double() / 2**24  # with its sign
    angle = 2 * math.pi * v
    z = (-2 * u.log()).sqrt()[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    return z.flatten(2)[..., :width]


def _hash(seed: Tensor, stream: int, pixel: Tensor) -> Tensor:
    """32 bits for each pixel of each image."""
    z = seed[:, None, None] + _signed((stream + 1) * 0x9E3779B97F4A7C15)
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift_right(z, 31)
    h = pixel ^ (z & _WORD)
    h = (h ^ (h >> 17)) * 0xED5AD4BB & _WORD
    h = (h ^ (h >> 11) ^ _shift_right(z, 32)) * 0xAC4C1B51 & _WORD
    h = (h ^ (h >> 15)) * 0x31848BAB & _WORD
    result: Tensor = h ^ (h >> 14)
    return result


def _signed(word: int) -> int:
    """The int64 with these 64 bits; its products keep the low ones."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Without the sign that ``>>`` copies."""
    result: Tensor = (x >> bits) & (2 ** (64 - bits) - 1)
    return result


def _blur(x: Tensor, blur: Tensor) -> Tensor:
    most = int((3 * blur.double()).ceil().max())
    weights = make_weights(blur, most).to(x.dtype)
    x = x.transpose(0, 1)  # a channel per image
    for kernel, padding in (
        (weights[:, None, :, None], (0, 0, most, most)),
        (weights[:, None, None, :], (most, most, 0, 0)),
    ):
        padded = torch.nn.functional.pad(x, padding, mode="replicate")
        x = torch.nn.functional.conv2d(padded, kernel, groups=len(weights))
    return x.transpose(0, 1)
