"""The ops in programs compiled by Inductor, which holds the fake kernels to their strides."""

from collections.abc import Callable

import pytest
import torch
from harness import LAYOUTS, OPS, find_testers
from torch import Tensor

from ichfast import ops

TESTERS = find_testers()


def check(function: Callable[..., Tensor], leaves: list[Tensor], *others: Tensor) -> None:
    """Compiled, the same value and the same gradients."""
    for leaf in leaves:
        leaf.requires_grad_()
    torch.compiler.reset()
    # A graph from the cache would be that of an earlier fake kernel.
    fresh = torch.compile(function, fullgraph=True, options={"fx_graph_cache": False})
    results = []
    for way in (function, fresh):
        value = way(*leaves, *others)
        gradients = torch.autograd.grad(value, leaves) if leaves else []
        results.append([value.detach(), *gradients])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
@pytest.mark.parametrize("op", OPS)
def test_op(op: str, layout: str) -> None:
    """Between arithmetic that Inductor fuses; transposed images do not fold into one dimension."""
    call = TESTERS[op].make(torch.device("cpu"), spatial=(16, 17), images=2)
    relaid = {n: LAYOUTS[layout](x) if x.ndim >= 4 else x for n, x in call.tensors.items()}
    names = [*call.wrt, *(name for name in relaid if name not in call.wrt)]

    def program(*tensors: Tensor) -> Tensor:
        doubled = [2 * x if x.is_floating_point() else x for x in tensors]
        return (3 * call.op(**dict(zip(names, doubled, strict=True)), **call.options)).sum()

    leaves = [relaid[name].clone() for name in call.wrt]  # clone keeps the strides
    check(program, leaves, *(relaid[name] for name in names[len(leaves) :]))


def _program(logits: Tensor, features: Tensor, stored: Tensor, target: Tensor) -> Tensor:
    one, none = torch.ones(2), torch.zeros(2)
    image = ops.ct_window(stored, one, none, torch.tensor([[40.0, 80.0]]), (16, 17))
    reconstruction = torch.relu(2 * features)
    loss = ops.attention_wmse(image, logits, reconstruction).sum()
    loss = loss + ops.tversky(reconstruction, target, sigmoid=True).mean()
    loss = loss + (ops.attention_mask(image, logits) * reconstruction).mean()
    return loss + ops.overlap_counts(reconstruction, target).sum()


def test_ops_one_after_another() -> None:
    stored = torch.randint(-100, 200, (2, 32, 34), dtype=torch.int16)
    logits = torch.randn(2, 1, 17, 16).mT
    features = torch.randn(2, 2, 16, 17).contiguous(memory_format=torch.channels_last)
    check(_program, [logits, features], stored, torch.rand(2, 2, 16, 17) < 0.3)
