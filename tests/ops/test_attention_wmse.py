"""ichfast.ops.attention_wmse against its plain form, and what is its own."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import Call, GradientTester, upstream
from torch import Tensor

import ichfast
from ichfast.ops import attention_wmse, reference

# Voxels that the CPU sums at once in one tile; one at a time where a sanitizer forbids vectors.
_LANES = {"AVX-512": 16, "AVX2": 8, "SSE2": 4}
LANES = next((n for name, n in _LANES.items() if name in ichfast.build_info()["simd"]), 1)


def inherit(call: Call) -> dict[str, Tensor]:
    """What the results are off by for Σm, Σd_b² and Σd_f², on which all voxels depend.

    A sum of n terms of one sign rounds n partial sums s by up to u·s each, evenly distributed, so
    by u·s/√3 in the mean square; together that is u·√n/3 of the sum. L lanes are chains of n/L
    terms, and independent: u·√n/(3L). Three times as much is allowed for. n is a tile's voxels;
    tiles are added in float64, and a GPU's chains are shorter.

    What becomes of it is Σ|∂/∂S · S| over the three sums S, here with the formulas of
    csrc/math/attention_wmse.h.
    """
    x, z, r = (tensor.cpu().double() for tensor in call.tensors.values())
    n = x[0].numel() if len(x) else 0
    wide = any(tensor.dtype == torch.float64 for tensor in call.tensors.values())
    error = 2.0 ** (-53 if wide else -24) * min(n, 1024) ** 0.5 / LANES
    sigmoid = call.options.get("sigmoid_reconstruction", True)
    m, y = torch.sigmoid(z), torch.sigmoid(r) if sigmoid else r
    d_b, d_f = x * (1 - m) - y[:, :1], x * m - y[:, 1:]

    def mean(values: Tensor) -> Tensor:
        return values.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))

    a_f, e_b, e_f = mean(m), mean(d_b.square()), mean(d_f.square())
    value = a_f * (e_f - e_b).abs() + (1 - a_f) * e_b + a_f * e_f
    scale = error * upstream(value.flatten()).abs().view_as(value) / max(n, 1)
    along_m = e_b + e_f + 2 * a_f * (x * (d_b + d_f)).abs()
    along_r = 2 * a_f * torch.cat([d_b, d_f], 1).abs() * (y * (1 - y) if sigmoid else 1)
    return {
        "value": error * value.flatten(),
        "logits": scale * along_m * m * (1 - m),
        "reconstruction": scale * along_r,
    }


class TestAttentionWMSE(GradientTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(4)
        tensors = {
            "image": torch.rand((images, 1, *spatial), generator=generator),
            "logits": 3 * torch.randn((images, 1, *spatial), generator=generator) - 1,
            "reconstruction": torch.randn((images, 2, *spatial), generator=generator),
        }
        tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        wrt = ("logits", "reconstruction")
        return Call(attention_wmse, reference.attention_wmse, tensors, options, wrt, inherit)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        tensors = tuple(call.tensors.values())
        for sigmoid, logits_gradient in ((True, True), (False, False)):
            yield torch.ops.ichfast.attention_wmse.default, (*tensors, sigmoid)
            loss, sums = torch.ops.ichfast.attention_wmse(*tensors, sigmoid)
            grad = torch.ones_like(loss)
            backward = torch.ops.ichfast.attention_wmse_backward.default
            yield backward, (grad, *tensors, sums, sigmoid, logits_gradient)

    @pytest.mark.parametrize("sigmoid_reconstruction", [True, False])
    @pytest.mark.parametrize("spatial", [(37, 41), (5, 7, 11)], ids=str)
    def test_options(
        self, device: torch.device, sigmoid_reconstruction: bool, spatial: tuple[int, ...]
    ) -> None:
        call = self.make(device, spatial=spatial, sigmoid_reconstruction=sigmoid_reconstruction)
        call.check()
        dataclasses.replace(call, wrt=("reconstruction",)).check()

    def test_written_out(self, device: torch.device) -> None:
        """Equation 1, pixel by pixel, in plain Python."""
        image, logits, reconstruction = self.make(device, images=1, spatial=(7,)).tensors.values()
        x = image.flatten().tolist()
        m = torch.sigmoid(logits).flatten().tolist()
        r_b, r_f = torch.sigmoid(reconstruction)[0].tolist()
        n = len(x)
        error_b = sum((x[i] * (1 - m[i]) - r_b[i]) ** 2 for i in range(n)) / n
        error_f = sum((x[i] * m[i] - r_f[i]) ** 2 for i in range(n)) / n
        expected = (1 - sum(m) / n) * error_b + sum(m) / n * error_f
        assert attention_wmse(image, logits, reconstruction).item() == pytest.approx(expected)

    def test_depends_on_the_image(self, device: torch.device) -> None:
        """Not so in published code, which compares with the reconstruction of another batch."""
        call = self.make(device)
        changed = call.replace(image=call.tensors["image"].flip(-1))
        assert (changed.run()[0] != call.run()[0]).all()
        for gradient in call.run()[1:]:
            assert gradient.count_nonzero() == gradient.numel()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_does_not_overflow(self, device: torch.device, dtype: torch.dtype) -> None:
        n = 200_003  # three times float16's largest number
        image = torch.ones(1, 1, n, dtype=dtype, device=device)
        wrong = torch.cat([image, -image], 1)  # d_b = −½, d_f = 3/2
        loss = attention_wmse(image, 0 * image, wrong, sigmoid_reconstruction=False)
        assert loss.item() == pytest.approx(0.5 * 0.25 + 0.5 * 2.25)

    def test_many_voxels(self, device: torch.device) -> None:
        """Past 2^24, where float32 stops counting."""
        n = 2**24 + 4097
        x, z = torch.rand(1, 1, n, device=device), torch.randn(1, 1, n, device=device)
        r = torch.zeros(1, 1, 1, device=device).expand(1, 2, n)
        sums = torch.zeros(3, dtype=torch.float64)
        for xs, zs in zip(x.split(2**20, 2), z.split(2**20, 2), strict=True):
            m, xd = torch.sigmoid(zs.double()), xs.double()
            parts = [m.sum(), (xd * (1 - m)).square().sum(), (xd * m).square().sum()]
            sums += torch.stack(parts).cpu() / n
        area, error_b, error_f = sums
        expected = (1 - area) * error_b + area * error_f
        assert_close(attention_wmse(x, z, r, sigmoid_reconstruction=False), expected.view(1))

    def test_saturated_mask(self, device: torch.device) -> None:
        call = self.make(device)
        for scale in (30.0, 1e4, 3e38):
            saturated = call.replace(logits=call.tensors["logits"].sign() * scale)
            dataclasses.replace(saturated, wrt=("reconstruction",)).check()
            assert saturated.run()[1].abs().max() < 1e-9

    @pytest.mark.large
    def test_more_voxels_than_int32(self, device: torch.device) -> None:
        n = 2**31 + 11
        image = torch.ones((), device=device).expand(1, 1, n)
        logits = torch.zeros((), device=device).expand(1, 1, n)
        r = torch.full((), 0.25, device=device).expand(1, 2, n)
        loss = attention_wmse(image, logits, r, sigmoid_reconstruction=False)
        assert loss.item() == pytest.approx(0.0625, rel=1e-6)


def test_only_the_gradient_asked_for() -> None:
    """Without the logits' gradient its memory is not even allocated."""
    call = TestAttentionWMSE().make(torch.device("cpu"))
    tensors = tuple(call.tensors.values())
    loss, sums = torch.ops.ichfast.attention_wmse(*tensors, True)
    backward = torch.ops.ichfast.attention_wmse_backward
    both = backward(torch.ones_like(loss), *tensors, sums, True, True)
    one = backward(torch.ones_like(loss), *tensors, sums, True, False)
    assert one[0].numel() == 0
    assert_same_bits([one[1]], [both[1]])


