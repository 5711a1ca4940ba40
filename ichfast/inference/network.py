"""One network of one or several: logits averaged, and divided by the temperature."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ichfast.models import ReducedUNet
from ichfast.models.compute import has_bfloat16, to_channels_last


class Network(nn.Module):
    """Images (B, 1, H, W) → calibrated logits (B, 1, H, W), float32."""

    def __init__(self, members: Sequence[ReducedUNet], temperature: float = 1.0) -> None:
        super().__init__()
        self.networks = nn.ModuleList(members)
        self.temperature = temperature

    @property
    def members(self) -> list[ReducedUNet]:
        return cast(list[ReducedUNet], list(self.networks))

    @property
    def width(self) -> int:
        """Feature maps of the finest level, which take most of the memory."""
        return max(member.channels[0] for member in self.members)

    def segment(self, image: Tensor) -> Tensor:
        first, *others = self.members
        logits: Tensor = first.segment(image).float()
        for member in others:
            logits = logits + member.segment(image).float()
        return logits / (len(self.members) * self.temperature)

    def forward(self, image: Tensor) -> Tensor:
        return self.segment(image)

    @torch.inference_mode()
    def segment_fast(self, image: Tensor) -> Tensor:
        """As `segment`, in the number format and memory layout that the device is fast in."""
        device = image.device
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            return self.segment(to_channels_last(image)).float()
