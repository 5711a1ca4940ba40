"""CT windowing with the area average by two, in CuPy: two expressions and, as more than that, a
kernel of its own.

Their result is float16, as wide as the bfloat16 that it is compared with: CuPy's fusion knows no
bfloat16. CuPy is imported at the first call.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from benchmarks.devices import Run
from ichfast.ops.reference.ct_window import HU_RANGE

LOW, HIGH = np.float32(HU_RANGE[0]), np.float32(HU_RANGE[1])
ZERO, ONE = np.float32(0), np.float32(1)


def make_runs(
    stored: Tensor, slope: Tensor, intercept: Tensor, line: tuple[float, float]
) -> dict[str, Run]:
    """By name. ``line``: scale and shift from the sum of four HU to the window.

    The tensors become arrays over the same memory once, the result a tensor at every call.
    """
    scale, shift = np.float32(line[0]), np.float32(line[1])

    @cache
    def arrays() -> list[Any]:
        return [_import_cupy().from_dlpack(tensor) for tensor in (stored, slope, intercept)]

    def run(expression: Callable[..., Any]) -> Run:
        return lambda: (from_dlpack(expression(*arrays(), scale, shift)),)

    return {"cupy": run(plain), "cupy tight": run(tight), "cupy kernel": run(kernel)}


def plain(stored: Any, slope: Any, intercept: Any, scale: np.float32, shift: np.float32) -> Any:
    """What one writes: an average between two fused functions."""
    fused = _fuse()
    hu = fused.rescale(stored, slope[:, None, None], intercept[:, None, None])
    images, height, width = hu.shape
    mean = hu.reshape(images, height // 2, 2, width // 2, 2).mean((2, 4))
    return fused.window(mean, np.float32(4 * scale), shift)[:, None]


def tight(stored: Any, slope: Any, intercept: Any, scale: np.float32, shift: np.float32) -> Any:
    """One fused function of the four pixels that each output pixel averages: one kernel, and every
    byte moves once."""
    four = (stored[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    slope, intercept = slope[:, None, None], intercept[:, None, None]
    return _fuse().window_of_four(*four, slope, intercept, scale, shift)[:, None]


def kernel(stored: Any, slope: Any, intercept: Any, scale: np.float32, shift: np.float32) -> Any:
    """C++ inside an ElementwiseKernel: 4-byte loads of two pixels."""
    images, height, width = stored.shape
    out = _import_cupy().empty((images, 1, height // 2, width // 2), np.float16)
    lines = (LOW, HIGH, scale, shift)
    _compile_kernel()(stored, slope, intercept, height // 2, width // 2, *lines, out)
    return out


@cache
def _import_cupy() -> Any:
    import cupy

    return cupy


@cache
def _fuse() -> SimpleNamespace:
    cupy = _import_cupy()

    def limit(x: Any, low: np.float32, high: np.float32) -> Any:
        return cupy.minimum(cupy.maximum(x, low), high)

    def rescale(x: Any, slope: Any, intercept: Any) -> Any:
        return limit(x.astype(np.float32) * slope + intercept, LOW, HIGH)

    def window(x: Any, scale: Any, shift: Any) -> Any:
        return limit(x * scale + shift, ZERO, ONE).astype(np.float16)

    def window_of_four(
        a: Any, b: Any, c: Any, d: Any, slope: Any, intercept: Any, scale: Any, shift: Any
    ) -> Any:
        a, b, c, d = (rescale(x, slope, intercept) for x in (a, b, c, d))
        return window(a + b + c + d, scale, shift)

    return SimpleNamespace(**{f.__name__: cupy.fuse(f) for f in (rescale, window, window_of_four)})


@cache
def _compile_kernel() -> Any:
    return _import_cupy().ElementwiseKernel(
        "raw int16 stored, raw float32 slope, raw float32 intercept, int64 height, int64 width, "
        "float32 low, float32 high, float32 scale, float32 shift",
        "float16 out",
        """
        const long long row = i / width, column = i % width, image = row / height;
        const short2* pixels = reinterpret_cast<const short2*>(&stored[0]);
        const short2 upper = pixels[2 * row * width + column];
        const short2 lower = pixels[(2 * row + 1) * width + column];
        const float a = slope[image], b = intercept[image];
        const float sum = fminf(fmaxf(upper.x * a + b, low), high) +
                          fminf(fmaxf(upper.y * a + b, low), high) +
                          fminf(fmaxf(lower.x * a + b, low), high) +
                          fminf(fmaxf(lower.y * a + b, low), high);
        out = float16(fminf(fmaxf(sum * scale + shift, 0.0f), 1.0f));
        """,
        "ichfast_benchmark_window",
    )
