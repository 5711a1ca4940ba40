"""ichfast.ops.strong_view: the shared tests, what each of its steps does, and its noise."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import FLOATING, Call, OpTester, peak_memory, sees_values
from torch import Tensor

from ichfast.ops import reference, strong_view


def arguments(
    device: torch.device | str = "cpu", *, images: int = 3, spatial: tuple[int, ...] = (37, 41)
) -> dict[str, Tensor]:
    """Images that differ in what is done to them; some blur nothing, some make no noise."""
    generator = torch.Generator().manual_seed(3)
    cycle = torch.arange(images) % 5
    tensors = {
        "image": torch.rand(images, 1, *spatial, generator=generator),
        "gamma": torch.tensor([0.7, 1.3, 1.0, 2.5, 0.9])[cycle],
        "blur": torch.tensor([1.4, 0.0, 0.3, 1.0, 0.8])[cycle],
        "noise": torch.tensor([0.05, 0.1, 0.02, 0.0, 0.2])[cycle],
        "seed": torch.arange(images) - 1,
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def plain(*, seed: Tensor, **tensors: Tensor) -> Tensor:
    return reference.strong_view(seed=seed.long(), **tensors)  # the harness makes all float64


class TestStrongView(OpTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        **_: Any,
    ) -> Call:
        tensors = arguments(device, images=images, spatial=spatial)
        tensors["image"] = tensors["image"].to(dtype)
        return Call(strong_view, plain, tensors)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        yield torch.ops.ichfast.strong_view.default, tuple(call.tensors.values())

    # Patches of 32 rows and 256 columns, and images that the blur reaches across.
    @pytest.mark.parametrize(
        "spatial",
        [(1, 1), (1, 7), (6, 1), (32, 256), (33, 257), (65, 513), (4, 0), (0, 4), (128, 128)],
        ids=str,
    )
    def test_sizes(self, device: torch.device, spatial: tuple[int, ...]) -> None:
        self.make(device, spatial=spatial, images=5).check()

    @pytest.mark.parametrize("images", [0, 1, 40])
    def test_batch(self, device: torch.device, images: int) -> None:
        self.make(device, images=images).check()

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    def test_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        call = self.make(device, dtype=dtype, spatial=(47, 53), images=5)
        ((value, _),) = call.check()
        assert value.dtype == dtype
        assert value.is_contiguous()

    def test_every_radius(self, device: torch.device) -> None:
        tensors = arguments(device, images=13)
        tensors["blur"] = torch.linspace(0, 3, 13, device=device)
        Call(strong_view, plain, tensors).check()

    def test_dtypes_of_the_numbers(self, device: torch.device) -> None:
        tensors = arguments(device)
        tensors |= {n: tensors[n].to(d) for n, d in zip(("gamma", "noise"), FLOATING, strict=False)}
        tensors["blur"] = tensors["blur"].bfloat16()
        Call(strong_view, plain, tensors).check()

    def test_peak_memory(self) -> None:
        """No copy of the image, of no dtype: the result alone."""
        for dtype in FLOATING:
            call = self.make(torch.device("cpu"), dtype=dtype, spatial=(256, 255))
            peak = peak_memory(partial(strong_view, **call.tensors))
            assert peak == call.tensors["image"].nbytes


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_nothing_to_do_changes_nothing(device: torch.device, dtype: torch.dtype) -> None:
    tensors = arguments(device, images=4)
    image = tensors["image"] = tensors["image"].to(dtype)
    image[0, 0, 0, 0], image[0, 0, 0, 1] = 0, 1
    for name, neutral in (("gamma", 1.0), ("blur", 0.0), ("noise", 0.0)):
        tensors[name][0] = neutral
    result = strong_view(**tensors)
    assert torch.equal(result[0], image[0])
    for other in range(1, 4):
        assert not torch.equal(result[other], image[other])


def test_black_and_white_stay_under_any_gamma(device: torch.device) -> None:
    image = torch.tensor([0.0, 1.0], device=device).expand(50, 1, 3, 2)
    gamma = torch.logspace(-2, 2, 50, device=device)
    nothing = torch.zeros(50, device=device)
    result = strong_view(image, gamma=gamma, blur=nothing, noise=nothing, seed=nothing.long())
    assert torch.equal(result, image)


def test_same_bits_in_any_batch(device: torch.device) -> None:
    """Whatever else is in it, and in which order."""
    tensors = arguments(device, images=7, spatial=(70, 61))
    expected = strong_view(**tensors)
    order = torch.tensor([4, 0, 6, 4, 2], device=device)
    assert torch.equal(strong_view(**{n: t[order] for n, t in tensors.items()}), expected[order])
    for k in range(7):
        alone = strong_view(**{n: t[k : k + 1] for n, t in tensors.items()})
        assert torch.equal(alone, expected[k : k + 1])


def test_strides_of_the_small_tensors(device: torch.device) -> None:
    tensors = arguments(device)
    spaced = {n: t.repeat_interleave(2)[::2] for n, t in tensors.items() if n != "image"}
    assert_same_bits([strong_view(**{**tensors, **spaced})], [strong_view(**tensors)])


def test_a_point_is_spread_as_the_formula_says(device: torch.device) -> None:
    """exp(−(i² + j²)/2σ²), normalised, up to ⌈3σ⌉; nothing beyond."""
    sigma = torch.tensor([0.3, 1.0, 1.7, 3.0], dtype=torch.float64, device=device)
    image = torch.zeros(4, 1, 31, 33, dtype=torch.float64, device=device)
    image[:, 0, 15, 16] = 1
    one, zero = torch.ones_like(sigma), torch.zeros_like(sigma)
    result = strong_view(image, gamma=one, blur=sigma, noise=zero, seed=zero.long())
    for view, s in zip(result[:, 0].cpu(), sigma.cpu(), strict=True):
        i = torch.arange(-15, 16).double()[:, None]
        j = torch.arange(-16, 17).double()
        inside = (i.abs() <= (3 * s).ceil()) & (j.abs() <= (3 * s).ceil())
        expected = torch.exp(-(i**2 + j**2) / (2 * s**2)) * inside
        assert_close(view, expected / expected.sum())


def test_blur_takes_what_is_at_the_edge_for_what_is_beyond(device: torch.device) -> None:
    tensors = arguments(device, images=2, spatial=(12, 14))
    tensors |= {"blur": torch.tensor([3.0, 0.8], device=device)}
    tensors |= {"gamma": torch.ones(2, device=device), "noise": torch.zeros(2, device=device)}
    larger = torch.nn.functional.pad(tensors["image"], (9, 9, 9, 9), mode="replicate")
    inner = strong_view(**{**tensors, "image": larger})[..., 9:-9, 9:-9]
    assert_close(strong_view(**tensors), inner.double())
    constant = torch.full_like(tensors["image"], 0.3)
    assert_close(strong_view(**{**tensors, "image": constant}), constant.double())


def test_what_lies_outside_is_clamped_first(device: torch.device) -> None:
    tensors = arguments(device, images=5)
    wide = 3 * tensors["image"] - 1
    wide[:, 0, 3, 4], wide[:, 0, 20, 20] = float("inf"), float("-inf")
    result = strong_view(**{**tensors, "image": wide})
    assert torch.equal(result, strong_view(**{**tensors, "image": wide.clamp(0, 1)}))
    assert ((result >= 0) & (result <= 1)).all()


def test_nan_goes_as_far_as_the_blur(device: torch.device) -> None:
    tensors = arguments(device, images=5)
    clean = strong_view(**tensors)
    tensors["image"][:, 0, 20, 11] = float("nan")
    result = strong_view(**tensors)
    i = torch.arange(37, device=device)[:, None]
    j = torch.arange(41, device=device)
    for view, before, sigma in zip(result, clean, tensors["blur"], strict=True):
        radius = (3 * sigma.double()).ceil()
        near = ((i - 20).abs() <= radius) & ((j - 11).abs() <= radius)
        assert torch.equal(view[0].isnan(), near)
        assert torch.equal(view[0][~near], before[0][~near])


# ---- the noise

SIDE = 256


def noise(seeds: Tensor, scale: float = 1 / 16) -> Tensor:
    """The deviates of images of one value, (B, SIDE·SIDE): of those that are clamped, none."""
    batch = len(seeds)
    image = torch.full((batch, 1, SIDE, SIDE), 0.5, dtype=torch.float64, device=seeds.device)
    one = torch.ones(batch, dtype=torch.float64, device=seeds.device)
    view = strong_view(image, gamma=one, blur=0 * one, noise=scale * one, seed=seeds)
    assert ((view > 0) & (view < 1)).all()
    return ((view - 0.5) / scale).flatten(1).cpu()


SEEDS = torch.tensor([0, 1, 2, 3, -1, 2**63 - 1, -(2**63), 2**32, 2**32 + 1, 123456789])


def test_moments_of_the_noise(device: torch.device) -> None:
    """Within four standard errors, image by image and all together."""
    z = noise(SEEDS.to(device))
    for sample in (*z, z.flatten()):
        n = len(sample) ** 0.5
        # The variances of z, z², z³ and z⁴ are 1, 2, 15 and 96.
        for power, (mean, variance) in enumerate(((0, 1), (1, 2), (0, 15), (3, 96)), start=1):
            error = (sample**power).mean() - mean
            assert abs(error) < 4 * variance**0.5 / n, (power, error)


def test_distribution_of_the_noise(device: torch.device) -> None:
    """Kolmogorov's distance to the normal distribution, p above 0.001, and the tails' shares."""
    z = noise(SEEDS.to(device))
    for sample in (*z, z.flatten()):
        n = len(sample)
        cumulated = torch.special.ndtr(sample.sort().values)
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        distance = max((steps[1:] - cumulated).max(), (cumulated - steps[:-1]).max())
        assert distance * n**0.5 < 1.95
    for limit in (2.0, 3.0, 4.0):
        share = float(torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64)))
        for tail in ((z > limit).sum(), (z < -limit).sum()):
            expected = share * z.numel()
            assert abs(tail - expected) < 4 * expected**0.5


def test_noise_is_white(device: torch.device) -> None:
    """No correlation with a neighbour at any distance, in any direction, nor of magnitudes."""
    z = noise(SEEDS.to(device)).view(-1, SIDE, SIDE)
    for field in (z, z**2 - 1):
        spectrum = torch.fft.fft2(field).abs() ** 2
        correlation = torch.fft.ifft2(spectrum).real
        correlation = correlation / correlation[:, :1, :1]
        correlation[:, 0, 0] = 0
        # The largest of 65,536 normal numbers of standard deviation 1/256 is some 4.3 of those.
        assert correlation.abs().max() < 6 / SIDE


def test_seeds_do_not_share_noise(device: torch.device) -> None:
    """Neither at the same pixel nor, shifted, at any other."""
    z = noise(SEEDS.to(device)).view(-1, SIDE, SIDE)
    spectra = torch.fft.fft2(z)
    for a in range(len(SEEDS)):
        for b in range(a):
            shared = torch.fft.ifft2(spectra[a] * spectra[b].conj()).real / SIDE**2
            assert shared.abs().max() < 6 / SIDE


def test_noise_of_a_pixel_does_not_depend_on_the_others(device: torch.device) -> None:
    """Rows may be added below, and grey levels changed elsewhere."""
    tensors = arguments(device, images=1, spatial=(40, 31))
    tensors |= {"gamma": torch.ones(1, device=device), "blur": torch.zeros(1, device=device)}
    expected = strong_view(**tensors)
    upper = strong_view(**{**tensors, "image": tensors["image"][:, :, :9]})
    assert torch.equal(upper, expected[:, :, :9])
    tensors["image"][..., 1::2] = 0.5
    assert torch.equal(strong_view(**tensors)[..., ::2], expected[..., ::2])


# ---- bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 0.0), ("gamma", -1.0), ("gamma", float("nan")), ("gamma", float("inf")),
        ("blur", -0.1), ("blur", 3.1), ("blur", float("nan")),
        ("noise", -0.1), ("noise", float("nan")), ("noise", float("inf")),
    ],
)  # fmt: skip
def test_a_number_out_of_range(device: torch.device, name: str, value: float) -> None:
    tensors = arguments(device)
    expected = strong_view(**tensors)
    tensors[name][1] = value
    if sees_values(device):
        with pytest.raises(RuntimeError, match=rf"image 1 has .*{name} {value:.1g}"):
            strong_view(**tensors)
    else:
        result = strong_view(**tensors)
        assert result[1].isnan().all()
        assert torch.equal(result[[0, 2]], expected[[0, 2]])


GOOD = arguments()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"image": GOOD["image"].tolist()}, TypeError, "image must be a torch.Tensor, not list"),
        ({"image": GOOD["image"].int()}, TypeError, "image must be float64, .* not torch.int32"),
        ({"image": GOOD["image"][:, 0]}, ValueError, r"image must be \(B, 1, H, W\)"),
        ({"image": GOOD["image"].expand(3, 2, 37, 41)}, ValueError, r"not \(3, 2, 37, 41\)"),
        (
            {"image": torch.empty(1, device="meta").expand(3, 1, 2**16, 2**15)},
            ValueError,
            "fewer than 2\\^31 pixels",
        ),
        ({"gamma": GOOD["gamma"].long()}, TypeError, "gamma must be float64, float32"),
        ({"gamma": GOOD["gamma"][:1]}, ValueError, r"gamma must be \(3,\), one per image"),
        ({"blur": 1.0}, TypeError, "blur must be a torch.Tensor, not float"),
        ({"blur": GOOD["blur"][:, None]}, ValueError, r"blur must be \(3,\).*not \(3, 1\)"),
        ({"noise": GOOD["noise"].to("meta")}, ValueError, "noise is on meta but image is on cpu"),
        ({"seed": GOOD["seed"].int()}, TypeError, r"seed must be int64.*use seed.long\(\)"),
        ({"seed": GOOD["seed"][:2]}, ValueError, r"seed must be \(3,\)"),
        ({"image": GOOD["image"].clone().requires_grad_()}, ValueError, "no gradient for image"),
        ({"noise": GOOD["noise"].clone().requires_grad_()}, ValueError, "no gradient for noise"),
    ],
    ids=range(14),
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    tensors = {**GOOD, **bad}
    if isinstance(tensors["image"], Tensor) and tensors["image"].is_meta:
        tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
    with pytest.raises(error, match=f"strong_view: .*{message}"):
        strong_view(**tensors)


@pytest.mark.parametrize(
    ("position", "bad"),
    [(0, GOOD["image"][:, 0]), (1, GOOD["gamma"][:1]), (4, GOOD["seed"].int())],
    ids=["image", "gamma", "seed"],
)
def test_the_raw_op_guards_itself(position: int, bad: Tensor) -> None:
    tensors = list(GOOD.values())
    tensors[position] = bad
    with pytest.raises(RuntimeError, match=r"strong_view: .* must be"):
        torch.ops.ichfast.strong_view(*tensors)
