"""Strong intensity augmentation in one pass: blur, gamma, noise."""

import torch
from torch import Tensor

from ichfast.ops._checks import (
    require_floating,
    require_no_grad,
    require_one_device,
    require_tensor,
)

__all__ = ["strong_view"]


def strong_view(
    image: Tensor, *, gamma: Tensor, blur: Tensor, noise: Tensor, seed: Tensor
) -> Tensor:
    """Each image blurred, raised to a power, and with noise of its own.

    clamp(g(image)^gamma + noise·z) in [0, 1]: g is a Gaussian blur (separable, radius ⌈3·blur⌉,
    beyond an edge the pixel at the edge), z white noise from N(0, 1). The noise of a pixel follows
    from the image's seed and the pixel's place alone: the same seed gives the same noise in any
    batch, with any number of threads, in any dtype (to its rounding) and on every device (to some
    1e-6, by which a sine or a logarithm may differ).

    gamma = 1, blur = 0 and noise = 0 leave each pixel exactly as it was. A NaN stays where it is,
    and goes as far as the blur.

    Args:
        image: (B, 1, H, W), floating, in [0, 1]; what lies outside is clamped first.
        gamma: (B,) floating, above 0; below 1 brightens.
        blur: (B,) floating, standard deviation in pixels, 0 to 3.
        noise: (B,) floating, standard deviation in units of the image, 0 or more.
        seed: (B,) int64, any.

    All on one device, and none with a gradient.

    Returns:
        (B, 1, H, W) of the image's dtype; computed in float32, for a float64 image in float64.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit.
        RuntimeError: on the CPU, a number out of its range. On CUDA, where looking would stall the
            stream, such an image is NaN.
    """
    numbers = {"gamma": gamma, "blur": blur, "noise": noise}
    require_floating("strong_view", image=image, **numbers)
    require_tensor("strong_view", "seed", seed)
    if seed.dtype != torch.int64:
        raise TypeError(f"strong_view: seed must be int64, not {seed.dtype}; use seed.long()")
    require_one_device("strong_view", image=image, **numbers, seed=seed)
    require_no_grad("strong_view", image=image, **numbers)
    if image.ndim != 4 or image.shape[1] != 1 or image.shape[2] * image.shape[3] >= 2**31:
        raise ValueError(
            "strong_view: image must be (B, 1, H, W) with fewer than 2^31 pixels, "
            f"not {tuple(image.shape)}"
        )
    batch = image.shape[0]
    for name, tensor in {**numbers, "seed": seed}.items():
        if tensor.shape != (batch,):
            raise ValueError(
                f"strong_view: {name} must be ({batch},), one per image, not {tuple(tensor.shape)}"
            )
    result: Tensor = torch.ops.ichfast.strong_view(image, gamma, blur, noise, seed)
    return result


@torch.library.register_fake("ichfast::strong_view")
def _(image: Tensor, gamma: Tensor, blur: Tensor, noise: Tensor, seed: Tensor) -> Tensor:
    return image.new_empty(image.shape)
