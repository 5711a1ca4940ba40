"""Argument checks that the ops share: an error names the argument, what it was and what is due.

They look at shapes, dtypes and devices only, never at values, so they cost microseconds, cause no
host sync and trace under ``torch.compile``.
"""

import torch
from torch import Tensor

from ichfast._native import NO_CUDA

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
TARGETS = (torch.bool, torch.uint8, *FLOATING)
FUNCTIONS = ("linear", "linear_exact", "sigmoid")  # of a window


def require_pair(op: str, name: str, prediction: Tensor, target: Tensor) -> None:
    """A prediction, which the op calls ``name``, and its target: of one shape, on one device.

    Every call of a loss passes here, so nothing is handed on by keyword, which is slower.
    """
    _require_floating(op, name, prediction)
    require_target(op, target)
    if target.device != prediction.device:
        raise _on_two_devices(op, name, prediction, "target", target)
    _require_kernels(op, name, prediction)
    if prediction.shape != target.shape or prediction.ndim < 3:
        raise ValueError(
            f"{op}: {name} and target must be (B, C, *spatial) of one shape, "
            f"not {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def require_floating(op: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        _require_floating(op, name, tensor)


def _require_floating(op: str, name: str, tensor: Tensor) -> None:
    require_tensor(op, name, tensor)
    if tensor.dtype not in FLOATING:
        raise TypeError(
            f"{op}: {name} must be float64, float32, float16 or bfloat16, not {tensor.dtype}; "
            f"convert it with {name}.float()"
        )


def require_tensor(op: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, not {type(value).__name__}")
    if value.is_nested:
        raise TypeError(f"{op}: {name} must not be nested; pad it to one shape")
    if value.layout is not torch.strided:
        raise TypeError(
            f"{op}: {name} must be a dense tensor, not {value.layout}; use {name}.to_dense()"
        )


def require_target(op: str, target: Tensor) -> None:
    require_tensor(op, "target", target)
    if target.dtype not in TARGETS:
        raise TypeError(
            f"{op}: target must be bool, uint8 or floating, not {target.dtype}; "
            "convert it with target.float()"
        )


def require_one_device(op: str, **tensors: Tensor) -> None:
    """All on one device, and one that this build has kernels for."""
    (first, tensor), *others = tensors.items()
    for name, other in others:
        if other.device != tensor.device:
            raise _on_two_devices(op, first, tensor, name, other)
    _require_kernels(op, first, tensor)


def _on_two_devices(op: str, first: str, tensor: Tensor, name: str, other: Tensor) -> ValueError:
    return ValueError(
        f"{op}: {name} is on {other.device} but {first} is on {tensor.device}; "
        "move both to one device"
    )


def _require_kernels(op: str, name: str, tensor: Tensor) -> None:
    if tensor.is_cpu:  # 0.1 µs; the name of the kind takes 0.5
        return
    kind = tensor.device.type
    if kind == "cuda" and NO_CUDA is not None:
        raise NotImplementedError(
            f"{op}: {name} is on {tensor.device}, but {NO_CUDA}, or move it with {name}.cpu()"
        )
    if kind not in ("cuda", "meta"):
        raise NotImplementedError(
            f"{op}: ichfast has kernels for CPU and CUDA, and {name} is on {tensor.device}; "
            f"move it with {name}.cpu()"
        )


def require_no_grad(op: str, **tensors: Tensor) -> None:
    """For arguments whose gradient the op does not define."""
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            raise ValueError(f"{op}: has no gradient for {name}; pass {name}.detach()")


def require_size(op: str, size: object) -> None:
    """Of output images: (H', W')."""
    if not (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(n, (int, torch.SymInt)) and n >= 1 for n in size)
    ):
        raise ValueError(f"{op}: size must be two positive integers, not {size!r}")


def require_function(op: str, function: str) -> None:
    if function not in FUNCTIONS:
        raise ValueError(f"{op}: function must be one of {FUNCTIONS}, not {function!r}")
