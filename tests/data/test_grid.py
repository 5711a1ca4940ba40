"""A mask returns to the voxels it came from, whatever the files' axes and the patient's posture."""

import subprocess
import sys
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import BLEED, BLEED_CENTRE, BLEED_HU, write_ct_series
from enhanced_files import enhanced
from published import ct_ich_100
from pydicom import dcmread

from ichfast.data import Problems, Series, read_series
from ichfast.data.grid import Grid
from ichfast.data.nifti import read_nifti

TURNS = list(product((False, True), repeat=3))  # transpose, flip_rows, flip_columns
SHAPES: dict[str, dict[str, Any]] = {
    "flat": {},
    "tilted": {"geometry": "tilted"},
    "uneven": {"geometry": "uneven"},
    "both": {"geometry": "both", "descending": True},
    "missing": {"missing": (5, 6), "descending": True},
}
FEW = {"shape": (40, 48), "spacing": (5.0, 4.5), "slices": 10, "step": 9.0}
CODES = ["".join(c) for axes in permutations(("LR", "PA", "SI")) for c in product(*axes)]


def read_one(root: Path) -> Series:
    (series,) = read_series(root, Problems())
    return series


def locate(grid: Grid) -> np.ndarray:
    """(n, H, W, 3) LPS mm of the upright voxels."""
    rows, columns = np.mgrid[: grid.size[0], : grid.size[1]][..., None]
    return grid.origins[:, None, None] + rows * grid.down + columns * grid.across


def draw_bleed(points: np.ndarray) -> np.ndarray:
    inside: np.ndarray = (((points - BLEED_CENTRE) / BLEED) ** 2).sum(-1) < 1
    return inside


def apply(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(*shape, 3) LPS mm of the voxels of a NIfTI volume."""
    index = np.stack(np.indices(shape), axis=-1)
    points: np.ndarray = (index @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    return points


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_dicom(tmp_path: Path, shape: str, turn: tuple[bool, bool, bool]) -> None:
    flags = dict(zip(("transpose", "flip_rows", "flip_columns"), turn, strict=True))
    written = write_ct_series(tmp_path, **{**FEW, **SHAPES[shape], **flags})
    series = read_one(tmp_path)
    grid = series.grid
    assert grid is not None
    np.testing.assert_allclose(grid.origins, written.origins, atol=1e-5)
    np.testing.assert_allclose(grid.down, written.down, atol=1e-6)
    np.testing.assert_allclose(grid.across, written.across, atol=1e-6)
    np.testing.assert_allclose(grid.origins @ grid.normal, series.positions, atol=1e-5)
    mask = draw_bleed(locate(grid))
    assert mask.any()
    restored = grid.restore(mask)
    for k, source in enumerate(series.sources):
        dataset = dcmread(tmp_path / source)
        hu = dataset.pixel_array.astype(int) + int(dataset.RescaleIntercept)
        np.testing.assert_array_equal(restored[k], hu == BLEED_HU)
    assert grid.is_regular() is (shape == "flat")


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_affine_of_dicom(tmp_path: Path, turn: tuple[bool, bool, bool]) -> None:
    flags = dict(zip(("transpose", "flip_rows", "flip_columns"), turn, strict=True))
    write_ct_series(tmp_path, **FEW, **flags)
    grid = read_one(tmp_path).grid
    assert grid is not None
    points = np.stack([grid.to_nifti(axis) for axis in np.moveaxis(locate(grid), -1, 0)], -1)
    np.testing.assert_allclose(apply(grid.affine, points.shape[:3]), points, atol=1e-4)
    assert np.linalg.det(grid.affine[:3, :3]) < 0  # dcm2niix's are left-handed


@pytest.mark.parametrize(
    ("shape", "turn"),
    [
        *(("flat", turn) for turn in TURNS),
        *(("uneven", turn) for turn in TURNS),
        # Where ImageOrientationPatient points to the feet, dcm2niix's tilted sform has the slices
        # in the wrong order.
        *(("tilted", turn) for turn in TURNS if sum(turn) % 2 == 0),
        ("both", TURNS[0]),
        ("missing", TURNS[0]),
    ],
    ids=str,
)
def test_as_dcm2niix(tmp_path: Path, shape: str, turn: tuple[bool, bool, bool]) -> None:
    program = Path(sys.executable).with_name("dcm2niix")
    if not program.exists():
        pytest.skip("dcm2niix is not installed (pip install dcm2niix)")
    flags = dict(zip(("transpose", "flip_rows", "flip_columns"), turn, strict=True))
    folder, out = tmp_path / "dicom", tmp_path / "nifti"
    write_ct_series(folder, **{**FEW, **SHAPES[shape], **flags})
    out.mkdir()
    command = [str(program), "-b", "n", "-z", "n", "-f", "head", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    image: Any = nibabel.load(out / "head.nii")
    series = read_one(folder)
    grid = series.grid
    assert grid is not None
    np.testing.assert_array_equal(grid.to_nifti(series.hu()), np.asarray(image.dataobj))
    for ours, theirs in zip(grid.forms, (image.get_sform(), image.get_qform()), strict=True):
        np.testing.assert_allclose(ours[0], theirs, atol=1e-3)
        assert ours[1] == 1


def test_tilt_is_a_shear(tmp_path: Path) -> None:
    """The slices of a tilted gantry move along z, so they lie beside each other's normals."""
    written = write_ct_series(tmp_path, "tilted", **FEW)
    grid = read_one(tmp_path).grid
    assert grid is not None
    shifts = grid.measure_shifts()
    np.testing.assert_allclose(shifts[:, 1], 0, atol=1e-4)
    expected = -np.sin(np.radians(18)) * 9.0 / 5.0 * np.arange(10)  # pixels of 5 mm
    np.testing.assert_allclose(shifts[:, 0], expected, atol=1e-4)
    z_steps = np.diff(written.origins, axis=0)
    np.testing.assert_allclose(z_steps, np.tile([0, 0, 9.0], (9, 1)), atol=1e-9)


def test_a_tilted_head_in_a_straight_gantry(tmp_path: Path) -> None:
    """A resampled or helical series: tilted, but the slices lie exactly above each other."""
    written = write_ct_series(tmp_path, "tilted", **FEW)
    for path, position in zip(written.files, written.positions, strict=True):
        dataset = dcmread(path)
        angle = np.radians(18)
        normal = np.array([0, np.sin(angle), np.cos(angle)])
        dataset.ImagePositionPatient = [round(v, 6) for v in (normal * position).tolist()]
        dataset.save_as(path)
    series = read_one(tmp_path)
    assert "gantry tilt" in series.quirks
    assert series.grid is not None
    assert series.grid.is_regular()
    points = apply(series.grid.affine, (1, 1, 10))[0, 0]
    np.testing.assert_allclose(np.diff(points @ normal), 9 * np.cos(angle), atol=1e-4)


def test_duplicates_and_files_out_of_order(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, descending=True, **FEW)
    again = dcmread(written.files[3])
    again.PixelData = dcmread(written.files[4]).PixelData  # another image at the same place
    again.SOPInstanceUID = "1.2.3"
    again.save_as(tmp_path / "again.dcm")
    grid = read_one(tmp_path).grid
    assert grid is not None
    expected = np.insert(written.origins, 4, written.origins[3], axis=0)
    np.testing.assert_allclose(grid.origins, expected, atol=1e-5)
    assert not grid.is_regular()
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, 2]), 9)