X, Z, R = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.numpy(), Z, R), TypeError, "image must be a torch.Tensor, not ndarray"),
        ((X, None, R), TypeError, "logits must be a torch.Tensor, not NoneType"),
        ((X, Z, [R]), TypeError, "reconstruction must be a torch.Tensor, not list"),
        ((X.short(), Z, R), TypeError, r"image must be float64.* not torch.int16"),
        ((X, Z.bool(), R), TypeError, r"logits must be float64.* not torch.bool"),
        (
            (X, Z, R.to(torch.complex64)),
            TypeError,
            r"reconstruction must be float64.* not torch.complex",
        ),
        ((X, Z[:1], R), ValueError, r"not \(2, 1, 8, 8\), \(1, 1, 8, 8\)"),
        ((X, Z, R[:, :1]), ValueError, r"reconstruction \(B, 2, \*spatial\)"),
        ((X, Z, R[..., :7]), ValueError, r"and \(2, 2, 8, 7\)"),
        ((R, R, R), ValueError, r"must be \(B, 1, \*spatial\)"),
        ((X[:, 0], Z[:, 0], R[:, 0]), ValueError, r"must be \(B, 1, \*spatial\)"),
        ((X, Z.to("meta"), R), ValueError, "logits is on meta but image is on cpu"),
        ((X, Z, R.to("meta")), ValueError, "reconstruction is on meta but image is on cpu"),
        (
            (X.clone().requires_grad_(), Z, R),
            ValueError,
            "no gradient for image; pass image.detach",
        ),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^attention_wmse: .*{message}"):
        attention_wmse(*arguments)
