"""Parts of other images in a batch: lesions with soft edges, rectangles with sharp ones."""

import math

import torch
from torch import Tensor

from ichfast.ops._checks import (
    require_floating,
    require_no_grad,
    require_one_device,
    require_target,
    require_tensor,
)

__all__ = ["paste"]


def paste(
    image: Tensor,
    target: Tensor | None,
    source: Tensor,
    source_target: Tensor | None,
    region: Tensor,
    *,
    feather: Tensor,
    low: float = -math.inf,
    high: float = math.inf,
) -> tuple[Tensor, Tensor | None]:
    """The region of ``source`` over ``image``, its edges feathered; the targets follow, sharply.

    With r = 1 where ``region`` is set and low ≤ image ≤ high, else 0, and a = r blurred by a
    Gaussian, the image becomes image + a·(source − image), and the target is that of the source
    where r = 1. Where a is 0 or 1, the pixels are those of one image, to the last bit.

    Copy-paste of a lesion: ``source`` holds it, ``region`` is its mask, and the bounds keep it out
    of what it cannot replace, as air and bone. CutMix: ``region`` is a rectangle, ``feather`` 0.

    The blur weighs neighbours up to ceil(3σ) pixels away in each direction by exp(−k²/2σ²), the sum
    of the weights of a direction being 1. Beyond the border r is 0, since nothing is pasted there:
    a region that the border cuts off fades towards it as towards its other edges.

    Args:
        image: (B, 1, H, W), floating.
        target: (B, 1, H, W), uint8, bool or floating; or None, where there is none.
        source: as ``image``, of the same dtype.
        source_target: as ``target``, of the same dtype; None where that is None.
        region: (B, 1, H, W), uint8 or bool; not 0 is inside.
        feather: (B,), floating: the standard deviation σ of each image's blur in pixels, from 0,
            which leaves a = r, to 4.
        low, high: bounds of the values of ``image`` that are replaced, both inclusive.

    All on one device, and none with a gradient. Computed in float64 for a float64 image, else in
    float32. A pixel of ``image`` that is NaN is within no bounds and stays; one of ``source`` that
    is NaN spoils the pixels where a > 0 and no other.

    Returns:
        the image, (B, 1, H, W) of the image's dtype, and the target, (B, 1, H, W) of the target's,
        or None; both contiguous.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or low exceeds high.
        RuntimeError: on the CPU, a feather outside [0, 4]. On CUDA, where looking would stall the
            stream, such an image is NaN and its target unchanged.
    """
    require_floating("paste", image=image, source=source, feather=feather)
    _require_dtypes(image, target, source, source_target, region)
    images = {"image": image, "source": source, "region": region}
    if target is not None and source_target is not None:
        images |= {"target": target, "source_target": source_target}
    require_one_device("paste", **images, feather=feather)
    require_no_grad("paste", **images, feather=feather)
    if image.ndim != 4 or image.shape[1] != 1:
        raise ValueError(f"paste: image must be (B, 1, H, W), not {tuple(image.shape)}")
    for name, tensor in images.items():
        if tensor.shape != image.shape:
            raise ValueError(
                f"paste: {name} must have the image's shape {tuple(image.shape)}, "
                f"not {tuple(tensor.shape)}"
            )
    if feather.shape != image.shape[:1]:
        raise ValueError(
            f"paste: feather must be ({len(image)},), one per image, not {tuple(feather.shape)}"
        )
    if not low <= high:
        raise ValueError(f"paste: low must not exceed high; got {low} and {high}")
    pasted, pasted_target = torch.ops.ichfast.paste(
        image, target, source, source_target, region, feather, low, high
    )
    return pasted, None if target is None else pasted_target


def _require_dtypes(
    image: Tensor,
    target: Tensor | None,
    source: Tensor,
    source_target: Tensor | None,
    region: Tensor,
) -> None:
    if source.dtype != image.dtype:
        raise TypeError(
            f"paste: source must be {image.dtype} as the image, not {source.dtype}; "
            "convert it with source.to(image.dtype)"
        )
    require_tensor("paste", "region", region)
    if region.dtype not in (torch.uint8, torch.bool):
        raise TypeError(
            f"paste: region must be uint8 or bool, not {region.dtype}; "
            "convert it with region != 0 or the like"
        )
    if target is None or source_target is None:
        if target is not source_target:
            raise TypeError("paste: target and source_target must both be tensors, or both None")
        return
    require_target("paste", target)
    require_tensor("paste", "source_target", source_target)
    if source_target.dtype != target.dtype:
        raise TypeError(
            f"paste: source_target must be {target.dtype} as the target, "
            f"not {source_target.dtype}; convert it with source_target.to(target.dtype)"
        )


@torch.library.register_fake("ichfast::paste")
def _(
    image: Tensor,
    target: Tensor | None,
    source: Tensor,
    source_target: Tensor | None,
    region: Tensor,
    feather: Tensor,
    low: float,
    high: float,
) -> tuple[Tensor, Tensor]:
    pasted = image.new_empty(image.shape)
    return pasted, image.new_empty((0,)) if target is None else target.new_empty(target.shape)
