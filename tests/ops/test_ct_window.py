"""ichfast.ops.ct_window against its plain form and against DICOM's formulas in NumPy."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from comparison import BOUNDS
from harness import FLOATING, Call, OpTester, sees_values
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from ichfast.ops import ct_window, reference

Array = NDArray[np.float64]
BRAIN, BONE, STEP = (40.0, 80.0), (600.0, 2800.0), (30.0, 1.0)
FUNCTIONS = ["linear", "linear_exact", "sigmoid"]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]


def in_numpy(
    stored: Tensor,
    slope: Tensor,
    intercept: Tensor,
    windows: Tensor,
    size: tuple[int, int],
    function: str = "linear",
    padding: float | None = None,
    invert: bool = False,
    **_: Any,
) -> Array:
    """PS3.3 C.11.1 and C.11.2 as they are printed, and the average by brute force."""
    x = stored.double().numpy()
    hu = x * slope.double().numpy()[:, None, None] + intercept.double().numpy()[:, None, None]
    if padding is not None:
        hu[x == padding] = -1000
    hu = _average(_average(np.clip(hu, -1024, 3071), size[0], 1), size[1], 2)
    channels = []
    for c, w in windows.double().numpy():
        if function == "linear":
            low, high = c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2
            slanted = (hu - (c - 0.5)) / (w - 1 if w > 1 else np.inf) + 0.5
            y = np.where(hu <= low, 0, np.where(hu > high, 1, slanted))
        elif function == "linear_exact":
            slanted = (hu - c) / w + 0.5
            y = np.where(hu <= c - w / 2, 0, np.where(hu > c + w / 2, 1, slanted))
        else:
            y = scipy.special.expit(4 * (hu - c) / w)
        channels.append(np.where(np.isnan(hu), np.nan, 1 - y if invert else y))
    return np.stack(channels, 1)


def _average(x: Array, n_out: int, axis: int) -> Array:
    """Each cell so many times that a mean of whole cells is one of the result: exact."""
    common = math.gcd(x.shape[axis], n_out)
    n_in = x.shape[axis] // common
    fine = np.repeat(x, n_out // common, axis)
    cells = fine.reshape(*x.shape[:axis], n_out, n_in, *x.shape[axis + 1 :])
    return np.asarray(cells.mean(axis + 1))


def in_rounded_steps(
    stored: Tensor,
    slope: Tensor,
    intercept: Tensor,
    windows: Tensor,
    size: tuple[int, int],
    function: str,
    dtype: torch.dtype,
) -> Tensor:
    """The same as csrc/math/ct_window.h has it, and each operation rounded by itself."""
    wide = stored.dtype in (torch.float64, torch.int32, torch.int64)
    kind = np.float64 if wide else np.float32
    offset = (intercept.double().numpy() + 1024).astype(kind)[:, None, None]
    scaled = stored.numpy().astype(kind) * slope.numpy().astype(kind)[:, None, None]
    h = np.clip(scaled + offset, kind(0), kind(4095))
    for axis in (1, 2):
        h = _average_in_order(h, size[axis - 1], axis)
    channels = []
    for level, width in windows.numpy().astype(kind):
        exact = function == "linear_exact"
        centre = level + kind(1024) - (kind(0) if exact else kind(0.5))
        scale = kind(1) / (width if exact else width - kind(1))
        channels.append(np.clip((h - centre) * scale + kind(0.5), kind(0), kind(1)))
    result = torch.from_numpy(np.stack(channels, 1))
    return result if dtype == torch.float64 and wide else result.float().to(dtype)


def _average_in_order(h: NDArray[Any], n_out: int, axis: int) -> NDArray[Any]:
    """Term by term."""
    h = np.moveaxis(h, axis, 0)
    n_in, kind = len(h), h.dtype.type
    result = np.zeros((n_out, *h.shape[1:]), kind)
    for i in range(n_out):
        for j in range(i * n_in // n_out, -(-(i + 1) * n_in // n_out)):
            share = min((j + 1) * n_out, (i + 1) * n_in) - max(j * n_out, i * n_in)
            result[i] += kind(share) / kind(n_in) * h[j]
    return np.moveaxis(result, 0, axis)


class TestCTWindow(OpTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.int16,
        windows: tuple[tuple[float, float], ...] = (BRAIN, BONE),
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(8)
        stored = torch.randint(-1200, 3500, (images, *spatial), generator=generator)
        stored[:, : spatial[0] // 2] = stored[:, : spatial[0] // 2] % 90  # where the windows are
        if not (dtype.is_signed):
            stored = stored.clamp(min=0)
        if dtype.itemsize == 1:
            stored = stored % 120
        tensors = {
            "stored": stored.to(dtype).to(device),
            "slope": torch.linspace(1, 1.3, images, device=device),
            "intercept": torch.linspace(0, -30, images, device=device),
            "windows": torch.tensor(windows, device=device),
        }
        options = {"size": (19, 20), "dtype": torch.float32, **options}
        return Call(ct_window, reference.ct_window, tensors, options)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        for function, padding in (("linear", None), ("sigmoid", -1000.0)):
            arguments = ([4, 3], function, padding, True, torch.float16)
            yield torch.ops.ichfast.ct_window.default, (*call.tensors.values(), *arguments)

    def check(self, call: Call) -> Tensor:
        (actual,) = call.run()
        (plain,) = call.expected()
        tensors = {name: tensor.cpu() for name, tensor in call.tensors.items()}
        arguments: dict[str, Any] = {**tensors, **call.options}
        expected = torch.from_numpy(in_numpy(**arguments))
        if not expected.isnan().any():  # the plain form's matrix product spreads NaN: 0 · NaN
            torch.testing.assert_close(plain, expected, rtol=0, atol=1e-9)
        # A window of width w magnifies the rounding of its input, up to 3071 HU, by 1/w.
        assert actual.dtype == call.options["dtype"]
        hu_rounding = 1e-14 if call.tensors["stored"].dtype == torch.float64 else 4e-7
        narrowest = call.tensors["windows"][:, 1].min().item()
        atol = 3071 * hu_rounding / narrowest + BOUNDS[actual.dtype].element
        torch.testing.assert_close(
            actual.cpu().double(), expected, rtol=0, atol=atol, equal_nan=True
        )
        return actual

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("padding", [None, -1000.0])
    @pytest.mark.parametrize("invert", [False, True])
    def test_options(
        self, device: torch.device, function: str, padding: float | None, invert: bool
    ) -> None:
        call = self.make(device, function=function, padding=padding, invert=invert)
        call.tensors["stored"][
            :, :3
        ] = -1000  # the padding: −1000·slope + intercept HU if it is not
        self.check(call)

    @pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATING], ids=str)
    def test_stored_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        self.check(self.make(device, dtype=dtype, padding=7.0))

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("stored", [torch.int16, torch.float64], ids=str)
    def test_result_dtype(
        self, device: torch.device, dtype: torch.dtype, stored: torch.dtype
    ) -> None:
        call = self.make(device, dtype=stored)
        call.options["dtype"] = dtype
        self.check(call)

    @pytest.mark.parametrize(
        ("spatial", "size"),
        [
            ((512, 512), (256, 256)),
            ((512, 512), (200, 200)),
            ((5, 5), (7, 7)),  # upsampling
            ((37, 41), (37, 41)),  # the same
            ((37, 41), (1, 1)),
            ((64, 41), (32, 7)),  # one side by halves
            ((41, 64), (59, 32)),
            ((1, 1), (3, 2)),
            ((1031, 17), (1030, 18)),
        ],
        ids=str,
    )
    def test_sizes(
        self, device: torch.device, spatial: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self.check(self.make(device, spatial=spatial, images=2, size=size))

    @pytest.mark.parametrize("images", [0, 1, 20])
    def test_batch(self, device: torch.device, images: int) -> None:
        assert (
            len(self.check(self.make(device, images=images, spatial=(9, 10), size=(3, 4))))
            == images
        )

    @pytest.mark.parametrize("windows", [(BRAIN,), (BRAIN, BONE, (80.0, 200.0), STEP)], ids=str)
    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_windows(
        self, device: torch.device, windows: tuple[tuple[float, float], ...], function: str
    ) -> None:
        self.check(self.make(device, windows=windows, function=function, size=(37, 41)))

    def test_no_window(self, device: torch.device) -> None:
        call = self.make(device)
        (images,) = call.replace(windows=call.tensors["windows"][:0]).run()
        assert images.shape == (3, 0, 19, 20)

    def test_borders_of_linear(self, device: torch.device) -> None:
        """c = 40, w = 80: 0 up to 0 HU, 1 from above 79; and w = 1, a step after c − ½."""
        stored = torch.tensor([[[-1.0, 0, 1, 39, 40, 78, 79, 80]]], device=device)
        one, none = torch.ones(1, device=device), torch.zeros(1, device=device)
        windows = torch.tensor([(40.0, 80.0), (40.5, 1.0)], device=device)
        brain, step = ct_window(stored, one, none, windows, (1, 8))[0, :, 0].cpu()
        expected = torch.tensor([0, 0, 1 / 79, 39 / 79, 40 / 79, 78 / 79, 1, 1])
        torch.testing.assert_close(brain, expected, rtol=1e-6, atol=1e-7)
        assert step.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("invert", [False, True])
    def test_not_a_number(self, device: torch.device, function: str, invert: bool) -> None:
        call = self.make(device, dtype=torch.float32, windows=(BRAIN, STEP), function=function,
                         invert=invert, size=(37, 41))  # fmt: skip
        stored = call.tensors["stored"]
        for position in (0, 17, 40):
            stored[1, 5, position] = float("nan")
        images = self.check(call)
        assert images.isnan().sum() == 3 * 2

    @pytest.mark.parametrize("value", [float("inf"), float("-inf")])
    def test_infinite(self, device: torch.device, value: float) -> None:
        """Clipped as any other HU out of range."""
        call = self.make(device, dtype=torch.float32)
        call.tensors["stored"][1] = value
        self.check(call)

    def test_a_rescale_that_is_not_a_number(self, device: torch.device) -> None:
        call = self.make(device)
        call.tensors["slope"][1] = float("nan")
        (images,) = call.run()
        assert images.isnan().flatten(1).all(1).tolist() == [False, True, False]

    def test_large_integers(self, device: torch.device) -> None:
        """Padding is told from its neighbour beyond float32's 24 bits."""
        padding = 2**24 + 1
        stored = torch.tensor([[[padding, padding - 1]]], dtype=torch.int32, device=device)
        call = self.make(device, images=1).replace(stored=stored)
        call.options.update(size=(1, 2), padding=float(padding))
        self.check(call)

    def test_any_dtype_of_the_rescale(self, device: torch.device) -> None:
        call = self.make(device)
        names = ("slope", "intercept", "windows")
        expected = call.replace(**{name: call.tensors[name].double() for name in names}).run()[0]
        assert torch.equal(call.run()[0], expected)

    def test_far_apart_in_memory(self) -> None:
        """Element offsets past 2^31 (pages that nobody touches take no memory)."""
        stored = torch.empty(2**31 + 4096, dtype=torch.uint8).as_strided(
            (2, 60, 60), (2**31, 60, 1)
        )
        stored.copy_(torch.arange(7200).view(2, 60, 60) % 251)
        call = self.make(torch.device("cpu"), images=2)
        far, near = call.replace(stored=stored), call.replace(stored=stored.contiguous())
        assert torch.equal(far.run()[0], near.run()[0])

    @pytest.mark.large
    def test_more_pixels_than_int32(self, device: torch.device) -> None:
        stored = torch.full((), 40, dtype=torch.uint8, device=device).expand(1, 2**16 + 1, 2**15)
        call = self.make(device, images=1).replace(stored=stored)
        call.options["size"] = (2, 2)
        torch.testing.assert_close(call.run()[0][:, 0].cpu(), torch.full((1, 2, 2), 40 / 79))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32], ids=str)
