"""From stored values to network input in plain PyTorch."""

import torch
from torch import Tensor

__all__ = ["AIR_HU", "HU_RANGE", "area_weights", "ct_window"]

AIR_HU = -1000.0
HU_RANGE = (-1024.0, 3071.0)


def ct_window(
    stored: Tensor,
    slope: Tensor | None,
    intercept: Tensor | None,
    windows: Tensor,
    size: tuple[int, int],
    *,
    function: str = "linear",
    padding: float | None = None,
    invert: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Padding → air, rescale, clip, area average, window; see :func:`ichfast.ops.ct_window`."""
    compute = torch.promote_types(stored.dtype, torch.float32)
    hu = stored.to(compute)
    if slope is not None:
        hu = hu * slope.to(compute).view(-1, 1, 1)
    if intercept is not None:
        hu = hu + intercept.to(compute).view(-1, 1, 1)
    if padding is not None:
        hu = torch.where(stored == padding, AIR_HU, hu)
    hu = hu.clamp(*HU_RANGE)
    rows = area_weights(hu.shape[1], size[0], compute, hu.device)
    columns = area_weights(hu.shape[2], size[1], compute, hu.device)
    hu = (rows @ hu @ columns.T)[:, None]
    y = apply_window(hu, windows.to(compute)[None], function)
    return (1 - y if invert else y).to(dtype)


def area_weights(
    n_in: int,
    n_out: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """(n_out, n_in) weights of the exact area average: the share of cell i that input j covers."""
    edges = torch.arange(n_out + 1, dtype=torch.float64, device=device) * (n_in / n_out)
    inputs = torch.arange(n_in + 1, dtype=torch.float64, device=device)
    lower = torch.maximum(edges[:-1, None], inputs[:-1])
    upper = torch.minimum(edges[1:, None], inputs[1:])
    return ((upper - lower).clamp(min=0) * (n_out / n_in)).to(dtype)


def apply_window(hu: Tensor, windows: Tensor, function: str) -> Tensor:
    """(B, 1, H, W) HU and (1 or B, K, 2) windows → (B, K, H, W) in [0, 1]."""
    level, width = windows[..., None, None].unbind(2)
    if function == "linear":  # PS3.3 C.11.2.1.2.1
        x = hu - (level - 0.5)
        # Width 1 is a step: x <= 0 is 0.
        u = torch.where(x == 0, -0.5 * (width == 1), x / (width - 1))
        return (u + 0.5).clamp(0, 1)
    if function == "linear_exact":  # C.11.2.1.3.2
        return ((hu - level) / width + 0.5).clamp(0, 1)
    return torch.sigmoid(4 * (hu - level) / width)  # SIGMOID, C.11.2.1.3.1
