"""Small studies for the tests of the page."""

from dataclasses import replace

import numpy as np
import pytest

from ichfast.viewer import StudyPage, quantise

THRESHOLD = 0.43
SPACING = (0.5, 0.4)
SLABS = np.array([4.0, 4.0, 5.5, 7.0, 7.0, 3.5])
SHAPE = (6, 48, 40)


@pytest.fixture
def probability() -> np.ndarray:
    """(6, 48, 40) float32: a bleed over slices 2 to 4, largest in 3, and a speck in slice 0."""
    z, y, x = np.indices(SHAPE)
    distance = ((z - 3) / 1.6) ** 2 + ((y - 20) / 9) ** 2 + ((x - 26) / 7) ** 2
    values = np.exp(-distance).astype(np.float32)
    values[z == 0] = 0
    values[0, 40, 5:7] = 0.9
    return values


@pytest.fixture
def study(probability: np.ndarray) -> StudyPage:
    random = np.random.default_rng(0)
    hu = random.normal(35, 12, SHAPE).round().astype(np.int16)
    hu[:, :6] = -1000
    hu[:, 6:9] = 1200
    return StudyPage(
        title="Study 7",
        hu=hu,
        probability=quantise(probability, THRESHOLD),
        threshold=THRESHOLD,
        window=(40.0, 80.0),
        spacing=SPACING,
        slab_mm=SLABS,
        labels=[f"z {4 * i} mm" for i in range(6)],
        interval="90 %: 0.1 to 9.9 mL",
        facts=[("Model", "tiny"), ("Tilt", "18.5°")],
        warnings=["The spacing is uneven."],
        credit="Made by the tests.",
    )


@pytest.fixture
def with_target(study: StudyPage) -> StudyPage:
    """Slices of several scans: a target, no geometry, nothing added up."""
    target = np.zeros(SHAPE, bool)
    target[2:5, 14:26, 22:32] = True
    return replace(study, target=target, spacing=None, slab_mm=None, one_scan=False, interval=None)
