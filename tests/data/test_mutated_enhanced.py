"""Damaged enhanced CT files, seeded: each frame is refused, or its HU are right by the rules of
test_mutated_dicom.py. The readers of headers must agree, and nothing may hang.
"""

import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enhanced_files import compressed, enhanced
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless
from test_mutated_dicom import SIZE, Base, mutate

from ichfast.data import quirks
from ichfast.data.audit.look import look
from ichfast.data.enhanced import EnhancedFile, read_pictures
from ichfast.data.headers import scan_header
from ichfast.data.image import Image
from ichfast.data.problems import Refused, silence

EACH = 160
FRAMES = 4
BASES = ["shared", "per frame, implicit", "open sequences, padded", "RLE", "JPEG-LS, extended"]
NATIVE = BASES[:3]


def make_base(name: str, path: Path, head: Callable[..., np.ndarray], need: Any) -> Base:
    volume = np.stack([head(SIZE) + k for k in range(FRAMES)]).astype(np.int16)
    volume += np.random.default_rng(0).integers(-9, 9, volume.shape, dtype=np.int16)
    if name == "RLE":
        need(RLELossless)
        dataset = compressed(volume, range(FRAMES), RLELossless, "basic")
    elif name == "JPEG-LS, extended":
        need(JPEGLSLossless)
        dataset = compressed(volume, range(FRAMES), JPEGLSLossless, "extended")
    elif name == "shared":
        dataset = enhanced(volume, range(FRAMES))
    elif name == "per frame, implicit":
        frames = [{"RescaleIntercept": k} for k in range(FRAMES)]
        tags = {"TransferSyntaxUID": ImplicitVRLittleEndian}
        dataset = enhanced(volume, range(FRAMES), per_frame=True, frames=frames, **tags)
    else:
        volume[:, :2] = -1500
        dataset = enhanced(volume, range(FRAMES), PixelPaddingValue=-1500)
        for top in (
            dataset["SharedFunctionalGroupsSequence"],
            dataset["PerFrameFunctionalGroupsSequence"],
        ):
            top.is_undefined_length = True
            for one in top.value:
                one.is_undefined_length_sequence_item = True
                for group in one:
                    group.is_undefined_length = True
                    group.value[0].is_undefined_length_sequence_item = True
    dataset.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    start = data.rindex(dataset.PixelData)
    return Base(data, volume, range(start, start + len(dataset.PixelData)))


def hu(image: Image) -> np.ndarray:
    quirks.correct(image)
    values = image.stored * image.slope + image.intercept
    return (
        values if image.padding is None else np.where(image.stored == image.padding, -1000, values)
    )


def read_as_it_says(data: bytes, stored: np.ndarray, number: int) -> np.ndarray:
    """HU of a frame whose rescale or padding was hit, by pydicom's reading of its header."""
    with silence("pydicom"):
        dataset = dcmread(BytesIO(data), stop_before_pixels=True)
        places = [
            dataset.PerFrameFunctionalGroupsSequence[number - 1],
            *dataset.SharedFunctionalGroupsSequence,
        ]
        groups = [
            p.PixelValueTransformationSequence[0]
            for p in places
            if "PixelValueTransformationSequence" in p
        ]
        values = stored * float(groups[0].RescaleSlope) + float(groups[0].RescaleIntercept)
        padding = dataset.get("PixelPaddingValue")
    if isinstance(padding, int):
        padding = (padding + 32768) % 65536 - 32768
        if not -500 < padding < 3000:
            values = np.where(stored == padding, -1000, values)
    return values


def judge(name: str, where: str, data: bytes, base: Base, file: EnhancedFile, number: int) -> str:
    try:
        found = hu(file.read_image(number))
    except Refused:
        return "refused"
    assert base.hu is not None
    if np.array_equal(found, base.hu[number - 1]):
        return "same"
    assert where in ("header", "pixels", "shifted"), f"{where} read as {found}"
    if where == "header":
        plain = base.stored[number - 1] + (0 if name in NATIVE else 1024)
        np.testing.assert_array_equal(found, read_as_it_says(data, plain, number))
        return "rescale or padding"
    if name not in NATIVE:
        assert len(file.compare_decoders(number)) == 1
        return "decodes"
    assert where == "pixels"
    hit = np.frombuffer(data, "<i2", base.stored.size, base.pixels.start)
    values = hit.reshape(base.stored.shape)[number - 1].astype(float)
    if "implicit" in name:
        values += number - 1
    if "padded" in name:
        values = np.where(values == -1500, -1000, values)
    np.testing.assert_array_equal(found, values)
    return "pixels"


@pytest.mark.parametrize("name", BASES)
def test_refused_or_right(name: str, tmp_path: Path, head: Any, need_decoder: Any) -> None:
    path = tmp_path / "base.dcm"
    base = make_base(name, path, head, need_decoder)
    whole = EnhancedFile(path)
    base.hu = np.stack([hu(whole.read_image(number)) for number in range(1, FRAMES + 1)])
    outcomes: Counter[tuple[str, str]] = Counter()
    for seed in range(EACH):
        where, data = mutate(base, np.random.default_rng(seed))
        path.write_bytes(data)
        began = time.monotonic()
        try:
            file = EnhancedFile(path)
        except Refused:
            outcomes[where, "refused"] += FRAMES
            with pytest.raises(Refused):
                read_pictures(path)
            with pytest.raises(Refused):
                look(path, pixels=False)
            continue
        try:
            assert len(file.pictures) == FRAMES
            for number in range(1, FRAMES + 1):
                outcomes[where, judge(name, where, data, base, file, number)] += 1
        except AssertionError as error:
            raise AssertionError(f"{name}, mutant {seed} ({where})") from error
        assert time.monotonic() - began < 60
        with pytest.raises(Refused):
            scan_header(path)
        try:  # unless the SOP class itself was hit
            looks = [one for _, one in look(path, pixels=False)]
        except Refused:
            continue
        kinds = [isinstance(picture.header, Refused) for picture in file.pictures]
        assert all(isinstance(one, Refused) for one, bad in zip(looks, kinds, strict=True) if bad)
    assert outcomes["cut", "refused"] == sum(n for (w, _), n in outcomes.items() if w == "cut")
    assert sum(outcomes.values()) == EACH * FRAMES
    assert sum(n for (_, outcome), n in outcomes.items() if outcome != "refused") > EACH
