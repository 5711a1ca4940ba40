"""ichfast.ops.paste against its plain form, against its formula, and what is its own."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import FLOATING, Call, OpTester, sees_values
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ichfast.ops import paste, reference

# Around the borders of strips (32 rows) and runs (128 columns) of the CPU kernel, and no pixels.
SIZES = [(1, 1), (1, 300), (300, 1), (32, 128), (33, 129), (64, 127), (5, 600), (37, 41)]
TARGETS = [torch.bool, torch.uint8, *FLOATING]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"low": 0.25},
    {"high": 0.75},
    {"low": 0.25, "high": 0.75},
    {"low": 2.0, "high": 3.0},  # nowhere
]


def join(op: Callable[..., tuple[Tensor, Tensor | None]]) -> Callable[..., Tensor]:
    """Both results as the testers take them: one."""

    def paste(*args: Tensor, **options: Any) -> Tensor:
        image, target = op(*args, **options)
        assert target is not None
        return torch.cat([image, target.to(image.dtype)], 1)

    return paste


OP, REFERENCE = join(paste), join(reference.paste)


def run(**call: Any) -> list[Tensor]:
    """Both, where targets are given."""
    image, target = paste(**call)
    assert target is not None
    return [image, target]


def arguments(
    device: torch.device | str = "cpu",
    *,
    spatial: tuple[int, ...] = (37, 41),
    images: int = 3,
    dtype: torch.dtype = torch.float32,
    target: torch.dtype = torch.uint8,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    shape = (images, 1, *spatial)

    def uniform() -> Tensor:
        """Not the multiples of 2^-24 that torch draws: their sums would be exact."""
        return torch.rand(shape, generator=generator).pow(1.5)

    region = uniform() < 0.02
    region[..., : spatial[0] // 3, spatial[1] // 2 :] = True
    feather = torch.tensor([1.0, 0.0, 1.75, 0.3, 0.5]).repeat(1 + images // 5)[:images]
    tensors = {
        "image": uniform().to(dtype),
        "target": (uniform() < 0.3).to(target),
        "source": uniform().to(dtype),
        "source_target": (uniform() < 0.3).to(target),
        "region": region.to(torch.uint8) * 200,
        "feather": feather,
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


class TestPaste(OpTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        target: torch.dtype = torch.uint8,
        **options: Any,
    ) -> Call:
        tensors = arguments(device, spatial=spatial, images=images, dtype=dtype, target=target)
        return Call(OP, REFERENCE, tensors, {"low": 0.125, **options})

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        x, t, s, u, region, feather = call.tensors.values()
        op = torch.ops.ichfast.paste.default
        yield op, (x, t, s, u, region, feather, 0.25, math.inf)
        yield op, (x, None, s, None, region.bool(), feather, -math.inf, 0.75)

    @pytest.mark.parametrize("spatial", SIZES, ids=str)
    def test_sizes(self, device: torch.device, spatial: tuple[int, int]) -> None:
        self.make(device, spatial=spatial).check()

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("target", TARGETS, ids=str)
    def test_dtypes(self, device: torch.device, dtype: torch.dtype, target: torch.dtype) -> None:
        call = self.make(device, dtype=dtype, target=target)
        call.check()
        image, moved = run(**call.tensors)
        assert (image.dtype, moved.dtype) == (dtype, target)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_options(self, device: torch.device, options: dict[str, Any]) -> None:
        self.make(device, **options).check()

    @pytest.mark.parametrize("sigma", [0.0, 1e-40, 0.01, 1 / 3, 0.334, 1.0, 2.5, 4.0])
    def test_feather(self, device: torch.device, sigma: float) -> None:
        call = self.make(device, spatial=(70, 150))
        call.replace(feather=torch.full((3,), sigma, device=device)).check()

    @pytest.mark.parametrize("images", [1, 5])
    def test_batch(self, device: torch.device, images: int) -> None:
        """An image comes out as it does alone."""
        call = self.make(device, images=images)
        call.check()
        (all_images,) = call.run()
        for b in range(images):
            alone = call.replace(**{name: x[b : b + 1] for name, x in call.tensors.items()})
            assert_same_bits(alone.run(), [all_images[b : b + 1]])

    @pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 1, 0, 8), (2, 1, 8, 0)], ids=str)
    def test_no_pixels(self, device: torch.device, shape: tuple[int, ...]) -> None:
        nothing = torch.empty(shape, device=device)
        feather = torch.ones(shape[0], device=device)
        image, target = paste(nothing, nothing, nothing, nothing, nothing.bool(), feather=feather)
        assert target is not None
        assert image.shape == target.shape == shape


def weights(sigma: float) -> Tensor:
    """Of the docstring, one by one."""
    reach = math.ceil(3 * sigma)
    terms = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    return torch.tensor(terms, dtype=torch.float64) / math.fsum(terms)


def share(region: Tensor, sigma: float) -> Tensor:
    """a: what a source of ones leaves of an image of zeros."""
    zeros, ones = torch.zeros(region.shape), torch.ones(region.shape)
    feather = torch.full((len(region),), sigma, device=region.device)
    image, _ = paste(
        zeros.to(region.device), None, ones.to(region.device), None, region, feather=feather
    )
    return image.cpu()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.7, 4.0])
def test_one_pixel_becomes_a_gaussian(device: torch.device, sigma: float) -> None:
    region = torch.zeros(1, 1, 60, 50, dtype=torch.bool)
    region[0, 0, 31, 20] = True  # the last row of a strip of the CPU kernel
    expected = torch.zeros(1, 1, 60, 50, dtype=torch.float64)
    w = weights(sigma)
    n = len(w) // 2
    expected[0, 0, 31 - n : 32 + n, 20 - n : 21 + n] = w[:, None] * w
    a = share(region.to(device), sigma)
    assert_close(a, expected)
    assert (a > 0).sum() == len(w) ** 2
    assert a.sum().item() == pytest.approx(1, abs=1e-6)


def test_nothing_is_pasted_beyond_the_border(device: torch.device) -> None:
    """A region of the whole image fades towards its borders, with what is left of the weights."""
    a = share(torch.ones(1, 1, 40, 30, dtype=torch.bool, device=device), 1.0)
    w = weights(1.0)
    left = torch.ones(40, dtype=torch.float64)
    for k in range(3):
        left[k] = left[39 - k] = w[3 - k :].sum()
    columns = torch.cat([left[:15], left[-15:]])
    assert_close(a, (left[:, None] * columns)[None, None])


@pytest.mark.parametrize("along", ["row", "column"])
def test_one_pixel_anywhere(device: torch.device, along: str) -> None:
    """Each of 300 images has another."""
    shape = (300, 1, 1, 300) if along == "row" else (300, 1, 300, 1)
    region = torch.eye(300, dtype=torch.uint8, device=device).view(shape)
    zeros = torch.zeros(shape, device=device)
    ones = torch.ones_like(region)
    image, target = run(
        image=zeros,
        target=1 - ones,
        source=zeros + 1,
        source_target=ones,
        region=region,
        feather=torch.zeros(300, device=device),
    )
    assert torch.equal(image, region.float())
    assert torch.equal(target, region)


def test_cutmix(device: torch.device) -> None:
    """Without a feather, and far enough from its edges with one, to the last bit."""
    call = arguments(device, spatial=(64, 200))
    x, s, t, u = (call[name] for name in ("image", "source", "target", "source_target"))
    region = torch.zeros_like(x, dtype=torch.bool)
    region[..., 10:50, 30:180] = True
    call["region"] = region
    sharp = run(**{**call, "feather": torch.zeros(3, device=device)})
    assert_same_bits(sharp, [torch.where(region, s, x), torch.where(region, u, t)])
    soft, target = run(**{**call, "feather": torch.ones(3, device=device)})
    assert torch.equal(target, sharp[1])
    assert (soft[..., 13:47, 33:177] - s[..., 13:47, 33:177]).abs().max() < 1e-6
    outside = torch.ones_like(region)
    outside[..., 7:53, 27:183] = False
    assert torch.equal(soft[outside], x[outside])
    edge = (slice(None), slice(None), slice(20, 40), 30)
    assert_close(soft[edge], x[edge] + (0.5 + weights(1.0)[3] / 2).item() * (s - x)[edge].double())


def test_bounds_are_those_of_the_image_and_inclusive(device: torch.device) -> None:
    image = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=device).view(1, 1, 1, 5)
    target = torch.zeros(1, 1, 1, 5, dtype=torch.uint8, device=device)
    region = torch.ones_like(target)
    region[..., 2] = 0
    feather = torch.zeros(1, device=device)
    pasted, moved = paste(
        image, target, image + 5, target + 3, region, feather=feather, low=0.25, high=0.75
    )
    assert moved is not None
    assert pasted.flatten().tolist() == [0.0, 5.25, 0.5, 5.75, 1.0]
    assert moved.flatten().tolist() == [0, 3, 0, 3, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(device: torch.device, value: float) -> None:
    """Out of bounds in the image, it stays; in the source, it shows where a > 0 alone."""
    call = arguments(device, spatial=(20, 20))
    region = torch.zeros_like(call["region"])
    region[..., 5:10, 5:10] = 1
    region[..., 10:15, 10:15] = 1
    options: dict[str, Any] = {"feather": torch.ones(3, device=device), "low": 0.0, "high": 1.0}
    call = {**call, "region": region, **options}
    for at, reached in (((7, 7), True), ((5, 3), True), ((5, 14), False), ((0, 0), False)):
        image = call["image"].clone()
        image[1, 0, *at] = value
        source = call["source"].clone()
        source[1, 0, *at] = value
        for name, spoiled in (("image", image), ("source", source)):
            actual = run(**{**call, name: spoiled})[0].cpu()
            expected = reference.paste(**{**call, name: spoiled.double()})[0].cpu()
            assert torch.equal(actual.isnan(), expected.isnan())
            assert_close(actual.nan_to_num(0, 2, -2), expected.nan_to_num(0, 2, -2))
            shows = name == "image" or reached
            assert actual[1, 0, *at].isfinite().item() is not shows
            assert actual.isfinite().sum() == actual.numel() - shows


def test_without_targets(device: torch.device) -> None:
    call = arguments(device)
    expected, _ = run(**call)
    image, target = paste(**{**call, "target": None, "source_target": None})
    assert target is None
    assert torch.equal(image, expected)


def test_any_byte_but_0_is_inside(device: torch.device) -> None:
    call = arguments(device)
    expected = run(**call)
    for region in ((call["region"] != 0).to(torch.uint8), call["region"] != 0):
        assert_same_bits(run(**{**call, "region": region}), expected)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_feather_of_any_dtype_and_stride(device: torch.device, dtype: torch.dtype) -> None:
    call = arguments(device)
    call["feather"] = torch.tensor([1.0, 0.0, 1.75], device=device)
    expected = run(**call)
    call["feather"] = call["feather"].to(dtype).repeat_interleave(2)[::2]
    assert_same_bits(run(**call), expected)


@pytest.mark.parametrize("sigma", [-0.5, 4.001, float("nan"), float("inf")])
def test_bad_feather(device: torch.device, sigma: float) -> None:
    call = arguments(device)
    expected, expected_target = run(**call)
    call["feather"][1] = sigma
    if sees_values(device):
        with pytest.raises(RuntimeError, match=r"paste: feather must be from 0 to 4 pixels; got"):
            paste(**call)
    else:
        image, target = run(**call)
        assert image[1].isnan().all()
        assert torch.equal(target[1], call["target"][1])
        assert_same_bits([image[::2], target[::2]], [expected[::2], expected_target[::2]])


@given(
    st.integers(1, 80),
    st.integers(1, 300),
    st.floats(0, 4, width=32),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=0, max_size=3),
)
def test_rectangles_anywhere(
    height: int, width: int, sigma: float, corners: list[tuple[float, float, float, float]]
) -> None:
    call = arguments(spatial=(height, width), images=1)
    call["region"] = torch.zeros_like(call["region"])
    for y0, y1, x0, x1 in corners:
        rows = slice(int(min(y0, y1) * height), int(max(y0, y1) * height) + 1)
        columns = slice(int(min(x0, x1) * width), int(max(x0, x1) * width) + 1)
        call["region"][..., rows, columns] = 1
    call["feather"] = torch.tensor([sigma])
    Call(OP, REFERENCE, call, {"low": 0.125}).check()


CALL = arguments()
X = CALL["image"]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"image": X.numpy()}, TypeError, "image must be a torch.Tensor, not ndarray"),
        ({"image": X.int()}, TypeError, "image must be float64, float32, .* not torch.int32"),
        ({"image": X[0]}, ValueError, r"image must be \(B, 1, H, W\), not \(1, 37, 41\)"),
        ({"image": X.expand(3, 2, 37, 41)}, ValueError, r"image must be \(B, 1, H, W\)"),
        ({"source": X.double()}, TypeError, "source must be torch.float32 as the image"),
        ({"source": X[:1]}, ValueError, r"source must have the image's shape \(3, 1, 37, 41\)"),
        ({"source": X.clone().requires_grad_()}, ValueError, "no gradient for source"),
        ({"region": X}, TypeError, "region must be uint8 or bool, not torch.float32"),
        ({"region": None}, TypeError, "region must be a torch.Tensor, not NoneType"),
        ({"region": CALL["region"][..., 1:]}, ValueError, "region must have the image's shape"),
        ({"target": None}, TypeError, "must both be tensors, or both None"),
        ({"source_target": None}, TypeError, "must both be tensors, or both None"),
        ({"target": CALL["target"].int()}, TypeError, "target must be bool, uint8 or floating"),
        ({"source_target": X}, TypeError, "source_target must be torch.uint8 as the target"),
        ({"target": CALL["target"][:2]}, ValueError, "target must have the image's shape"),
        ({"target": CALL["target"].to("meta")}, ValueError, "target is on meta but image is on"),
        ({"feather": 1.0}, TypeError, "feather must be a torch.Tensor, not float"),
        ({"feather": torch.ones(3).int()}, TypeError, "feather must be float64, float32"),
        ({"feather": torch.ones(2)}, ValueError, r"feather must be \(3,\), one per image"),
        ({"feather": torch.ones(())}, ValueError, r"feather must be \(3,\), one per image"),
        ({"low": 1.0, "high": 0.5}, ValueError, "low must not exceed high; got 1.0 and 0.5"),
        ({"low": float("nan")}, ValueError, "low must not exceed high"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^paste: .*{message}"):
        paste(**{**CALL, **bad})
