"""The ops in one program compiled by Inductor, which holds the fake kernels to their strides."""

import torch
from torch import Tensor

from ichfast import ops


def _program(stored: Tensor, logits: Tensor, features: Tensor, target: Tensor) -> Tensor:
    one, none = torch.ones(2), torch.zeros(2)
    image = ops.ct_window(stored, one, none, torch.tensor([[40.0, 80.0]]), (16, 17))
    reconstruction = torch.relu(2 * features)
    loss = ops.attention_wmse(image, logits, reconstruction).sum()
    loss = loss + ops.tversky(reconstruction, target, sigmoid=True).mean()
    loss = loss + (ops.attention_mask(image, logits) * reconstruction).mean()
    return loss + ops.overlap_counts(reconstruction, target).sum()


def test_inductor() -> None:
    stored = torch.randint(-100, 200, (2, 32, 34), dtype=torch.int16)
    logits = torch.randn(2, 1, 17, 16).mT.requires_grad_()  # does not fold into one dimension
    features = torch.randn(2, 2, 16, 17).contiguous(memory_format=torch.channels_last)
    arguments = stored, logits, features.requires_grad_(), torch.rand(2, 2, 16, 17) < 0.3
    compiled = torch.compile(_program, fullgraph=True)
    torch.compiler.reset()
    results = []
    for function in (_program, compiled):
        value = function(*arguments)
        results.append([value.detach(), *torch.autograd.grad(value, [logits, features])])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
