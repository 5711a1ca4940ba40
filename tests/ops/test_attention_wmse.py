"""ichfast.ops.attention_wmse against its plain form, and what is its own."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close
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
    csrc/math/attention_wmse.h; and the same for the sums of "region". There a gradient is largest
    where m is near 1, and 1−m has m's rounding, of two units.
    """
    x, z, r = (tensor.cpu().double() for tensor in call.tensors.values())
    n = x[0].numel() if len(x) else 0
    wide = any(tensor.dtype == torch.float64 for tensor in call.tensors.values())
    unit = 2.0 ** (-53 if wide else -24)
    error = unit * min(n, 1024) ** 0.5 / LANES
    sigmoid = call.options.get("sigmoid_reconstruction", True)
    m, y = torch.sigmoid(z), torch.sigmoid(r) if sigmoid else r
    d_b, d_f = x * (1 - m) - y[:, :1], x * m - y[:, 1:]

    def total(values: Tensor) -> Tensor:
        return values.flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1))

    if call.options["balance"] == "region":
        area, squares = total(m), d_b.square() + d_f.square()
        p, q = area + 1, n - area + 1
        f, b = total(m * squares) / p, total((1 - m) * squares) / q
        of_p, of_q = area / p**2, area / q**2  # what the area's error makes of 1/P and 1/Q
        value = (f + b + (f * of_p * p - b * of_q * q).abs()) / 4
        weight = (m * of_p + (1 - m) * of_q) / 4
        along_m = f / p + b / q + (2 * f - squares).abs() * of_p + (2 * b - squares).abs() * of_q
        along_m = along_m / 4 + 2 * weight * (x * (d_f - d_b)).abs()
        slope = ((squares - f) / p - (squares - b) / q) / 4
        slope = slope + (m / p + (1 - m) / q) / 2 * x * (d_f - d_b)  # ∂L/∂m
        own = 2 * unit * slope.abs() * m
    else:
        a_f, e_b, e_f = total(m) / n, total(d_b.square()) / n, total(d_f.square()) / n
        value = a_f * (e_f - e_b).abs() + (1 - a_f) * e_b + a_f * e_f
        weight = a_f / n
        along_m = (e_b + e_f + 2 * a_f * (x * (d_b + d_f)).abs()) / n
        own = torch.zeros_like(m)
    grad = upstream(value.flatten()).abs().view_as(value)
    along_r = 2 * weight * torch.cat([d_b, d_f], 1).abs() * (y * (1 - y) if sigmoid else 1)
    return {
        "value": error * value.flatten(),
        "logits": grad * (error * along_m * m * (1 - m) + own),
        "reconstruction": grad * error * along_r,
    }


