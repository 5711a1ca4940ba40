"""From a DICOM file to a windowed float32 slice at half its size, on one thread, files warm.

``pydicom`` is its own two lookups and torch's area average; ``numpy tight`` reads the header's few
tags and the pixels in place, and windows as fast as we could make NumPy do it. Neither looks for
anything odd in the file, as ours does.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.bench_ct_window import BRAIN, INTERCEPT, SLOPE, numpy_tight
from benchmarks.devices import Device, Run
from benchmarks.harness import OURS, Case, Target
from benchmarks.registry import Benchmark
from ichfast.data import read_window

FILES, SIDE = 8, 512
TAGS = [
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
]


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    return [partial(_make_cases, SIDE)] if device.kind == "cpu" else []


BENCHMARK = Benchmark(list_cases, order=5)


def _make_cases(side: int) -> Iterator[Case]:
    half = side // 2
    with tempfile.TemporaryDirectory() as folder:
        files = [_write(Path(folder) / f"{k}.dcm", side, k) for k in range(FILES)]
        contenders = {OURS: _ours, "pydicom": _pydicom, "numpy tight": _numpy_tight}
        yield Case(
            op="dicom_window",
            work="file to one window",
            shape=f"{side}×{side} to {half}×{half}",
            dtype="int16 to float32",
            contenders={
                name: [_run(function, path, half) for path in files]
                for name, function in contenders.items()
            },
            read=(torch.empty(side, side, dtype=torch.int16),),
            written=(torch.empty(half, half),),
            # pydicom windows before the average.
            tolerance=5e-2,
            threads=1,
            targets=(Target("pydicom", 12.0), Target("numpy tight", 3.0)),
        )


def _run(function: Callable[[Path, int], Tensor], path: Path, half: int) -> Run:
    def run() -> Sequence[Tensor]:
        return (function(path, half),)

    return run


def _ours(path: Path, half: int) -> Tensor:
    return read_window(path, half, BRAIN)


def _pydicom(path: Path, half: int) -> Tensor:
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    dataset = dcmread(path)
    windowed = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    # From the least to the greatest HU that 16 bits can be.
    low, high = (end * SLOPE + INTERCEPT for end in (-(2**15), 2**15 - 1))
    whole = torch.from_numpy(windowed.astype(np.float32))[None, None]
    small = torch.nn.functional.interpolate(whole, size=(half, half), mode="area")[0, 0]
    return (small - low) / (high - low)


def _numpy_tight(path: Path, half: int) -> Tensor:
    from pydicom import dcmread

    with path.open("rb") as file:
        header = dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        element = file.read()
    count = header.Rows * header.Columns
    stored = np.frombuffer(element, np.dtype("<i2"), count, offset=12)  # after tag, VR and length
    out = np.empty((half, half), np.float32)
    numpy_tight(stored.reshape(header.Rows, header.Columns), out)
    return torch.from_numpy(out)


def _write(path: Path, side: int, number: int) -> Path:
    """A head: bone around brain around blood, with noise, in air."""
    from benchmarks.ct_files import write_ct  # pydicom, which a machine with a GPU need not have

    return write_ct(
        path,
        _head(side, number),
        number,
        RescaleSlope=SLOPE,
        RescaleIntercept=INTERCEPT,
        WindowCenter=BRAIN[0],
        WindowWidth=BRAIN[1],
    )


def _head(side: int, number: int) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(number)
    down, right = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    radius = np.hypot(down, 1.2 * right)
    # Edges are as soft as the tissues are thick: where one crosses a pixel, the window before the
    # average and after it differ.
    hu = np.interp(radius, [0.07, 0.09, 0.36, 0.4, 0.42, 0.46], [65, 32, 32, 1000, 1000, -1000])
    stored: npt.NDArray[np.float64] = np.round(hu + random.normal(0, 5, hu.shape) - INTERCEPT)
    return stored