def test_rescale_left_out(device: torch.device, dtype: torch.dtype) -> None:
    stored = torch.arange(-500, 1548, device=device).view(2, 32, 32).to(dtype)
    one, none = torch.ones(2, device=device), torch.zeros(2, device=device)
    windows = torch.tensor([BRAIN], device=device)
    for size in ((16, 16), (32, 32), (7, 5)):
        expected = ct_window(stored, one, none, windows, size)
        assert torch.equal(ct_window(stored, None, None, windows, size), expected)
        assert torch.equal(ct_window(stored, one, None, windows, size), expected)


def _brain(stored: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    n = len(stored)
    return ct_window(stored, torch.ones(n), torch.zeros(n), torch.tensor([BRAIN]), size, **options)


sides = st.integers(1, 40)
functions = st.sampled_from(FUNCTIONS)


@given(sides, sides, sides, sides, st.integers(-2000, 4000), functions, st.booleans())
def test_average_of_a_constant(
    h: int, w: int, rows: int, columns: int, value: int, function: str, invert: bool
) -> None:
    stored = torch.full((1, h, w), value, dtype=torch.int16)
    image = _brain(stored, (rows, columns), function=function, invert=invert)
    pixel = _brain(stored[:, :1, :1], (1, 1), function=function, invert=invert)
    torch.testing.assert_close(image, pixel.expand_as(image), rtol=0, atol=1e-5)


@given(st.lists(st.floats(-3000, 5000, width=32), min_size=1, max_size=50), functions)
def test_monotone_and_bounded(values: list[float], function: str) -> None:
    stored = torch.tensor(values).sort().values.view(1, 1, -1)
    row = _brain(stored, (1, len(values)), function=function).flatten()
    assert (row.diff() >= 0).all()
    assert ((row >= 0) & (row <= 1)).all()


@given(sides, sides, st.integers(1, 5), st.integers(1, 5), functions)
def test_whole_factors_are_plain_means(
    rows: int, columns: int, down: int, across: int, function: str
) -> None:
    stored = (
        (torch.arange(rows * down * columns * across) * 37 % 83).view(1, rows * down, -1).short()
    )
    means = torch.nn.functional.avg_pool2d(stored[:, None].float(), (down, across))[:, 0]
    averaged = _brain(stored, (rows, columns), function=function)
    torch.testing.assert_close(
        averaged, _brain(means, (rows, columns), function=function), rtol=0, atol=1e-5
    )


@given(sides, sides, sides, sides)
def test_turning_the_image_turns_the_result(h: int, w: int, rows: int, columns: int) -> None:
    stored = (torch.arange(h * w) * 37 % 83).view(1, h, w).short()
    image = _brain(stored, (rows, columns))
    turned = _brain(stored.rot90(1, (1, 2)), (columns, rows))
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), rtol=0, atol=1e-5)


