"""Which device there is, and what it computes fast in: number format and memory layout."""

from pathlib import Path

import torch
from torch import Tensor

from ichfast._native import NO_CUDA
from ichfast.errors import IchfastError


def resolve_device(name: str) -> torch.device:
    """What ``--device`` of a command names. IchfastError where it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise IchfastError(f"--device {name} is not supported; use --device cpu or --device cuda.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise IchfastError(
                f"--device {name} needs a GPU, and torch {torch.__version__} finds none; use "
                "--device cpu."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise IchfastError(
                f"--device {name}: torch finds {torch.cuda.device_count()} GPUs, from cuda:0 on."
            )
        if NO_CUDA:
            raise IchfastError(f"--device {name}: {NO_CUDA}.")
        torch.cuda.set_device(device)
        return torch.device("cuda", torch.cuda.current_device())
    return device


def has_bfloat16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the device multiplies bfloat16 by itself. Where it does not, torch still takes it,
    step by step: on an AMD EPYC with AVX2 alone, a training step took ten times as long."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # not Linux
        return False
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))  # bf16: on ARM


def to_channels_last(image: Tensor) -> Tensor:
    """The (B, 1, H, W) image with the strides that make every layer after it channels-last. With
    one channel it is so already, but torch takes it for contiguous as long as its strides are."""
    _, channels, height, width = image.shape
    strides = (channels * height * width, 1, channels * width, channels)
    return image.contiguous().as_strided(image.shape, strides)
