"""One patient's scan, put together: head, lesions, confounders and scanner."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.phantom.brain import Spaces, paint_brain
from ichfast.data.phantom.confounders import Confounders
from ichfast.data.phantom.geometry import Array, Noise, Plane
from ichfast.data.phantom.head import Head
from ichfast.data.phantom.lesions import SUBTYPES, Lesion, sample_lesions
from ichfast.data.phantom.scanner import Scanner
from ichfast.data.phantom.skull import paint_base, paint_skull

BONE = 100.0  # HU: no voxel denser than this is labelled blood
SMALLEST = 20.0  # mm2 of blood on a slice below which nobody would outline it

BOTTOM, TOP = -36.0, 64.0  # heights of the lowest and the highest slice, mm


@dataclass(frozen=True, eq=False)
class Scan:
    hu: np.ndarray  # (n, S, S) int16, from below; rows front to back, columns right to left
    mask: np.ndarray  # (n, S, S) bool
    subtypes: np.ndarray  # (n, 5) bool, in the order of SUBTYPES
    pixel: float  # mm
    step: float  # mm between slices, along their normal
    tilt: float  # degrees of the gantry
    age: int
    male: bool


def make_scan(
    rng: np.random.Generator, size: int, slices: int, *, bleeding: bool, may_tilt: bool
) -> Scan:
    """A scan of one patient, with blood on at least one slice if `bleeding`."""
    while True:
        scan = _sample_scan(rng, size, slices, bleeding, may_tilt)
        if scan.mask.any() == bleeding:
            return scan


def _sample_scan(
    rng: np.random.Generator, size: int, slices: int, bleeding: bool, may_tilt: bool
) -> Scan:
    head = Head.sample(rng)
    lesions = sample_lesions(rng, head) if bleeding else []
    confounders = Confounders.sample(rng, head)
    scanner = Scanner.sample(rng)
    cells = Noise(rng, 3)
    pixel = rng.uniform(0.42, 0.48) * 512 / size
    tilt = float(rng.choice([-1, 1]) * rng.uniform(4, 14)) if rng.random() < 0.3 else 0.0
    tilt *= may_tilt
    bottom, top = BOTTOM + rng.uniform(-4, 4), TOP + rng.uniform(-4, 4)
    step = (top - bottom) / max(slices - 1, 1)
    male = bool(rng.random() < 0.55)

    hu = np.empty((slices, size, size), np.int16)
    mask = np.zeros((slices, size, size), bool)
    subtypes = np.zeros((slices, len(SUBTYPES)), bool)
    for k in range(slices):
        level = bottom + k * step
        # The table moves along its own axis, so under a tilted gantry the head drifts on the rows.
        drift = np.tan(np.deg2rad(tilt)) * (k - (slices - 1) / 2) * step
        plane = head.make_plane(size, pixel, level, drift)
        image, blood = _paint(head, lesions, confounders, cells, plane)
        clean = scanner.degrade(image, plane)
        allowed = (clean < BONE) & (plane.depth > 0)
        for subtype, coverage in blood.items():
            part = (scanner.apply_resolution(coverage, plane) >= 0.5) & allowed
            if part.sum() * pixel**2 >= SMALLEST:
                subtypes[k, subtype] = True
                mask[k, plane.rows, plane.columns] |= part
        scanned = scanner.make_surroundings(size, pixel, drift)
        head_part = scanned[plane.rows, plane.columns]
        np.maximum(head_part, clean, out=head_part)
        scanned += scanner.make_noise(size, pixel, level, rng)
        hu[k] = np.clip(np.rint(scanned), -1024, 3071)
    return Scan(hu, mask, subtypes, pixel, step, tilt, head.age, male)


def _paint(
    head: Head, lesions: list[Lesion], confounders: Confounders, cells: Noise, plane: Plane
) -> tuple[Array, dict[int, Array]]:
    """The slice without the scanner's faults, and each subtype's coverage by blood."""
    hu = np.empty_like(plane.x)
    vault = paint_skull(hu, head, plane)
    if confounders.haematoma is not None:
        confounders.haematoma.paint(hu, plane, vault)
    for lesion in lesions:
        lesion.displace(plane)
    widening: Array | float = sum(lesion.compute_widening(plane) for lesion in lesions)
    dilation = max([lesion.dilation for lesion in lesions], default=1.0)
    spaces: Spaces = paint_brain(hu, head, plane, widening, dilation)
    confounders.paint_inside(hu, head, plane)
    for lesion in lesions:
        lesion.alter_tissue(hu, plane, spaces)
    blood: dict[int, Array] = {}
    for lesion in lesions:
        coverage = lesion.compute_coverage(plane, spaces)
        if coverage is not None:
            hu += coverage * (lesion.compute_density(plane) - hu)
            blood[SUBTYPES.index(lesion.subtype)] = coverage
    bone = paint_base(hu, head, plane, cells)
    return hu, {subtype: coverage * (1 - bone) for subtype, coverage in blood.items()}