class TestAttentionWMSE(GradientTester):
    saturating = ("logits", "reconstruction")
    balance = "paper"

    @pytest.fixture(params=["paper", "region"], autouse=True)
    def _in_both(self, request: pytest.FixtureRequest) -> None:
        self.balance = request.param

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
        options = {"balance": self.balance, **options}
        return Call(attention_wmse, reference.attention_wmse, tensors, options, wrt, inherit)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        tensors = tuple(call.tensors.values())
        for sigmoid, wanted in (
            (True, (True, True)),
            (False, (False, True)),
            (True, (True, False)),
        ):
            forward = torch.ops.ichfast.attention_wmse.default
            yield forward, (*tensors, sigmoid, self.balance)
            loss, sums = forward(*tensors, sigmoid, self.balance)
            grad = torch.ones_like(loss)
            backward = torch.ops.ichfast.attention_wmse_backward.default
            yield backward, (grad, *tensors, sums, sigmoid, self.balance, *wanted)

    @pytest.mark.parametrize("sigmoid_reconstruction", [True, False])
    @pytest.mark.parametrize("spatial", [(37, 41), (5, 7, 11)], ids=str)
    def test_options(
        self, device: torch.device, sigmoid_reconstruction: bool, spatial: tuple[int, ...]
    ) -> None:
        call = self.make(device, spatial=spatial, sigmoid_reconstruction=sigmoid_reconstruction)
        call.check()
        dataclasses.replace(call, wrt=("reconstruction",)).check()

    def test_written_out(self, device: torch.device) -> None:
        """Equation 1, or by region, pixel by pixel, in plain Python."""
        call = self.make(device, images=1, spatial=(7,))
        image, logits, reconstruction = call.tensors.values()
        x = image.flatten().tolist()
        m = torch.sigmoid(logits).flatten().tolist()
        r_b, r_f = torch.sigmoid(reconstruction)[0].tolist()
        n = len(x)
        square_b = [(x[i] * (1 - m[i]) - r_b[i]) ** 2 for i in range(n)]
        square_f = [(x[i] * m[i] - r_f[i]) ** 2 for i in range(n)]
        if self.balance == "paper":
            expected = (1 - sum(m) / n) * sum(square_b) / n + sum(m) / n * sum(square_f) / n
        else:
            expected = 0.0
            for squares in (square_b, square_f):
                in_f = sum(m[i] * squares[i] for i in range(n)) / (sum(m) + 1)
                in_b = sum((1 - m[i]) * squares[i] for i in range(n)) / (n - sum(m) + 1)
                expected += 0.5 * (0.5 * in_f + 0.5 * in_b)
        assert call.run()[0].item() == pytest.approx(expected)

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
        loss = attention_wmse(
            image, 0 * image, wrong, sigmoid_reconstruction=False, balance=self.balance
        )
        assert loss.item() == pytest.approx(0.5 * 0.25 + 0.5 * 2.25, rel=2e-5)

    def test_many_voxels(self, device: torch.device) -> None:
        """Past 2^24, where float32 stops counting."""
        n = 2**24 + 4097
        x, z = torch.rand(1, 1, n, device=device), torch.randn(1, 1, n, device=device)
        r = torch.zeros(1, 1, 1, device=device).expand(1, 2, n)
        sums = torch.zeros(5, dtype=torch.float64)
        for xs, zs in zip(x.split(2**20, 2), z.split(2**20, 2), strict=True):
            m, xd = torch.sigmoid(zs.double()), xs.double()
            b, f = (xd * (1 - m)).square(), (xd * m).square()
            parts = [m, b, f, (1 - m) * (b + f), m * (b + f)]
            sums += torch.stack([part.sum() for part in parts]).cpu()
        area, square_b, square_f, in_b, in_f = sums
        expected = {
            "paper": (1 - area / n) * square_b / n + area / n * square_f / n,
            "region": (in_b / (n - area + 1) + in_f / (area + 1)) / 4,
        }[self.balance]
        loss = attention_wmse(x, z, r, sigmoid_reconstruction=False, balance=self.balance)
        assert_close(loss, expected.view(1))

    def test_saturated_mask(self, device: torch.device) -> None:
        call = self.make(device)
        for scale in (30.0, 1e4, 3e38):
            saturated = call.replace(logits=call.tensors["logits"].sign() * scale)
            dataclasses.replace(saturated, wrt=("reconstruction",)).check()
            assert saturated.run()[1].abs().max() < 1e-9

    @pytest.mark.parametrize("logit", [-12.0, -1e4, 1e4])
    def test_one_region_only(self, device: torch.device, logit: float) -> None:
        """Without blood, or nothing else: no mean of nothing, and none that explodes."""
        call = self.make(device)
        call = call.replace(logits=torch.full_like(call.tensors["logits"], logit))
        for value in call.run():
            assert value.isfinite().all()
        dataclasses.replace(call, wrt=("reconstruction",)).check()
        assert call.run()[0].max() < 1  # of errors below 1

    @pytest.mark.large
    def test_more_voxels_than_int32(self, device: torch.device) -> None:
        n = 2**31 + 11
        image = torch.ones((), device=device).expand(1, 1, n)
        logits = torch.zeros((), device=device).expand(1, 1, n)
        r = torch.full((), 0.25, device=device).expand(1, 2, n)
        loss = attention_wmse(image, logits, r, sigmoid_reconstruction=False, balance=self.balance)
        assert loss.item() == pytest.approx(0.0625, rel=1e-6)


@pytest.mark.parametrize("voxels", [8, 64, 512])
def test_area(voxels: int) -> None:
    """By region, what the foreground's reconstruction learns of the blood does not depend on how
    much there is; in the paper's form it falls with the area twice: per voxel, and in all."""
    image = torch.ones(1, 1, 4096)
    logits = torch.full_like(image, -50.0)
    logits[..., :voxels] = 50
    pull = {}
    for balance in ("paper", "region"):
        reconstruction = torch.zeros(1, 2, 4096, requires_grad=True)
        attention_wmse(
            image, logits, reconstruction, sigmoid_reconstruction=False, balance=balance
        ).backward()
        assert reconstruction.grad is not None
        pull[balance] = -reconstruction.grad[0, 1, :voxels].sum().item()
    assert pull["region"] == pytest.approx(0.5 * voxels / (voxels + 1))
    assert pull["paper"] == pytest.approx(2 * (voxels / 4096) ** 2)


def test_even_mask() -> None:
    """Where no region is larger, the forms differ by the voxel of "region" only."""
    image, reconstruction = torch.rand(2, 1, 4096), torch.randn(2, 2, 4096)
    paper, region = (
        attention_wmse(image, torch.zeros_like(image), reconstruction, balance=balance)
        for balance in ("paper", "region")
    )
    assert region.tolist() == pytest.approx((paper * 2048 / 2049).tolist())


def test_unknown_balance() -> None:
    with pytest.raises(
        ValueError, match=r"^attention_wmse: balance must be 'paper' or 'region', not 'area'"
    ):
        attention_wmse(X, Z, R, balance="area")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="balance must be 'paper' or 'region', not 'area'"):
        torch.ops.ichfast.attention_wmse(X, Z, R, True, "area")


def test_only_the_gradient_asked_for() -> None:
    """A gradient that is left out is not even allocated."""
    call = TestAttentionWMSE().make(torch.device("cpu"))
    tensors = tuple(call.tensors.values())
    loss, sums = torch.ops.ichfast.attention_wmse(*tensors, True, "region")
    backward = torch.ops.ichfast.attention_wmse_backward

    def differentiate(*wanted: bool) -> list[Tensor]:
        return list(backward(torch.ones_like(loss), *tensors, sums, True, "region", *wanted))

    both = differentiate(True, True)
    for wanted in ((True, False), (False, True), (False, False)):
        for gradient, full, given in zip(differentiate(*wanted), both, wanted, strict=True):
            assert gradient.shape == (full.shape if given else (0,))
            torch.testing.assert_close(gradient, full if given else full.new_empty(0))


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
