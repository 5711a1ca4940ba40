"""ichfast.ops.attention_mask against its plain form, and what is its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from harness import HALF, Call, GradientTester

from ichfast.ops import attention_mask, reference


class TestAttentionMask(GradientTester):
    saturating = ("logits",)

    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(5)
        tensors = {
            "image": torch.rand((images, 1, *spatial), generator=generator),
            "logits": 3 * torch.randn((images, 1, *spatial), generator=generator) - 1,
        }
        tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        wrt = ("image", "logits")
        return Call(attention_mask, reference.attention_mask, tensors, options, wrt)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        tensors = tuple(call.tensors.values())
        yield torch.ops.ichfast.attention_mask.default, tensors
        grad = torch.ones_like(torch.ops.ichfast.attention_mask(*tensors))
        for image_gradient, logits_gradient in ((True, True), (True, False), (False, True)):
            backward = torch.ops.ichfast.attention_mask_backward.default
            yield backward, (grad, *tensors, image_gradient, logits_gradient)

    def test_adds_up_to_the_image(self, device: torch.device) -> None:
        call = self.make(device, dtype=torch.float64)
        torch.testing.assert_close(
            call.run()[0].sum(1, keepdim=True), call.tensors["image"], rtol=1e-15, atol=1e-15
        )


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_half_number_is_read_and_written(device: torch.device, dtype: torch.dtype) -> None:
    """All 65536, subnormal, infinite and NaN too, on their way through a mask that is 1."""
    numbers = (
        torch.arange(-(2**15), 2**15, dtype=torch.int16, device=device).view(dtype).view(1, 1, -1)
    )
    foreground = attention_mask(numbers, torch.full_like(numbers, float("inf")))[:, 1:]
    assert torch.equal(foreground.isnan(), numbers.isnan())
    number = ~numbers.isnan()
    assert torch.equal(foreground[number], numbers[number])


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_rounding_to_half(device: torch.device, dtype: torch.dtype) -> None:
    """To nearest even as PyTorch does it, over all exponents, into subnormals and overflow."""
    step = 9973  # a prime: 430,000 float32 patterns, all exponents, no common low bits
    bits = torch.arange(-(2**31), 2**31, step).to(torch.int32)
    ties = torch.arange(2**15, dtype=torch.int16).view(dtype).float().view(torch.int32)
    shift = 1 << (12 if dtype == torch.float16 else 15)  # half a step of the half type
    bits = torch.cat([bits, *(ties + shift + off for off in (-1, 0, 1))])
    values = bits.view(torch.float32).to(device).view(1, 1, -1)
    # ∂/∂image is the background's gradient where the mask is 0: times a GPU's reciprocal of 1,
    # which may be one unit off.
    values = values[values.isfinite()].view(1, 1, -1)
    ones = torch.ones(1, 1, 1, device=device)
    one = attention_mask(ones, float("-inf") * ones)[0, 0, 0]
    assert (one - 1).abs() <= 2**-23
    like = torch.zeros_like(values, dtype=dtype)
    grad = torch.cat([values, values], 1)
    none = torch.full_like(like, float("-inf"))
    rounded, _ = torch.ops.ichfast.attention_mask_backward(grad, like, none, True, False)
    assert torch.equal(rounded, (values * one).to(dtype))


X, Z = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.tolist(), Z), TypeError, "image must be a torch.Tensor, not list"),
        ((X, Z.int()), TypeError, r"logits must be float64.* not torch.int32"),
        ((X.byte(), Z), TypeError, r"image must be float64.* not torch.uint8"),
        ((X, Z[:1]), ValueError, r"image and logits .* not \(2, 1, 8, 8\) and \(1, 1, 8, 8\)"),
        ((X[:, 0], Z[:, 0]), ValueError, r"must be \(B, 1, \*spatial\)"),
        ((X, Z.to("meta")), ValueError, "logits is on meta but image is on cpu"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^attention_mask: .*{message}"):
        attention_mask(*arguments)