def test_a_bad_slice_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    written = write_ct_series(tmp_path, **FEW)
    written.files[4].write_bytes(written.files[4].read_bytes()[:-100])
    grid = read_one(tmp_path).grid
    assert grid is not None
    np.testing.assert_allclose(grid.origins, np.delete(written.origins, 4, axis=0), atol=1e-5)


@pytest.mark.parametrize("per_frame", [False, True])
def test_enhanced(tmp_path: Path, per_frame: bool) -> None:
    """Frames out of order, tilted, rows to the front."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (4, 16, 20)).astype(np.int16)
    c, s = np.cos(np.radians(18)), np.sin(np.radians(18))
    down, across = np.array([0, -c, s]) * 0.75, np.array([1, 0, 0]) * 0.5
    corners = np.array([[-4.0, 30, z] for z in (10, 0, 15, 5)])
    dataset = enhanced(
        volume,
        corners[:, 2].tolist(),
        shared={
            "ImageOrientationPatient": [1, 0, 0, *(down / 0.75)],
            "PixelSpacing": [0.75, 0.5],
        },
        frames=[{"ImagePositionPatient": corner.tolist()} for corner in corners],
        per_frame=per_frame,
    )
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    series = read_one(tmp_path)
    grid = series.grid
    assert grid is not None
    frames = [int(source.rpartition("#")[2]) - 1 for source in series.sources]
    assert frames == [1, 3, 0, 2]
    np.testing.assert_array_equal(grid.restore(series.hu()), volume[frames])
    rows, columns = np.mgrid[:16, :20][..., None]
    points = corners[frames][:, None, None] + rows * down + columns * across
    restored = np.stack([grid.restore(axis) for axis in np.moveaxis(locate(grid), -1, 0)], -1)
    np.testing.assert_allclose(restored, points, atol=1e-6)


@pytest.mark.parametrize("thickness", [None, 4.0])
def test_one_slice(tmp_path: Path, thickness: float | None) -> None:
    write_ct_series(tmp_path, **{**FEW, "slices": 1}, SliceThickness=thickness)
    grid = read_one(tmp_path).grid
    assert grid is not None
    assert grid.thickness == thickness
    assert grid.is_regular()
    np.testing.assert_allclose(grid.affine[:3, 2], [0, 0, thickness or 1])


# --- NIfTI ---


def make_affine(code: str, shape: tuple[int, ...]) -> np.ndarray:
    """Axes as in the code, turned a little about all of them, so that nothing is straight."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
    directions |= {"S": (0, 0, 1), "I": (0, 0, -1)}
    size = {"R": 4.5, "L": 4.5, "A": 5.0, "P": 5.0, "S": 9.0, "I": 9.0}
    a, b = np.radians(7), np.radians(-11)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.array([directions[c] for c in code]).T
    affine[:3, :3] *= [size[c] for c in code]
    affine[:3, 3] = np.array([25, 12, 0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def save(path: Path, affine: np.ndarray, shape: tuple[int, ...], form: str = "both") -> np.ndarray:
    """An image with the bleed in it, in the file's own axes; returns the bleed."""
    bleed = draw_bleed(apply(affine, shape))
    voxels = np.where(bleed, BLEED_HU, np.where(np.indices(shape)[0] % 2, 900, -1000))
    image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    image.set_sform(affine if form != "qform" else None, code=2 if form != "qform" else 0)
    image.set_qform(affine if form != "sform" else None, code=1 if form != "sform" else 0)
    nibabel.save(image, path)
    return bleed


@pytest.mark.parametrize("code", CODES)
def test_every_orientation_of_nifti(tmp_path: Path, code: str) -> None:
    """Of the 48, half are left-handed."""
    sizes = {"R": 21, "L": 21, "A": 18, "P": 18, "S": 10, "I": 10}
    shape = tuple(sizes[c] for c in code)
    affine = make_affine(code, shape)
    assert "".join(nibabel.aff2axcodes(affine)) == code
    form = ("both", "sform", "qform")[CODES.index(code) % 3]
    bleed = save(tmp_path / "a.nii", affine, shape, form)
    series, _ = read_nifti(tmp_path / "a.nii", None, "a.nii", "a")
    grid = series.grid
    assert grid is not None
    assert grid.shape == series.stored.shape == (10, 18, 21)
    mask = draw_bleed(locate(grid))
    np.testing.assert_array_equal(mask, series.hu() == BLEED_HU)
    np.testing.assert_array_equal(grid.restore(mask), bleed)
    np.testing.assert_array_equal(grid.to_nifti(mask), bleed)
    np.testing.assert_allclose(grid.affine, affine, atol=1e-4)
    np.testing.assert_allclose(grid.origins @ grid.normal, series.positions, atol=1e-4)
    assert grid.is_regular()
    codes = {"both": (2, 1), "sform": (2, 0), "qform": (0, 1)}[form]
    assert tuple(code for _, code in grid.forms) == codes


def test_a_sheared_nifti(tmp_path: Path) -> None:
    """What converters make of a tilted gantry: slices along z."""
    affine = np.diag([-4.5, -5.0, 9.0, 1.0])
    angle = np.radians(18)
    affine[:3, 1] = [0, -5 * np.cos(angle), -5 * np.sin(angle)]
    affine[:3, 3] = np.array([25, 12, 0]) - affine[:3, :3] @ ([21 / 2, 18 / 2, 10 / 2])
    bleed = save(tmp_path / "a.nii", affine, (21, 18, 10), "sform")
    series, _ = read_nifti(tmp_path / "a.nii", None, "a.nii", "a")
    assert series.grid is not None
    np.testing.assert_array_equal(series.grid.restore(draw_bleed(locate(series.grid))), bleed)
    assert not series.grid.is_regular()


def test_a_nifti_whose_qform_is_no_rotation(tmp_path: Path) -> None:
    affine = make_affine("LAS", (21, 18, 10))
    save(tmp_path / "a.nii", affine, (21, 18, 10))
    image: Any = nibabel.load(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    start = image.header.template_dtype.fields["quatern_b"][1]
    raw[start : start + 12] = np.array([1, 1, 1], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    series, _ = read_nifti(tmp_path / "a.nii", None, "a.nii", "a")
    assert series.grid is not None
    assert series.grid.forms[1] == (None, 0)


def test_a_volume_of_another_shape(tmp_path: Path) -> None:
    write_ct_series(tmp_path, **FEW)
    series = read_one(tmp_path)
    assert series.grid is not None
    with pytest.raises(ValueError, match=r"shape \(9, 40, 48\), its series \(10, 40, 48\)"):
        series.grid.restore(series.stored[1:])


def test_pictures_have_no_grid(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for series in read_series(ct_ich_100(tmp_path), Problems()):
        assert series.grid is None
