"""What torch.func.vmap makes of a native op: one call with a larger batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def fold_into_batch(
    op: str,
    by_channel: Callable[..., bool] = lambda *_: False,
    per_channel: Sequence[int] = (),
) -> None:
    """Lets ``vmap`` run the native op ``op`` once, on all of its samples.

    Its tensors begin with the images, or have a row for each image, so the samples' images make
    one batch.

    Args:
        by_channel: of the op's arguments, whether images are summed over, so that the samples
            become channels instead: the second dimension of tensors of images (B, C, *spatial),
            and the first of those that have a number for each channel.
        per_channel: places of the arguments with a number for each channel, which all images of a
            batch share: where each sample has its own, the op runs once for each.
    """
    native = getattr(torch.ops.ichfast, op).default

    @torch.library.register_vmap(f"ichfast::{op}")
    def _(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        samples, channels = info.batch_size, by_channel(*args)

        shared = () if channels else per_channel
        if any(in_dims[i] is not None for i in shared):
            return _run_each(native, samples, in_dims, args)

        def place(ndim: int) -> int:
            return 1 if channels and ndim >= 3 else 0

        def fold(i: int, value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor) or i in shared:
                return value
            if dim is None:
                at = place(value.ndim)
                value = value.unsqueeze(at)
                value = value.expand(*value.shape[:at], samples, *value.shape[at + 1 :])
            else:
                at = place(value.ndim - 1)
                value = value.movedim(dim, at)
            return value.flatten(at, at + 1)

        def unfold(result: Tensor) -> tuple[Tensor, int]:
            at = place(result.ndim)
            return result.unflatten(at, (samples, result.shape[at] // samples)), at

        results = native(*map(fold, range(len(args)), args, in_dims))
        if isinstance(results, Tensor):
            return unfold(results)
        tensors, dims = zip(*map(unfold, results), strict=True)
        return tensors, dims


def _run_each(
    native: Any, samples: int, in_dims: Sequence[int | None], args: Sequence[Any]
) -> tuple[Any, Any]:
    def run(i: int) -> Any:
        return native(
            *(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True))
        )

    results = [run(i) for i in range(samples)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])
