"""One DICOM file -> a windowed picture, to look at files one by one."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ichfast.data.problems import Refused
from ichfast.errors import DataError
from ichfast.ops._checks import require_size


def read_window(path: Path, size: int, window: tuple[float, float]) -> Tensor:
    """(S, S) float32 in [0, 1]: a DICOM file's Hounsfield units, upright, averaged over the area of
    each pixel and windowed at `window` = (level, width in HU, above 1).

    DataError names the file and the reason why it has no CT slice to show.
    """
    from ichfast.data.dicom import read_image  # pydicom is loaded only where it is needed
    from ichfast.data.plausible import is_plain, judge, take_census
    from ichfast.data.quirks import correct
    from ichfast.data.stacks import make_frame

    require_size("read_window", (size, size))
    try:
        image = read_image(path)
        own = make_frame(image.header.orientation)
        correct(image)
        if image.header.rows != image.header.columns:
            raise Refused("not square")
        if not is_plain(image.stored, image.slope, image.intercept):
            rescale = np.array([image.slope]), np.array([image.intercept])
            judge(take_census(image.stored[None], *rescale, image.padding))
    except Refused as refused:
        raise DataError(f"{path}: {refused}") from None
    stored = np.ascontiguousarray(own.turn_upright(image.stored))[None]
    slope, intercept, windows = _make_numbers(image.slope, image.intercept, *window)
    # The op itself: what `ct_window` checks of its arguments is so by construction.
    images: Tensor = torch.ops.ichfast.ct_window(
        torch.from_numpy(stored),
        slope,
        intercept,
        windows,
        (size, size),
        "linear",
        image.padding,
        False,
        torch.float32,
    )
    return images.view(size, size)


@lru_cache  # a small tensor takes as long to make as a small file to open
def _make_numbers(slope: float, intercept: float, level: float, width: float) -> list[Tensor]:
    return [torch.tensor(values) for values in ([slope], [intercept], [[level, width]])]
