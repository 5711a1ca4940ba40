"""The training step as one writes it from the paper in plain PyTorch: what ours is timed against.

Eager, float32, contiguous, with nothing of ichfast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TwoDecoders(nn.Module):
    """The reduced U-Net and its second decoder; parameters in the order of ichfast's model."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        before = [1, *channels[:-1]]
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1, bias=False),  # batch normalisation has one
                nn.BatchNorm2d(b),
                nn.ReLU(),
            )
            for a, b in zip(before, channels, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.segmentation = Decoder(channels, 1, skip=True)
        self.reconstruction = Decoder(channels, 2, skip=False)

    def encoder(self, image: Tensor) -> list[Tensor]:
        features = [self.levels[0](image)]
        for level in self.levels[1:]:
            features.append(level(self.pool(features[-1])))
        return features


class Decoder(nn.Module):
    def __init__(self, channels: Sequence[int], maps: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 2, stride=2, bias=False), nn.BatchNorm2d(b))
            for a, b in steps
        )
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * b if skip else b, b, 3, padding=1), nn.ReLU())
            for _, b in steps
        )
        self.out = nn.Conv2d(channels[0], maps, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for up, mix, beside in zip(self.up, self.mix, features[-2::-1], strict=True):
            x = up(x)
            if self.skip:
                x = torch.cat([beside, x], 1)
            x = mix(x)
        maps: Tensor = self.out(x)
        return maps


def soft_jaccard(logits: Tensor, mask: Tensor) -> Tensor:
    p, t = torch.sigmoid(logits), mask.float()
    both = (p * t).sum()
    return 1 - (both + 5e-6) / (p.sum() + t.sum() - both + 5e-6)


def unsupervised_loss(image: Tensor, logits: Tensor, reconstruction: Tensor) -> Tensor:
    mask = torch.sigmoid(logits).detach()
    background, foreground = torch.sigmoid(reconstruction).split(1, 1)

    def part(share: Tensor, rebuilt: Tensor) -> Tensor:
        error = (image * share - rebuilt).square()
        return share.mean((1, 2, 3)) * error.mean((1, 2, 3))

    return (part(1 - mask, background) + part(mask, foreground)).mean()


class Step:
    """An update of either kind; the slices wait as int16 HU, as ours do."""

    def __init__(
        self, channels: Sequence[int], hu: Tensor, masks: Tensor, window: tuple[float, float]
    ) -> None:
        self.model = TwoDecoders(channels).to(hu.device).train()
        self.hu, self.masks, self.window = hu, masks, window
        model = self.model
        encoder = list(model.levels.parameters())
        self.supervised_adam = torch.optim.Adam([*encoder, *model.segmentation.parameters()], 1e-4)
        self.unsupervised_adam = torch.optim.Adam(
            [*encoder, *model.reconstruction.parameters()], 1e-4
        )

    def images(self, index: Tensor) -> Tensor:
        level, width = self.window
        low, high = level - 0.5 - (width - 1) / 2, level - 0.5 + (width - 1) / 2
        hu = self.hu[index][:, None].float()
        return ((hu - low) / (high - low)).clamp(0, 1)

    def supervised(self, index: Tensor) -> Tensor:
        self.supervised_adam.zero_grad()
        features = self.model.encoder(self.images(index))
        loss = soft_jaccard(self.model.segmentation(features), self.masks[index][:, None])
        loss.backward()
        self.supervised_adam.step()
        return loss.detach()

    def unsupervised(self, index: Tensor) -> Tensor:
        self.unsupervised_adam.zero_grad()
        image = self.images(index)
        features = self.model.encoder(image)
        loss = unsupervised_loss(
            image, self.model.segmentation(features), self.model.reconstruction(features)
        )
        loss.backward()
        self.unsupervised_adam.step()
        return loss.detach()
