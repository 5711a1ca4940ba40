"""A trained model as its user holds it: HU in, probability of haemorrhage out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ichfast.data.series import AIR_HU, Series
from ichfast.data.slices import Warp
from ichfast.errors import CheckpointError
from ichfast.evaluation.calibration import Calibration
from ichfast.inference.description import Description
from ichfast.inference.fit import Fit, Spacing
from ichfast.inference.network import Network
from ichfast.inference.sources import Member, find_shipped, read_member
from ichfast.models import ReducedUNet
from ichfast.ops.pool_batch import pool_batch

AT_ONCE = 2**24
"""values of a feature map at a time: 64 MiB, of which a network holds half a dozen"""


class Model:
    """One network, or several whose logits are averaged.

    ``size`` and ``window`` are what slices are resized to and windowed with, ``threshold`` is the
    calibrated probability above which a pixel is haemorrhage, and ``about`` says where the model
    comes from, ready for JSON.
    """

    def __init__(
        self, networks: Sequence[ReducedUNet], description: Description, device: torch.device
    ) -> None:
        self.size, self.window = description.size, description.window
        self.calibration: Calibration = description.calibration
        self.threshold = self.calibration.move_threshold(description.threshold)
        self.name = description.name or "unnamed"
        self.about: dict[str, Any] = {
            **description.model_dump(mode="json", exclude={"calibration"}),
            "name": self.name,
            "networks": len(networks),
        }
        self.device = device
        self.network = Network(networks, self.calibration.temperature or 1.0).to(device).eval()

    def segment(self, hu: Any, spacing: Spacing | None = None) -> np.ndarray:
        """The probability of haemorrhage, calibrated where the model is.

        Args:
            hu: (n, H, W) Hounsfield units of axial slices, rows from front to back and columns from
                the patient's right to left, of any real dtype. What is not finite counts as air.
            spacing: mm between rows and between columns. Needed where they differ: the network
                knows heads at their true proportions. Pixels count as square without it.

        Returns:
            (n, H, W) float32 in 0 ... 1, on the grid of ``hu``.

        Raises:
            ValueError, TypeError: ``hu`` or ``spacing`` is not such.
        """
        volume = np.asarray(hu)
        if volume.ndim != 3 or 0 in volume.shape[1:]:
            raise ValueError(f"hu must be (n, H, W), H and W at least 1; got {volume.shape}.")
        if volume.dtype.kind not in "biuf":
            raise TypeError(f"hu must be of a real dtype; got {volume.dtype}.")
        probability = np.empty(volume.shape, np.float32)
        _, rows, columns = volume.shape
        fit = Fit.make(rows, columns, spacing, self.size)
        for own in self._split(len(volume)):
            stored = _replace_odd(volume[own])
            ones = np.ones(len(stored), np.float32)
            probability[own] = self._segment(fit, stored, ones, np.zeros_like(ones), None)
        return probability

    def segment_series(
        self, series: Series, batch_size: int = 32
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """The same of a series, a batch of slices at a time, in order: which slices, and their
        (k, H, W) float32 probability. Memory holds one batch."""
        _, rows, columns = series.stored.shape
        fit = Fit.make(rows, columns, series.spacing, self.size)
        finite = np.isfinite(series.slope).all() and np.isfinite(series.intercept).all()
        for own in self._split(len(series), batch_size):
            stored, padding = series.stored[own], series.padding
            slope, intercept = (
                numbers[own].astype(np.float32) for numbers in (series.slope, series.intercept)
            )
            if stored.dtype.kind == "f" or not finite:
                stored, padding = _to_hu(stored, slope, intercept, padding), None
                slope, intercept = np.ones_like(slope), np.zeros_like(intercept)
            yield own, self._segment(fit, stored, slope, intercept, padding)

    def measure_for_scan(
        self, series: Series, pixels: Sequence[int], ml: float | None
    ) -> float | None:
        """What the scan score is about, in its unit, from the pixels of the mask on each slice and
        its mL; None where the model has no such score, or the scan no mL for it."""
        scan = self.calibration.scan
        if scan is None or scan.unit == "mL":
            return None if scan is None else ml
        _, rows, columns = series.stored.shape
        return sum(pixels) / len(pixels) * self.measure_pixel(rows, columns, series.spacing)

    def measure_pixel(self, rows: int, columns: int, spacing: Spacing | None = None) -> float:
        """How many pixels of the network's own grid a pixel of such a slice makes."""
        fit = Fit.make(rows, columns, spacing, self.size)
        return fit.height * fit.width / (rows * columns)

    def _split(self, count: int, batch_size: int = 32) -> Iterator[slice]:
        """As few batches as memory has room for."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        most = max(1, AT_ONCE // (self.size**2 * self.network.width))
        step = min(batch_size, most)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    @torch.inference_mode()
    def _segment(
        self,
        fit: Fit,
        stored: np.ndarray,
        slope: np.ndarray,
        intercept: np.ndarray,
        padding: float | None,
    ) -> np.ndarray:
        hu = fit.place(self._send(stored), self._send(slope), self._send(intercept), padding)
        plain = Warp.plain(self.window, len(hu))
        image, _ = pool_batch(
            hu,
            torch.arange(len(hu), device=self.device),
            plain.theta.to(self.device),
            plain.windows.to(self.device),
        )
        _, rows, columns = stored.shape
        logits = fit.restore(self.network.segment_fast(image), rows, columns)
        probability: np.ndarray = logits.sigmoid_().numpy(force=True)
        return probability

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _replace_odd(hu: np.ndarray) -> np.ndarray:
    """As float32, air where it is not finite."""
    with np.errstate(over="ignore"):
        plain = hu.astype(np.float32)
    plain[~np.isfinite(plain)] = AIR_HU
    return plain


def _to_hu(
    stored: np.ndarray, slope: np.ndarray, intercept: np.ndarray, padding: float | None
) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        hu = stored.astype(np.float32) * slope[:, None, None] + intercept[:, None, None]
    if padding is not None:
        hu[stored == padding] = AIR_HU
    return _replace_odd(hu)


Source = Path | str


def load_model(
    source: Source | Sequence[Source] | None = None, device: torch.device | str = "cpu"
) -> Model:
    """A trained model, ready to segment.

    Args:
        source: a run folder, or a ``.safetensors`` that says what its model takes; several of them,
            as the folds of a cross-validation, whose logits are averaged; or None, the weights that
            ship with ichfast.
        device: where it computes.

    Raises:
        CheckpointError: there is no model, or one that cannot be used, or several that do not
            belong together.
    """
    if source is None:
        sources: list[Path] = [find_shipped()]
    elif isinstance(source, Path | str):
        sources = [Path(source)]
    else:
        sources = [Path(one) for one in source]
    if not sources:
        raise CheckpointError("no model given; give a run folder, a .safetensors file, or None.")
    members = [read_member(path) for path in sources]
    return Model([one.network for one in members], _join(members), torch.device(device))


def _join(members: Sequence[Member]) -> Description:
    """The description of all of them together; CheckpointError unless they see the same slices."""
    first, *others = members
    if not others:
        return first.description
    for other in others:
        for key in ("size", "window", "threshold"):
            one, another = (getattr(each.description, key) for each in (first, other))
            if one != another:
                raise CheckpointError(
                    f"{first.path} and {other.path} cannot be averaged: their {key} is {one} and "
                    f"{another}; give models of the same recipe."
                )
    names = [one.description.name or one.path.stem for one in members]
    return first.description.model_copy(
        update={
            "name": " + ".join(names),
            "calibration": Calibration.make_empty(
                f"an average of {len(members)} models, which nobody's scan was left to calibrate on"
            ),
        }
    )
