"""The weights of a separable blur, as csrc/math/gaussian.h has them."""

import torch
from torch import Tensor


def make_weights(sigma: Tensor, reach: int) -> Tensor:
    """(B,) standard deviations in pixels, from 0 to ``reach`` / 3 → (B, 2·reach + 1) float64
    weights of sum 1, 0 beyond ``ceil(3·sigma)`` from the middle; with a sigma of 0, 1 there."""
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=sigma.device)
    sigma = sigma.double()[:, None]
    weights = torch.where(offset == 0, 1.0, torch.exp(-0.5 * (offset / sigma).square()))
    weights = torch.where(offset.abs() <= torch.ceil(3 * sigma), weights, 0.0)
    return weights / weights.sum(1, keepdim=True)
