"""Every op in plain PyTorch: the oracle of tests, the baseline of benchmarks, the path of double
backward. Written for reading, not for speed; same arguments, shapes and dtypes as ``ichfast.ops``.
"""

import torch
from torch import Tensor

AIR_HU = -1000.0
HU_RANGE = (-1024.0, 3071.0)


def _widened(*tensors: Tensor) -> list[Tensor]:
    """In their common dtype, at least float32: a sum of float16 overflows at 65504."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def tversky(
    prediction: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    sigmoid: bool = False,
    batch: bool = False,
) -> Tensor:
    """1 − (TP + smooth_nr)/(TP + αFP + βFN + smooth_dr); see :func:`ichfast.ops.tversky`."""
    (p,) = _widened(prediction)
    p = torch.sigmoid(p) if sigmoid else p
    t = target.to(p.dtype)
    dims = [0] * batch + list(range(2, p.ndim))
    tp = (p * t).sum(dims)
    fp = (p * (1 - t)).sum(dims)
    fn = ((1 - p) * t).sum(dims)
    return 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)


def attention_wmse(
    image: Tensor, logits: Tensor, reconstruction: Tensor, *, sigmoid_reconstruction: bool = True
) -> Tensor:
    """L_u of Wang et al. 2020, Equation 1; see :func:`ichfast.ops.attention_wmse`."""
    image, logits, reconstruction = _widened(image, logits, reconstruction)
    foreground = torch.sigmoid(logits)
    background = 1 - foreground
    r = torch.sigmoid(reconstruction) if sigmoid_reconstruction else reconstruction
    error_b = (image * background - r[:, :1]).square().flatten(1).mean(1)
    error_f = (image * foreground - r[:, 1:]).square().flatten(1).mean(1)
    return background.flatten(1).mean(1) * error_b + foreground.flatten(1).mean(1) * error_f


def attention_mask(image: Tensor, logits: Tensor) -> Tensor:
    """x ⊙ (1−m) and x ⊙ m as two channels; see :func:`ichfast.ops.attention_mask`."""
    x, z = _widened(image, logits)
    foreground = torch.sigmoid(z)
    return torch.cat([x * (1 - foreground), x * foreground], 1).to(image.dtype)


def overlap_counts(prediction: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """TP, FP, FN per image and channel; see :func:`ichfast.ops.overlap_counts`."""
    p = prediction > threshold
    t = target > 0
    return torch.stack([p & t, p & ~t, ~p & t], 2).flatten(3).sum(3)


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


def ct_window(
    stored: Tensor,
    slope: Tensor,
    intercept: Tensor,
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
    hu = stored.to(compute) * slope.to(compute).view(-1, 1, 1) + intercept.to(compute).view(
        -1, 1, 1
    )
    if padding is not None:
        hu = torch.where(stored == padding, AIR_HU, hu)
    hu = hu.clamp(*HU_RANGE)
    rows = area_weights(hu.shape[1], size[0], compute, hu.device)
    columns = area_weights(hu.shape[2], size[1], compute, hu.device)
    hu = (rows @ hu @ columns.T)[:, None]
    y = _windowed(hu, windows.to(compute)[None], function)
    return (1 - y if invert else y).to(dtype)


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
    images = _windowed(hu, windows.to(compute), function).to(dtype)
    if masks is None:
        return images, None
    chosen = (masks[indices] != 0).to(compute)[:, None]
    chosen = torch.nn.functional.grid_sample(chosen, grid, mode="nearest", align_corners=False)
    return images, chosen.to(torch.uint8)


def _windowed(hu: Tensor, windows: Tensor, function: str) -> Tensor:
    """(B, 1, H, W) HU and (1 or B, K, 2) windows → (B, K, H, W) in [0, 1]."""
    level, width = windows[..., None, None].unbind(2)
    if function == "linear":  # PS3.3 C.11.2.1.2.1
        x = hu - (level - 0.5)
        u = torch.where(
            x == 0, -0.5 * (width == 1), x / (width - 1)
        )  # width 1 is a step: x <= 0 is 0
        return (u + 0.5).clamp(0, 1)
    if function == "linear_exact":  # C.11.2.1.3.2
        return ((hu - level) / width + 0.5).clamp(0, 1)
    return torch.sigmoid(4 * (hu - level) / width)  # SIGMOID, C.11.2.1.3.1
