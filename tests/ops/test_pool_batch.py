"""ichfast.ops.pool_batch against grid_sample, against ct_window, and what is its own."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparison import BOUNDS, assert_same_bits
from harness import FLOATING, Call, OpTester, sees_values
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from ichfast.ops import augmentation, ct_window, pool_batch, reference

BRAIN, SUBDURAL = (40.0, 120.0), (80.0, 200.0)
FUNCTIONS = ["linear", "linear_exact", "sigmoid"]
STILL = torch.eye(2, 3)


def arguments(
    device: torch.device | str = "cpu",
    *,
    batch: int = 5,
    shape: tuple[int, int, int] = (7, 37, 41),
    theta: Tensor | None = None,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(9)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator)

    if theta is None:
        theta = augmentation(
            uniform(0, 1, batch) < 0.5,
            uniform(-0.5, 0.5, batch),
            uniform(0.7, 1.4, batch),
            uniform(-0.2, 0.2, batch, 2),
        )
    windows = torch.tensor([BRAIN, SUBDURAL]) + uniform(-5, 5, batch, 2, 2)
    tensors = {
        "pool": torch.randint(-1200, 3300, shape, generator=generator).to(torch.int16),
        "masks": (torch.rand(shape, generator=generator) < 0.2).to(torch.uint8) * 255,
        "indices": torch.randint(0, shape[0], (batch,), generator=generator),
        "theta": theta,
        "windows": windows,
        "slope": uniform(0.9, 1.1, batch),
        "intercept": uniform(-20, 20, batch),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


class PoolBatch(OpTester):
    """For tests that run over all ops. The shared tests are not collected: they change the layout
    of every argument, and a pool must be contiguous.
    """

    def make(self, device: torch.device, **_: Any) -> Call:
        """Whatever size and number of images is asked for, those of ``arguments``."""

        def images(**tensors: Tensor) -> Tensor:
            return pool_batch(**tensors)[0]

        def plain_images(**tensors: Tensor) -> Tensor:
            return reference.pool_batch(**tensors)[0]

        return Call(images, plain_images, arguments(device))


def check(call: dict[str, Any]) -> tuple[Tensor, Tensor]:
    images, masks = pool_batch(**call)
    wide = {**call, "dtype": torch.float64}
    for name in ("theta", "windows", "slope", "intercept"):
        wide[name] = call[name].double()
    plain, plain_masks = reference.pool_batch(
        **{name: x.cpu() if isinstance(x, Tensor) else x for name, x in wide.items()}
    )
    assert masks is not None
    assert plain_masks is not None
    # A point's position is a float, right to some 2^-22 of the side. Neighbours here differ by as
    # much as 4095 HU, of which a window shows 115.
    atol = 2**-22 * max(call["pool"].shape[1:]) * 4095 / 115 + BOUNDS[images.dtype].element
    torch.testing.assert_close(images.cpu().double(), plain, rtol=0, atol=atol)
    # Half-way between two pixels the float and the double may choose differently.
    assert (masks.cpu() != plain_masks).float().mean() < 2e-3
    assert masks.dtype == torch.uint8
    assert set(masks.unique().tolist()) <= {0, 1}
    return images, masks


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [None, (37, 41), (20, 64), (1, 1), (3, 2000)])
def test_options(device: torch.device, function: str, size: tuple[int, int] | None) -> None:
    check({**arguments(device), "function": function, "size": size})


@pytest.mark.parametrize("name", ["slope", "intercept"])
def test_rescale_left_out(device: torch.device, name: str) -> None:
    call = arguments(device)
    neutral = torch.full_like(call[name], {"slope": 1.0, "intercept": 0.0}[name])
    expected, _ = pool_batch(**{**call, name: neutral})
    assert torch.equal(pool_batch(**{**call, name: None})[0], expected)


def test_no_side_beyond_what_float32_counts(device: torch.device) -> None:
    """Where n − 2 is no float32, the last tap would lie outside the slice."""
    call = arguments(device, batch=0)
    for side in (2**24, 2**24 + 2):
        call["pool"] = torch.empty(0, 2, side, dtype=torch.int16, device=device)
        call["masks"] = None
        if side > 2**24:
            with pytest.raises(ValueError, match=r"a side may have 16777216 pixels"):
                pool_batch(**call, size=(1, 1))
            with pytest.raises(RuntimeError, match=r"H and W from 2 to 2\^24"):
                raw(call["pool"], call)
        else:
            assert pool_batch(**call, size=(1, 1))[0].shape == (0, 2, 1, 1)
            with pytest.raises(ValueError, match=r"a side may have 16777216 pixels"):
                pool_batch(**call, size=(1, side + 1))


def raw(pool: Tensor, call: dict[str, Any]) -> None:
    names = ("indices", "theta", "slope", "intercept", "windows")
    arguments = [call[name] for name in names]
    torch.ops.ichfast.pool_batch(pool, None, *arguments, (1, 1), "linear", torch.float32)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_dtype(device: torch.device, dtype: torch.dtype) -> None:
    images, _ = check({**arguments(device), "dtype": dtype})
    assert images.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 64, 64), (2, 5, 1500), (4, 300, 3)], ids=str)
def test_shapes(device: torch.device, shape: tuple[int, int, int]) -> None:
    check(arguments(device, shape=shape))


@pytest.mark.parametrize("batch", [0, 1, 40])
def test_batch(device: torch.device, batch: int) -> None:
    # grid_sample takes no empty batch.
    images, masks = (check if batch else lambda call: pool_batch(**call))(
        arguments(device, batch=batch)
    )
    assert images.shape == (batch, 2, 37, 41)
    assert masks.shape == (batch, 1, 37, 41)


def test_identity_is_ct_window(device: torch.device) -> None:
    """To the last bit, on each device."""
    call = arguments(device, theta=STILL.expand(5, 2, 3))
    call["windows"] = torch.tensor([BRAIN, SUBDURAL], device=device).expand(5, 2, 2)
    images, masks = pool_batch(**call)
    chosen = call["pool"][call["indices"]]
    windowed = ct_window(chosen, call["slope"], call["intercept"], call["windows"][0], (37, 41))
    assert torch.equal(images, windowed)
    assert torch.equal(masks, (call["masks"][call["indices"]] != 0)[:, None].to(torch.uint8))


def in_rounded_steps(
    pool: Tensor,
    masks: Tensor,
    indices: Tensor,
    theta: Tensor,
    slope: Tensor,
    intercept: Tensor,
    windows: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Images and masks as csrc/math/pool_batch.h has them, each operation rounded by itself."""
    single = np.float32
    height, width = pool.shape[1:]
    images, chosen = [], []
    for b, matrix in enumerate(theta.double().numpy()):
        points = []
        for row, side in zip(matrix, (width, height), strict=True):  # x, then y
            per_i, per_j = 1.0 / size[0], 1.0 / size[1]
            start = row[0] * (per_j - 1.0) + row[1] * (per_i - 1.0) + row[2]
            start = ((start + 1.0) * side - 1.0) * 0.5
            rows = (row[1] * per_i * side) * np.arange(size[0]) + start
            along = single(row[0] * per_j * side) * np.arange(size[1], dtype=single)
            points.append(along[None, :] + rows.astype(single)[:, None])
        taps = []
        for at, side in zip(points, (width, height), strict=True):
            first = np.clip(at, 0, single(side - 2)).astype(np.int32)
            hats = [
                np.maximum(single(1) - np.abs(at - (first + k).astype(single)), single(0))
                for k in (0, 1)
            ]
            taps.append((first, hats))
        (x, x_hats), (y, y_hats) = taps
        stored = pool[indices[b]].numpy().astype(single)
        offset = single(intercept[b].double().item() + 1024)
        h = np.clip(stored * single(slope[b].item()) + offset, single(0), single(4095)) - single(24)
        lines = [x_hats[0] * h[y + k, x] + x_hats[1] * h[y + k, x + 1] for k in (0, 1)]
        mixed = y_hats[0] * lines[0] + y_hats[1] * lines[1] + single(24)
        channels = []
        for level, w in windows[b].numpy().astype(single):
            scale = single(1) / (w - single(1))
            u = (mixed - (level + single(1024) - single(0.5))) * scale
            channels.append(np.clip(u + single(0.5), single(0), single(1)))
        images.append(np.stack(channels))
        column, line = (np.rint(at) for at in points)
        inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
        picked = masks[indices[b]].numpy()[
            np.where(inside, line, 0).astype(np.int64), np.where(inside, column, 0).astype(np.int64)
        ]
        chosen.append((inside & (picked != 0))[None])
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(chosen)).to(torch.uint8)


