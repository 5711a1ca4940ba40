"""What the losses make of their arguments: those of MONAI, the reduction, the target's dtype."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ichfast.ops._checks import require_tensor

Reduction = Literal["mean", "sum", "none"]

# uint8 the kernels read as it is.
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def refuse(loss: nn.Module, refused: Mapping[str, tuple[Any, str]], **arguments: Any) -> None:
    """``refused``: of MONAI's arguments the default, which is let through, and what works instead
    of any other value."""
    name = type(loss).__name__
    for argument, value in arguments.items():
        if argument not in refused:
            raise TypeError(f"{name} has no argument {argument!r}")
        default, instead = refused[argument]
        if value is not default and value != default:
            raise TypeError(f"{name} does not take MONAI's {argument}={value!r}: {instead}")


def check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")


def reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def prepare(
    loss: nn.Module, input: Tensor, target: Tensor, *, include_background: bool, to_onehot_y: bool
) -> tuple[Tensor, Tensor]:
    """Input and target as the ops take them, from what MONAI's losses take.

    Integers become floats, with which MONAI's products are the same whatever the values are; those
    are never looked at. As in MONAI, a single channel is not encoded and is never left out.
    """
    name = type(loss).__name__
    require_tensor(name, "input", input)
    require_tensor(name, "target", target)
    channels = input.shape[1] if input.ndim >= 3 else 1
    if to_onehot_y and channels > 1:
        target = _encode(name, target, input.shape)
    elif target.dtype in _INTEGERS:
        target = target.to(torch.promote_types(input.dtype, torch.float32))
    if not include_background and channels > 1 and input.shape == target.shape:
        input, target = input[:, 1:], target[:, 1:]
    return input, target


def _encode(loss: str, labels: Tensor, shape: torch.Size) -> Tensor:
    """Labels (B, 1, *S) of 0 to C − 1, of any dtype, as one-hot (B, C, *S) = ``shape``."""
    expected = (shape[0], 1, *shape[2:])
    if labels.shape != expected:
        raise ValueError(
            f"{loss}: with to_onehot_y=True the target must be labels of shape {expected}, not "
            f"{tuple(labels.shape)}; add the channel with target.unsqueeze(1), or leave "
            "to_onehot_y out where the target is one-hot already"
        )
    one_hot = torch.zeros(shape, dtype=torch.uint8, device=labels.device)
    return one_hot.scatter_(1, labels.long(), 1)
