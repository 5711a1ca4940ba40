"""The two-decoder model of Wang et al. 2020 (Figure 2): segmentation and reconstruction."""

from collections.abc import Sequence

from torch import Tensor

from ichfast.models.unet import DEFAULT_CHANNELS, Decoder, ReducedUNet


class MultiTaskUNet(ReducedUNet):
    """A :class:`ReducedUNet` with a second decoder that rebuilds background and foreground.

    The second decoder has no skip connections: it has to see through the bottleneck. It is built
    last, so that from one seed both models start with the same segmentation path.
    """

    kind = "multitask"

    def __init__(self, channels: Sequence[int] = DEFAULT_CHANNELS, convolutions: int = 1) -> None:
        super().__init__(channels, convolutions)
        self.reconstruction = Decoder(self.channels, 2, convolutions, skip=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Logits (B, 1, H, W) and reconstruction (B, 2, H, W: background, foreground), both before
        their sigmoid."""
        self.check(image)
        features = self.encoder(image)
        return self.segmentation(features), self.reconstruction(features)
