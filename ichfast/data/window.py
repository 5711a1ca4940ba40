"""One DICOM file -> a windowed picture, for those who look at files one by one."""

from pathlib import Path

import torch
from torch import Tensor

from ichfast.ops import ct_window
from ichfast.ops._arrays import to_tensor


def read_window(path: Path, size: int, window: tuple[float, float]) -> Tensor:
    """(S, S) float32 in [0, 1]: the slice's Hounsfield units, averaged over the area of each pixel
    and windowed at `window` = (level, width). Rows and columns lie as in the file.

    Refused, a DataError, says why a file has no CT slice to show.
    """
    from ichfast.data import quirks  # pydicom is loaded by those who need it
    from ichfast.data.dicom import read_image

    image = read_image(Path(path))
    quirks.correct(image)
    return ct_window(
        to_tensor("read_window", "stored", image.stored[None]),
        torch.tensor([image.slope], dtype=torch.float32),
        torch.tensor([image.intercept], dtype=torch.float32),
        torch.tensor([window], dtype=torch.float32),
        (size, size),
        padding=image.padding,
    )[0, 0]
