"""The reduced U-Net of Wang et al. 2020 (section 5.2): one convolution per level.

The paper gives the numbers of feature maps only in a figure; 64-128-256-512 with three poolings is
our reading, hence ``channels``.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ichfast.ops._autograd import is_transforming

DEFAULT_CHANNELS = (64, 128, 256, 512)


class MaxPool(nn.Module):
    """2×2 max-pooling, of even sides."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and torch.are_deterministic_algorithms_enabled():
            return max_pool_deterministic(x)  # torch's has no deterministic backward there
        return F.max_pool2d(x, 2)


def max_pool_deterministic(x: Tensor) -> Tensor:
    """``F.max_pool2d(x, 2)`` to the bit, with its gradient: the first of equal values
    gets it, and the last of several NaN."""
    best = x[..., ::2, ::2]
    for row, column in ((0, 1), (1, 0), (1, 1)):
        other = x[..., row::2, column::2]
        best = torch.where((other > best) | other.isnan(), other, best)
    return best


class Encoder(nn.Module):
    """Per level 3×3 convolutions, each with batch normalisation and ReLU; 2×2 max-pooling between
    levels."""

    def __init__(self, channels: Sequence[int], convolutions: int) -> None:
        super().__init__()

        def level(before: int, after: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(convolutions):
                # No bias where batch normalisation follows: it would subtract it again.
                layers.append(nn.Conv2d(after if i else before, after, 3, padding=1, bias=False))
                layers += [nn.BatchNorm2d(after), nn.ReLU()]
            return nn.Sequential(*layers)

        self.levels = nn.ModuleList(level(*pair) for pair in pairwise((1, *channels)))
        self.pool = MaxPool()

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features of every level, finest first."""
        features: list[Tensor] = []
        x = image
        for level in self.levels:
            x = level(self.pool(x) if features else x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Per level a 2×2 transposed convolution with batch normalisation, the encoder's features of
    that level beside it (``skip``), 3×3 convolutions, each with ReLU; a 1×1 convolution gives the
    maps."""

    def __init__(
        self, channels: Sequence[int], maps: int, convolutions: int, *, skip: bool
    ) -> None:
        super().__init__()
        self.skip = skip
        upward = list(pairwise(reversed(channels)))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(below, level, 2, stride=2, bias=False), nn.BatchNorm2d(level)
            )
            for below, level in upward
        )

        def mix(level: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(convolutions):
                before = level if i else (1 + skip) * level
                layers += [nn.Conv2d(before, level, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*layers)

        self.mix = nn.ModuleList(mix(level) for _, level in upward)
        self.out = nn.Conv2d(channels[0], maps, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps at the finest level's size, before any sigmoid."""
        x = features[-1]
        for up, mix, beside in zip(self.up, self.mix, reversed(features[:-1]), strict=True):
            x = up(x)
            x = mix(concatenate(beside, x) if self.skip else x)
        maps: Tensor = self.out(x)
        return maps


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """``torch.cat([a, b], 1)``, with gradients that have no gaps; torch's own inside transforms of
    torch.func, under which tensors have no layout to ask for."""
    if not torch.compiler.is_compiling() and is_transforming():
        return torch.cat([a, b], 1)
    joined: Tensor = _Concatenate.apply(a, b)
    return joined


class _Concatenate(torch.autograd.Function):
    """``torch.cat([a, b], 1)``. The gradients of torch's are views into that of the whole; batch
    normalisation and convolutions have their fast paths for tensors without gaps only."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.channels = a.shape[1], b.shape[1]
        return torch.cat([a, b], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        layout = (
            torch.channels_last
            if grad.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        to_a, to_b = grad.split(ctx.channels, 1)
        return to_a.contiguous(memory_format=layout), to_b.contiguous(memory_format=layout)


class ReducedUNet(nn.Module):
    """Images (B, 1, H, W) → haemorrhage logits (B, 1, H, W).

    ``convolutions`` per level: one is the reduced U-Net; two, with channels 64-128-256-512-1024,
    the classic one (Ronneberger et al. 2015) that Hssayeni et al. 2020 use, here with padding and
    with batch normalisation where the reduced one has it.

    Weights come from torch's global generator, the encoder's first, then the segmentation's.
    """

    kind = "unet"

    def __init__(self, channels: Sequence[int] = DEFAULT_CHANNELS, convolutions: int = 1) -> None:
        super().__init__()
        self.channels, self.convolutions = tuple(channels), convolutions
        if not self.channels or not all(isinstance(n, int) and n >= 1 for n in self.channels):
            raise ValueError(f"channels must be positive numbers, one per level; got {channels}.")
        if not isinstance(convolutions, int) or convolutions < 1:
            raise ValueError(f"convolutions must be a positive number; got {convolutions}.")
        self.encoder = Encoder(self.channels, convolutions)
        self.segmentation = Decoder(self.channels, 1, convolutions, skip=True)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each part by its name, for the optimizers."""
        return {name: list(part.parameters()) for name, part in self.named_children()}

    def segment(self, image: Tensor) -> Tensor:
        self.check(image)
        logits: Tensor = self.segmentation(self.encoder(image))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        return self.segment(image)

    def check(self, image: Tensor) -> None:
        """Raise where ``image`` is not something this model takes."""
        if image.ndim != 4 or image.shape[1] != 1:
            raise ValueError(f"image must have shape (B, 1, H, W); got {tuple(image.shape)}.")
        multiple = 2 ** (len(self.channels) - 1)
        height, width = image.shape[2:]
        if height % multiple or width % multiple or 0 in (height, width):
            raise ValueError(
                f"image sides must be multiples of {multiple} ({len(self.channels) - 1} poolings); "
                f"got {height}×{width}. Resize or pad the image, or use fewer channels."
            )
        weights = self.segmentation.out.weight.dtype
        if image.dtype != weights and not torch.is_autocast_enabled(image.device.type):
            raise TypeError(f"image must be {weights} as the weights are; got {image.dtype}.")
