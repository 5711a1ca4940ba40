"""Comparison of values and gradients that no wrong factor and no missing term gets through.

A tolerance per element has to be wide enough for the worst element, and a gradient that is wrong
everywhere by less than that passes. Rounding errors have no direction and average out, mistakes do
not: so the whole tensor is held to narrower bounds than its elements.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bounds:
    """Relative to the element and to the root mean square of the tensor, whichever is larger."""

    element: float
    l2: float  # ‖a − e‖ / ‖e‖, which bounds the angle between them too
    bias: float  # |Σ(a − e)| / Σ|e|


# float32: a handful of roundings, and the cancellation of 1 − σ. Half types: one rounding on store,
# which for few distinct values (the Tversky gradient of a binary target has two) is a bias.
BOUNDS = {
    torch.float64: Bounds(element=1e-11, l2=1e-12, bias=1e-12),
    torch.float32: Bounds(element=4e-6, l2=1e-6, bias=5e-7),
    torch.float16: Bounds(element=2.0**-10, l2=2.0**-11, bias=2.0**-11),
    torch.bfloat16: Bounds(element=2.0**-7, l2=2.0**-8, bias=2.0**-8),
}


def assert_close(
    actual: Tensor, expected: Tensor, name: str = "value", inherited: Tensor | None = None
) -> None:
    """``actual`` is the float64 ``expected``, as far as actual's own dtype can hold it.

    Each element may be off by what it has ``inherited``, beside its own rounding: from sums that
    many elements share, so that it does not average out.
    """
    bounds = BOUNDS[actual.dtype]
    inherited = torch.zeros_like(expected) if inherited is None else inherited
    assert actual.shape == expected.shape, name
    a, e = actual.detach().cpu().double(), expected.detach().cpu().double()
    assert torch.equal(a.isfinite(), e.isfinite()), f"{name}: NaN or Inf at other places"
    finite = e.isfinite()
    a, e, inherited = a[finite], e[finite], inherited[finite]
    if e.numel() == 0:
        return
    error, norm = a - e, e.norm().item()
    rms = norm / e.numel() ** 0.5
    excess = (error.abs() - bounds.element * e.abs().clamp(min=rms) - inherited).max().item()
    assert excess <= 1e-300, (
        f"{name}: an element is off by {excess:.3e} more than it may (rms {rms:.3e})"
    )
    if norm == 0:
        return
    assert error.norm().item() <= bounds.l2 * norm + inherited.norm().item(), (
        f"{name}: L2 error {error.norm().item() / norm:.3e}"
    )
    size = e.abs().sum().item()
    bias = error.sum().abs().item() / size
    chance = 3 * bounds.l2 / e.numel() ** 0.5  # what is left of errors without a direction
    shared = inherited.sum().item() / size
    assert bias <= max(bounds.bias, chance, shared), f"{name}: bias {bias:.3e}"


def assert_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.dtype == e.dtype
        assert torch.equal(a.nan_to_num(12345.0), e.nan_to_num(12345.0)), f"result {index} differs"
