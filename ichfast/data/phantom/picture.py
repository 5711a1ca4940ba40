"""A montage of the five subtypes in the brain window, without and with the outline of the label."""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ichfast.data.phantom.cohort import LABELLED, is_bleeding, make_patient_stream
from ichfast.data.phantom.lesions import SUBTYPES
from ichfast.data.phantom.patient import make_scan
from ichfast.errors import OutputError

PATIENTS = 2  # of each subtype
SLICES = 11


def draw(path: Path, *, seed: int, size: int) -> None:
    """Each subtype's first patients of the labelled cohort, at the slice with most of its blood."""
    found = _find(seed, size)
    figure, axes = plt.subplots(2 * PATIENTS, len(SUBTYPES), figsize=(9.5, 7.9), dpi=100)
    for column, subtype in enumerate(SUBTYPES):
        axes[0, column].set_title(subtype, fontsize=11, color="white")
        for row, (hu, mask) in enumerate(found[subtype]):
            for axis in axes[2 * row : 2 * row + 2, column]:
                axis.imshow(hu, cmap="gray", vmin=0, vmax=80)
                axis.axis("off")
            axes[2 * row + 1, column].contour(mask, [0.5], colors="red", linewidths=0.8)
    figure.patch.set_facecolor("black")
    figure.subplots_adjust(0, 0, 1, 0.96, 0.01, 0.01)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    # Noise does not compress; 64 shades keep the file small and look the same.
    try:
        Image.open(buffer).convert("RGB").quantize(64).save(path, format="PNG", optimize=True)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}. Choose another file.") from error


def _find(seed: int, size: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in SUBTYPES}
    index = 0
    while any(len(panels) < PATIENTS for panels in found.values()):
        if is_bleeding(index):
            rng = make_patient_stream(seed, LABELLED, index)
            scan = make_scan(rng, size, SLICES, bleeding=True, may_tilt=False)
            for i, name in enumerate(SUBTYPES):
                large = scan.mask.sum(axis=(1, 2)) * scan.pixel**2 > 250
                alone = large & scan.subtypes[:, i] & (scan.subtypes.sum(axis=1) == 1)
                if alone.any() and len(found[name]) < PATIENTS:
                    k = int(np.argmax(scan.mask.sum(axis=(1, 2)) * alone))
                    found[name].append((scan.hu[k], scan.mask[k]))
        index += 1
    return found
