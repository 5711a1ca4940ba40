"""From the pool to a training batch in plain PyTorch."""

import torch
from torch import Tensor

from ichfast.ops.reference.ct_window import AIR_HU, HU_RANGE, apply_window

__all__ = ["pool_batch"]


def pool_batch(
    pool: Tensor,
    indices: Tensor,
    theta: Tensor,
    windows: Tensor,
    *,
    masks: Tensor | None = None,
    slope: Tensor | None = None,
    intercept: Tensor | None = None,
    size: tuple[int, int] | None = None,
    function: str = "linear",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor | None]:
    """A pool's slices through ``grid_sample``; see :func:`ichfast.ops.pool_batch`."""
    compute = torch.promote_types(theta.dtype, torch.float32)
    hu = pool[indices].to(compute)[:, None]
    if slope is not None:
        hu = hu * slope.to(compute).view(-1, 1, 1, 1)
    if intercept is not None:
        hu = hu + intercept.to(compute).view(-1, 1, 1, 1)
    hu = hu.clamp(*HU_RANGE)
    shape = [len(indices), 1, *(pool.shape[1:] if size is None else size)]
    grid = torch.nn.functional.affine_grid(theta.to(compute), shape, align_corners=False)
    # What grid_sample takes from outside is 0.
    hu = torch.nn.functional.grid_sample(hu - AIR_HU, grid, align_corners=False) + AIR_HU
    images = apply_window(hu, windows.to(compute), function).to(dtype)
    if masks is None:
        return images, None
    chosen = (masks[indices] != 0).to(compute)[:, None]
    chosen = torch.nn.functional.grid_sample(chosen, grid, mode="nearest", align_corners=False)
    return images, chosen.to(torch.uint8)