S, ONE, NONE, W = torch.zeros(2, 4, 4), torch.ones(2), torch.zeros(2), torch.tensor([BRAIN])
GOOD = {"stored": S, "slope": ONE, "intercept": NONE, "windows": W, "size": (2, 2)}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"slope": 1.0}, TypeError, "slope must be a torch.Tensor or an array .* not float"),
        ({"windows": [BRAIN]}, TypeError, "windows must be a torch.Tensor or an array .* not list"),
        ({"stored": S.bool()}, TypeError, "stored must be integer or floating, not torch.bool"),
        ({"stored": S.to(torch.complex64)}, TypeError, "stored must be integer or floating"),
        ({"stored": S[0]}, ValueError, r"stored must be \(B, H, W\).* not \(4, 4\)"),
        ({"stored": S[:, :0]}, ValueError, "with H and W at least 1"),
        ({"stored": S.to("meta")}, ValueError, "slope is on cpu but stored is on meta"),
        ({"slope": ONE[:1]}, ValueError, r"slope must be \(2,\).* not \(1,\)"),
        ({"intercept": NONE.view(2, 1)}, ValueError, r"intercept must be \(2,\)"),
        ({"windows": W[0]}, ValueError, r"windows must be \(K, 2\), level and width, not \(2,\)"),
        ({"windows": W.clone().requires_grad_()}, ValueError, "no gradient for windows"),
        ({"stored": S.clone().requires_grad_()}, ValueError, "no gradient for stored"),
        (
            {"windows": torch.tensor([[40.0, 0.5]])},
            RuntimeError,
            "width must be .* at least 1 for 'linear'",
        ),
        ({"windows": torch.tensor([[40.0, float("nan")]])}, RuntimeError, "width must be positive"),
        ({"windows": torch.tensor([[float("nan"), 80.0]])}, RuntimeError, "level must be finite"),
        (
            {"windows": torch.tensor([[40.0, 1e-40]]), "function": "sigmoid"},
            RuntimeError,
            "width not tiny",
        ),
        ({"windows": W * 0, "function": "sigmoid"}, RuntimeError, "width must be positive"),
        ({"size": 2}, ValueError, "size must be two positive integers, not 2"),
        ({"size": (2, 0)}, ValueError, r"size must be two positive integers, not \(2, 0\)"),
        ({"size": (2.0, 2)}, ValueError, "size must be two positive integers"),
        ({"size": (2, 2, 2)}, ValueError, "size must be two positive integers"),
        ({"function": "LINEAR"}, ValueError, r"function must be one of \('linear'.* not 'LINEAR'"),
        ({"dtype": torch.int16}, TypeError, "dtype must be a floating one, not torch.int16"),
        ({"dtype": float}, TypeError, "dtype must be a floating one"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {**GOOD, **bad}
    if error is RuntimeError and not sees_values(torch.device("cpu")):
        assert ct_window(**arguments).isnan().all()
        return
    with pytest.raises(error, match=f"ct_window: .*{message}"):
        ct_window(**arguments)


@pytest.mark.parametrize("function", ["linear", "linear_exact"])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("stored", [torch.int16, torch.uint16, torch.float32, torch.int32], ids=str)
@pytest.mark.parametrize(
    ("spatial", "size"),
    [((512, 512), (256, 256)), ((64, 64), (64, 64)), ((512, 512), (200, 224)), ((37, 41), (53, 7))],
    ids=str,
)
def test_the_bits_are_the_same_everywhere(
    device: torch.device,
    spatial: tuple[int, int],
    size: tuple[int, int],
    stored: torch.dtype,
    dtype: torch.dtype,
    function: str,
) -> None:
    """No processor and no GPU fuses a product with a sum."""
    call = TestCTWindow().make(device, spatial=spatial, dtype=stored, size=size, function=function)
    call.options["dtype"] = dtype
    tensors: dict[str, Any] = {name: tensor.cpu() for name, tensor in call.tensors.items()}
    expected = in_rounded_steps(**tensors, **call.options)
    assert torch.equal(call.run()[0].cpu(), expected)


@pytest.mark.parametrize("padding", [None, -2000.0, 0.0, 32767.0, -32768.0, 1.5, 1e9, float("nan")])
@pytest.mark.parametrize(
    "intercept",
    [-1024.0, 0.0, 0.5, -1000.25, 5000.0, 15359.0, 15360.0, 15361.0, -13312.0, -13314.0],
)
def test_whole_numbers_at_half_the_size_have_the_bits_of_the_general_path(
    intercept: float, padding: float | None
) -> None:
    """int16 with slope 1 is averaged in 16-bit integers on the CPU, unless two would not fit."""
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(-(2**15), 2**15, (2, 6, 70), generator=generator).to(torch.int16)
    stored[1] = torch.randint(-2000, 4000, (6, 70), generator=generator)
    stored[0, :2, :4] = torch.tensor([-(2**15), 2**15 - 1, 0, -2000])
    numbers = (torch.ones(2), torch.full((2,), intercept), torch.tensor([[40.0, 80.0]]), (3, 35))
    short = ct_window(stored, *numbers, padding=padding)
    general = ct_window(stored.float(), *numbers, padding=padding)
    assert torch.equal(short, general)
