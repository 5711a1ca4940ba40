"""Small writers of data sets in the published layouts, and the real head CT where it is at hand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from preparing import Killed
from published import COLUMNS, TABLE, bhsd, ct_ich_100, dicom, head
from pydicom.dataset import FileDataset
from pydicom.pixels import get_decoder

from ichfast.data.prepare import plan


@pytest.fixture(name="head")
def head_fixture() -> Callable[..., np.ndarray]:
    return head


@pytest.fixture
def write_dicom() -> Callable[..., Path]:
    def write(path: Path, stored: np.ndarray, z: float = 0.0, **tags: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = dicom(stored, z, **tags)
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., FileDataset]:
    return dicom


@pytest.fixture
def write_ct_ich() -> Callable[..., Path]:
    """Patients 049, 050, ...: 4 slices each, the third with the spot in its mask (epidural)."""

    def write(
        root: Path,
        patients: int = 2,
        size: int = 32,
        affine: np.ndarray | None = None,
        turn: Callable[[np.ndarray], np.ndarray] = lambda volume: volume,
    ) -> Path:
        (root / "ct_scans").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        if affine is None:
            affine = np.diag([-0.5, -0.5, 5.0, 1.0])  # left, back, up: the upright picture itself
        rows = [COLUMNS]
        for number in range(49, 49 + patients):
            upright = np.stack([head(size) + k for k in range(4)])  # k tells the slices apart
            mask = np.zeros_like(upright)
            mask[2] = head(size) == 70
            # Floats in int16 make nibabel choose a scale, as the published masks have one.
            scan, mask = upright.astype(np.int16), mask * np.float32(255)
            for folder, volume in (("ct_scans", scan), ("masks", mask)):
                image = nibabel.Nifti1Image(turn(volume.transpose(2, 1, 0)), affine)
                image.header.set_data_dtype(np.int16)
                nibabel.save(image, root / folder / f"{number:03d}.nii")
            rows += [f"{number},{k + 1},0,0,0,{int(k == 2)},0,{int(k != 2)},0" for k in range(4)]
        text = "\ufeff" + "\r\n".join(rows) + "\r\n"
        (root / TABLE).write_bytes(text.encode())
        return root

    return write


@pytest.fixture
def write_rsna(write_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Two patients of 3 slices, names out of order; the last slice of each is subdural."""

    def write(root: Path, size: int = 32) -> Path:
        rows = ["ID,Label"]
        for patient in range(2):
            for k in range(3):
                name = f"ID_{(patient * 3 + (k * 2) % 3) * 0x123457:09x}"
                write_dicom(
                    root / "stage_2_train" / f"{name}.dcm",
                    (head(size) + 1024 + k).astype(np.uint16),
                    z=5.0 * k,
                    BitsStored=12,
                    RescaleIntercept=-1024,
                    PatientID=f"ID_{patient:08x}",
                    StudyInstanceUID=f"ID_{patient:010x}",
                    SeriesInstanceUID=f"ID_{patient:010x}",
                    WindowCenter=["00036", "00036"],
                    WindowWidth=["00080", "00080"],
                    SOPClassUID=None,
                )
                for kind in (
                    *("epidural", "intraparenchymal", "intraventricular", "subarachnoid"),
                    *("subdural", "any"),
                ):
                    rows.append(f"{name}_{kind},{int(k == 2 and kind in ('subdural', 'any'))}")
        (root / "stage_2_train.csv").write_text("\n".join(rows) + "\n")
        return root

    return write


@pytest.fixture(scope="session")
def need_decoder() -> Callable[[str], None]:
    def need(syntax: str) -> None:
        if not get_decoder(syntax).is_available:
            pytest.skip("no decoder for this syntax: pip install '.[decode]'")

    return need


@pytest.fixture(scope="session")
def head_ct() -> Path:
    """A real head CT (docs/data.md says which) in ICHFAST_HEAD_CT or beside the project."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "head-ct-ge"
    root = Path(os.environ.get("ICHFAST_HEAD_CT", beside))
    if not root.is_dir():
        pytest.skip("the real head CT is not here (ICHFAST_HEAD_CT)")
    return root


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part for every series or two of the fixtures."""
    monkeypatch.setattr(plan, "FILES", 4)


@pytest.fixture(params=["ct-ich", "ct-ich-jpeg", "nifti", "rsna", "dicom"])
def some_set(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    head: Any,
    write_ct_ich: Callable[..., Path],
    write_rsna: Callable[..., Path],
    write_dicom: Callable[..., Path],
) -> Path:
    root = tmp_path / "set"
    if request.param == "ct-ich":
        return write_ct_ich(root, patients=3)
    if request.param == "ct-ich-jpeg":
        return ct_ich_100(root)
    if request.param == "nifti":
        return bhsd(root)
    if request.param == "rsna":
        return write_rsna(root)
    for k in range(9):  # three series, their files mixed
        uid = f"1.2.{k % 3}"
        pixels = head(32).astype(np.int16) + k
        write_dicom(root / f"{k}.dcm", pixels, z=2.0 * k, SeriesInstanceUID=uid)
    return root


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Arms the n-th step that reaches the disk, counted from now."""
    left = [0]

    def before(name: str) -> None:
        original = getattr(os, name)

        def step(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, step)

    for name in ("fsync", "replace", "rename", "rmdir"):
        before(name)

    def arm(n: int) -> None:
        left[0] = n

    yield arm
    left[0] = 0


@pytest.fixture(scope="session")
def larger_set(tmp_path_factory: pytest.TempPathFactory, make_dicom: Callable[..., Any]) -> Path:
    """40 series of 20 slices, and one bad file."""
    root = tmp_path_factory.mktemp("larger")
    pixels = np.random.default_rng(0).integers(-1000, 600, (64, 64)).astype(np.int16)
    for series in range(40):
        for k in range(20):
            uid, z = f"1.2.{series}", 5.0 * k
            dataset = make_dicom(np.roll(pixels, 20 * series + k), z, SeriesInstanceUID=uid)
            dataset.save_as(root / f"{series:02}-{k:02}.dcm", enforce_file_format=True)
    (root / "zz.dcm").write_bytes(b"\0" * 200)
    return root