@pytest.mark.parametrize("shape", [(7, 37, 41), (3, 64, 64), (2, 5, 1500)], ids=str)
@pytest.mark.parametrize("size", [(37, 41), (20, 64), (3, 300)])
def test_the_bits_are_the_same_everywhere(
    device: torch.device, shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    """No processor and no GPU fuses a product with a sum."""
    call = {**arguments(device, shape=shape), "size": size}
    images, masks = pool_batch(**call)
    assert masks is not None
    tensors = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in call.items()}
    expected, expected_masks = in_rounded_steps(**tensors)
    assert torch.equal(images.cpu(), expected)
    assert torch.equal(masks.cpu(), expected_masks)


def test_mirror_and_whole_shifts_are_exact(device: torch.device) -> None:
    n = torch.zeros(3)
    flip = torch.tensor([True, False, False])
    shift = torch.tensor([[0.0, 0.0], [8 / 64, 0.0], [0.0, -4 / 32]])  # right by 8, up by 4
    theta = augmentation(flip, n, n + 1, shift)
    call = arguments(device, batch=3, shape=(3, 32, 64), theta=theta)
    call["indices"] = torch.arange(3, device=device)
    call["windows"] = call["windows"][:1].expand(3, 2, 2)
    images, masks = pool_batch(**call)
    still, still_masks = pool_batch(**{**call, "theta": STILL.expand(3, 2, 3).to(device)})
    assert masks is not None
    assert still_masks is not None
    for moved, plain in ((images, still), (masks, still_masks)):
        assert torch.equal(moved[0], plain[0].flip(-1))
        assert torch.equal(moved[1][..., 8:], plain[1][..., :-8])
        assert torch.equal(moved[2][..., :-4, :], plain[2][..., 4:, :])
    air = pool_batch(
        torch.full((1, 2, 2), -1000, dtype=torch.int16, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
        STILL[None].to(device),
        call["windows"][:1],
    )[0]
    assert (images[1][..., :8] == air[0, :, :1, :1]).all()  # what comes in from outside


def test_augmentation_turns_and_scales_as_it_says() -> None:
    """A bright spot to the right of the centre goes up when turned, and out when scaled."""
    pool = torch.full((1, 65, 65), -1000, dtype=torch.int16)
    pool[0, 32, 48] = 3000
    zero, one = torch.zeros(1), torch.ones(1)
    windows, index = torch.tensor([[[1000.0, 4000.0]]]), torch.zeros(1, dtype=torch.int64)

    def spot(*numbers: Tensor) -> tuple[int, int]:
        images, _ = pool_batch(pool, index, augmentation(*numbers), windows)
        return divmod(int(images.argmax()), 65)

    no, yes, still = torch.tensor([False]), torch.tensor([True]), torch.zeros(1, 2)
    assert spot(no, zero, one, still) == (32, 48)
    assert spot(no, zero + math.pi / 2, one, still) == (16, 32)
    assert spot(yes, zero, one, still) == (32, 16)
    assert spot(yes, zero + math.pi / 2, one, still) == (48, 32)  # mirrored, then turned
    assert spot(no, zero, 1.5 * one, still) == (32, 56)
    assert spot(no, zero, one, torch.tensor([[0.0, 10 / 65]])) == (42, 48)
    assert spot(no, zero + math.pi / 2, 0.5 * one, torch.tensor([[4 / 65, 0.0]])) == (24, 36)


def test_same_bits(device: torch.device) -> None:
    call = arguments(device, shape=(3, 256, 256))
    expected = [x for x in pool_batch(**call) if x is not None]
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert_same_bits([x for x in pool_batch(**call) if x is not None], expected)


def test_strides_of_the_small_tensors(device: torch.device) -> None:
    call = arguments(device)
    spaced = {**call}
    for name in ("indices", "theta", "windows", "slope", "intercept"):
        spaced[name] = call[name].repeat_interleave(2, -1)[..., ::2]
    assert_same_bits(list(pool_batch(**spaced)), list(pool_batch(**call)))


def test_without_masks_and_rescale(device: torch.device) -> None:
    call = arguments(device)
    for name in ("masks", "slope", "intercept"):
        del call[name]
    images, masks = pool_batch(**call)
    assert masks is None
    ones, zeros = torch.ones(5, device=device), torch.zeros(5, device=device)
    assert torch.equal(images, pool_batch(**call, slope=ones, intercept=zeros)[0])


@pytest.mark.parametrize("name", ["theta", "slope", "intercept"])
def test_not_a_number(device: torch.device, name: str) -> None:
    call = arguments(device)
    expected = pool_batch(**call)[0]
    call[name] = call[name].clone()
    call[name][1] = float("nan")
    images, _ = pool_batch(**call)
    assert images[1].isnan().all()
    rest = [0, 2, 3, 4]
    assert torch.equal(images[rest], expected[rest])


@pytest.mark.parametrize("far", [3.0, 1e6, 1e30, float("inf")])
def test_far_outside_is_air(device: torch.device, far: float) -> None:
    theta = STILL.repeat(2, 1, 1)
    theta[0, 0, 2], theta[1, 1, 2] = far, -far
    call = arguments(device, batch=2, theta=theta)
    images, masks = pool_batch(**call)
    assert masks is not None
    assert not masks.any()
    if math.isfinite(far):
        assert (images == 0).all()  # −1000 HU is below both windows
    else:
        assert ((images == 0) | images.isnan()).all()


@pytest.mark.parametrize("index", [-1, 7, 2**40])
def test_index_outside_the_pool(device: torch.device, index: int) -> None:
    call = arguments(device)
    call["indices"][2] = index
    if sees_values(device):
        with pytest.raises(RuntimeError, match=f"index {index} is outside the pool of 7 slices"):
            pool_batch(**call)
    else:
        images, masks = pool_batch(**call)
        assert masks is not None
        assert images[2].isnan().all()
        assert not masks[2].any()
        assert images[[0, 1, 3, 4]].isfinite().all()


def test_opcheck(device: torch.device) -> None:
    call = arguments(device, batch=2, shape=(3, 6, 5))
    rest = [call[n] for n in ("indices", "theta", "slope", "intercept", "windows")]
    for masks in (call["masks"], None):
        torch.library.opcheck(
            torch.ops.ichfast.pool_batch.default,
            (call["pool"], masks, *rest, [4, 3], "linear", torch.float16),
        )


def test_compile(device: torch.device) -> None:
    torch.compiler.reset()
    call = arguments(device)
    compiled = torch.compile(pool_batch, fullgraph=True, backend="aot_eager")
    assert_same_bits(list(compiled(**call)), list(pool_batch(**call)))


def test_does_not_fold_the_pool_past_int32() -> None:
    """Slices whose offset is past 2^31 elements (pages that nobody touches take no memory)."""
    pool = torch.empty((2**31 // 4096 + 2, 64, 64), dtype=torch.int16)
    last = len(pool) - 1
    pool[last] = torch.arange(4096, dtype=torch.int16).view(64, 64) % 100
    call = arguments(batch=1, theta=STILL[None])
    call.update(pool=pool, masks=None, indices=torch.tensor([last]))
    near = {**call, "pool": pool[last:].clone(), "indices": torch.tensor([0])}
    assert torch.equal(pool_batch(**call)[0], pool_batch(**near)[0])


@given(
    st.booleans(),
    st.floats(-3.2, 3.2),
    st.floats(0.5, 2),
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
)
@example(False, 0.0, 0.90625, 0.03125, 0.0)  # air in reach of the image's own border
def test_a_constant_stays_or_becomes_air(
    flip: bool, angle: float, scale: float, right: float, down: float
) -> None:
    theta = augmentation(
        torch.tensor([flip]),
        torch.tensor([angle]),
        torch.tensor([scale]),
        torch.tensor([[right, down]]),
    )
    pool = torch.full((1, 20, 30), 100, dtype=torch.int16)
    windows, index = torch.tensor([[[-450.0, 1101.0]]]), torch.zeros(1, dtype=torch.int64)
    images, masks = pool_batch(pool, index, theta, windows, masks=torch.ones_like(pool).bool())
    assert masks is not None
    image, mask = images[0, 0], masks[0, 0]
    grid = torch.nn.functional.affine_grid(theta.double(), [1, 1, 20, 30], align_corners=False)
    size = torch.tensor([30, 20])
    point = ((grid[0] + 1) * size - 1) / 2  # where a pixel looks, x and y

    def within(margin: float) -> Tensor:
        """At most so far beyond the outermost pixels' centres."""
        return ((point >= -margin) & (point <= size - 1 + margin)).all(-1)

    near = 1e-4  # of a pixel: positions are float32
    assert ((image >= 0) & (image <= 1)).all()
    assert (image[within(-near)] - 1).abs().le(1e-5).all()  # four pixels of the slice
    air = (-1000 + 450.5) / 1100 + 0.5
    assert (image[~within(1 + near)] - air).abs().le(1e-5).all()  # none
    assert mask[within(0.5 - near)].all()
    assert not mask[~within(0.5 + near)].any()


def test_numpy_in_and_out(tmp_path: Path) -> None:
    """A pool on the disk, mapped and never read as a whole, beside arrays and tensors."""
    call = arguments()
    expected = pool_batch(**call)
    np.save(tmp_path / "pool.npy", call["pool"].numpy())
    arrays = {name: tensor.numpy() for name, tensor in call.items()}
    arrays["pool"] = np.load(tmp_path / "pool.npy", mmap_mode="r")
    for mixed in (arrays, {**call, "pool": arrays["pool"]}):
        images, masks = pool_batch(**mixed)
        assert isinstance(images, np.ndarray)
        assert isinstance(masks, np.ndarray)
        assert_same_bits([torch.from_numpy(images), torch.from_numpy(masks)], list(expected))
    assert isinstance(pool_batch(**{**arrays, "pool": call["pool"]})[0], Tensor)
    with pytest.raises(TypeError, match="no array of numpy holds bfloat16"):
        pool_batch(**arrays, dtype=torch.bfloat16)


CALL = arguments()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"pool": CALL["pool"].tolist()}, TypeError, "pool must be a torch.Tensor or an array"),
        ({"theta": None}, TypeError, "theta must be a torch.Tensor or an array .*not NoneType"),
        ({"pool": CALL["pool"].int()}, TypeError, "pool must be int16, not torch.int32"),
        ({"pool": CALL["pool"][0]}, ValueError, r"pool must be \(N, H, W\)"),
        ({"pool": CALL["pool"][:, :1]}, ValueError, "H and W at least 2"),
        ({"pool": CALL["pool"].mT}, ValueError, r"contiguous; pass pool.contiguous\(\)"),
        ({"masks": CALL["masks"].float()}, TypeError, "masks must be uint8 or bool"),
        ({"masks": CALL["masks"][:3]}, ValueError, "masks must have the pool's shape"),
        ({"indices": CALL["indices"].int()}, TypeError, "indices must be int64"),
        ({"indices": CALL["indices"][None]}, ValueError, r"indices must be \(B,\)"),
        ({"theta": CALL["theta"][:2]}, ValueError, r"theta must be \(5, 2, 3\), not \(2, 2, 3\)"),
        ({"theta": CALL["theta"].to("meta")}, ValueError, "theta is on meta but pool is on cpu"),
        ({"theta": CALL["theta"].clone().requires_grad_()}, ValueError, "no gradient for theta"),
        ({"windows": CALL["windows"][:, 0]}, ValueError, r"windows must be \(5, K, 2\)"),
        ({"slope": CALL["slope"][:1]}, ValueError, r"slope must be \(5,\)"),
        ({"windows": CALL["windows"] * 0}, RuntimeError, "width must be positive"),
        ({"size": (0, 3)}, ValueError, "size must be two positive integers"),
        ({"function": "LINEAR"}, ValueError, "function must be one of"),
        ({"dtype": torch.int16}, TypeError, "dtype must be a floating one"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {**CALL, **bad}
    if error is RuntimeError and not sees_values(torch.device("cpu")):
        assert pool_batch(**arguments)[0].isnan().all()
        return
    with pytest.raises(error, match=f"pool_batch: .*{message}"):
        pool_batch(**arguments)
