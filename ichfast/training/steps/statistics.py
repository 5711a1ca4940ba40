"""Batch normalisation's running statistics, which inference uses: whose they are."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ichfast.models import ReducedUNet

MOMENTUM = 0.1
"""torch's default"""


def find_batch_norms(*modules: nn.Module) -> Iterator[nn.BatchNorm2d]:
    for module in modules:
        yield from (m for m in module.modules() if isinstance(m, nn.BatchNorm2d))


@contextmanager
def renew_statistics(model: ReducedUNet) -> Iterator[None]:
    """The segmentation path's running statistics become the plain mean over the batches that pass
    through it inside."""
    seen: Counter[nn.Module] = Counter()

    def count(norm: nn.BatchNorm2d, _: object) -> None:
        # momentum = None is the same mean, but reads its count back from the device each time.
        seen[norm] += 1
        norm.momentum = 1 / seen[norm]

    norms = list(find_batch_norms(model.encoder, model.segmentation))
    for norm in norms:
        norm.reset_running_stats()
    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        # Compiled, each momentum would be another version of the network.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for norm, hook in zip(norms, hooks, strict=True):
            hook.remove()
            norm.momentum = MOMENTUM


@contextmanager
def freeze_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, leaving the running statistics alone."""
    for norm in find_batch_norms(model):
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in find_batch_norms(model):
            norm.track_running_stats = True
