"""A layout is one object: with its line in LAYOUTS, all that reads data sets takes it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import published
import pytest
import torch
from preparing import make

from ichfast.data import Problems, detect_layout, find_layout, layouts, load_slices, read_series
from ichfast.data.audit import Options, audit
from ichfast.data.layouts.base import ScanLayout
from ichfast.data.listing import list_folder, name_source
from ichfast.data.series import Series
from ichfast.errors import DataError
from ichfast.export_nnunet import main as export

BRAIN = (40.0, 80.0)


class NumPyVolumes(ScanLayout):
    """volumes/<patient>.npy, (n, H, W) int16 HU, and masks/<patient>.npy beside them."""

    name = "numpy"
    signs = "a folder volumes with .npy files"
    has_masks = True
    has_labels = False
    formats = MappingProxyType({".npy": "NumPy"})

    def detect(self, root: Path, entries: Mapping[str, Path]) -> bool:
        return "volumes" in entries

    def list_scans(self, root: Path) -> dict[str, int]:
        return {path.stem: 1 for path in list_folder(root / "volumes")}

    def read_scans(
        self,
        root: Path,
        problems: Problems,
        only: str | None = None,
        *,
        with_masks: bool = True,
        progress: bool = False,
    ) -> Iterator[Series]:
        for path in list_folder(root / "volumes"):
            if only not in (None, path.stem):
                continue
            stored, source = np.load(path), name_source(path, root)
            if stored.ndim != 3:
                problems.add(source, "not a volume")
                continue
            n = len(stored)
            yield Series(
                stored=stored,
                slope=np.ones(n),
                intercept=np.zeros(n),
                padding=None,
                mask=np.load(root / "masks" / path.name) if with_masks else None,
                patient=path.stem,
                study=path.stem,
                series=path.stem,
                positions=5.0 * np.arange(n),
                spacing=(0.5, 0.5),
                tilt=0.0,
                sources=tuple(f"{source}#{i + 1}" for i in range(n)),
            )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layouts, "LAYOUTS", (*layouts.LAYOUTS, NumPyVolumes()))
    root = tmp_path / "set"
    for folder, volume in (("volumes", published.scan()), ("masks", published.spot())):
        (root / folder).mkdir(parents=True)
        for name in "ab":
            np.save(root / folder / f"{name}.npy", volume)
    np.save(root / "volumes" / "c.npy", np.zeros(3))
    return root


def test_it_is_detected_and_read(root: Path) -> None:
    problems = Problems()
    scans = list(read_series(root, problems))
    assert detect_layout(root).name == "numpy"
    assert [scan.patient for scan in scans] == ["a", "b"]
    assert [(item.source, item.reason) for item in problems.items] == [
        ("volumes/c.npy", "not a volume")
    ]
    with pytest.raises(DataError, match=r"set is a set \(numpy\); give that one"):
        detect_layout(root.parent)
    (root.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"Looked for .*; a folder volumes with \.npy files$"):
        detect_layout(root.parent / "empty")


def test_slices_are_loaded_from_it(root: Path) -> None:
    slices, problems = load_slices(
        root, size=16, window=BRAIN, labelled=True, slices="positive", progress=False
    )
    assert problems.failed == 1
    assert slices.sources == ("volumes/a.npy#3", "volumes/b.npy#3")
    some, _ = load_slices(root, size=16, window=BRAIN, labelled=False, limit=3, progress=False)
    assert len(some) == 3


def test_a_pool_is_made_from_it(root: Path, tmp_path: Path) -> None:
    pool = make(root, tmp_path / "pool")
    pool.verify()
    assert find_layout(pool.path).name == "numpy"
    own, those = (
        load_slices(path, size=16, window=BRAIN, labelled=True, progress=False)[0]
        for path in (pool.path, root)
    )
    assert own.sources == those.sources
    for one, other in zip(own.batch(range(8)), those.batch(range(8)), strict=True):
        assert torch.equal(one, other)
    positive = make(root, tmp_path / "positive", positive=True)
    assert [row.source for row in positive.index] == ["volumes/a.npy#3", "volumes/b.npy#3"]


def test_a_pool_of_a_layout_that_is_not_known(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(root, tmp_path / "pool")
    monkeypatch.setattr(layouts, "LAYOUTS", layouts.LAYOUTS[:-1])
    with pytest.raises(DataError, match=r"pool: made from the layout 'numpy', which .* ct-ich, "):
        find_layout(pool.path)


def test_it_is_audited(root: Path) -> None:
    found = audit([root], Options(workers=1, progress=False))
    (bad,) = (one for one in found["findings"] if one["kind"] == "refused")
    assert (bad["name"], bad["files"]) == ("not a volume", 1)
    assert (found["sets"][0]["slices"], found["sets"][0]["patients"]) == (8, 2)


def test_it_is_exported(root: Path, tmp_path: Path) -> None:
    assert export([str(root), "--out", str(tmp_path / "out")]) == 1  # c is bad
    scans = list(read_series(tmp_path / "out", Problems()))
    assert [scan.patient for scan in scans] == ["a", "b"]
    for scan in scans:
        np.testing.assert_array_equal(scan.hu(), published.scan())
        np.testing.assert_array_equal(scan.mask, published.spot())
