"""The reduced U-Net of Wang et al. 2020 (section 5.2): one convolution per level.

The paper gives the numbers of feature maps only in a figure; 64-128-256-512 with three poolings is
our reading, hence ``channels``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ichfast.models.norm import BatchNorm

DEFAULT_CHANNELS = (64, 128, 256, 512)


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
                layers += [BatchNorm(after), nn.ReLU()]
            return nn.Sequential(*layers)

        self.levels = nn.ModuleList(level(*pair) for pair in pairwise((1, *channels)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """The features of every level, finest first."""
        features: list[Tensor] = []
        pooled = image
        for level in self.levels:
            x, layers = pooled, list(level.children())
            *firsts, (last, norm) = zip(layers[::3], layers[1::3], strict=True)
            for convolution, its_norm in firsts:
                x = its_norm(convolution(x), relu=True)
            x = last(x)
            if len(features) + 1 < len(self.levels):
                x, pooled = norm(x, relu=True, pool=True)
            else:
                x = norm(x, relu=True)
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
                nn.ConvTranspose2d(below, level, 2, stride=2, bias=False), BatchNorm(level)
            )
            for below, level in upward
        )

        def mix(level: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(convolutions):
                before = level if i else (1 + skip) * level
                layers += [nn.Conv2d(before, level, 3, padding=1), nn.ReLU(inplace=True)]
            return nn.Sequential(*layers)

        self.mix = nn.ModuleList(mix(level) for _, level in upward)
        self.out = nn.Conv2d(channels[0], maps, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps at the finest level's size, before any sigmoid."""
        x = features[-1]
        for level, mix, beside in zip(self.up, self.mix, features[-2::-1], strict=True):
            up, norm = level.children()
            x = mix(norm(up(x), beside=beside if self.skip else None))
        maps: Tensor = self.out(x)
        return maps


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
