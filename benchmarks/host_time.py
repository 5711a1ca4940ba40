"""What Python and dispatch take of a small loss, beside torch's own losses of the same size.

    python -m benchmarks.host_time

Forward and backward of 2×1×32×32 float32 on one thread: the pixels themselves take some
microseconds of it. The losses take turns, and each counts by its fastest turn, in time of the
processor, so that other programs on the machine matter as little as they can.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ichfast.losses import DiceLoss
from ichfast.ops.tversky import tversky

CALLS, TURNS = 50, 300


def list_losses(logits: Tensor, target: Tensor) -> dict[str, Callable[[], None]]:
    """Each with its backward, down to the gradient of the logits."""
    dice, ones = DiceLoss(sigmoid=True), torch.ones(target.shape[:2])
    return {
        "mse_loss": lambda: F.mse_loss(logits, target).backward(),
        "binary_cross_entropy": lambda: F.binary_cross_entropy_with_logits(
            logits, target
        ).backward(),
        "tversky": lambda: tversky(logits, target, sigmoid=True).backward(ones),
        "DiceLoss": lambda: dice(logits, target).backward(),
    }


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 32, 32, requires_grad=True)
    losses = list_losses(logits, (torch.rand(2, 1, 32, 32) < 0.3).float())
    fastest = dict.fromkeys(losses, float("inf"))
    for _ in range(TURNS):
        for name, loss in losses.items():
            start = time.thread_time()
            for _ in range(CALLS):
                logits.grad = None
                loss()
            fastest[name] = min(fastest[name], (time.thread_time() - start) / CALLS)
    for name, seconds in fastest.items():
        print(f"{name:22}{seconds * 1e6:6.1f} µs{seconds / fastest['mse_loss']:7.2f}×")


if __name__ == "__main__":
    main()
