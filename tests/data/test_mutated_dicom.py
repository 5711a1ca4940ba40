"""Thousands of damaged DICOM files, seeded. Each is refused, or its HU are right:

- those of the undamaged file;
- or what the damaged file says: a pixel of uncompressed data, RescaleSlope, RescaleIntercept or
  PixelPaddingValue was hit, and the HU differ by that and nothing else;
- or a compressed stream was hit and still decodes: DICOM has no checksums, so this cannot be
  known; then all decoders that are installed must agree on it.
"""

import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ichfast.data import Problems, headers, quirks, read_series
from ichfast.data.dicom import decoders_agree, read_image
from ichfast.data.problems import Refused, silence

SIZE = 32
EACH = 320  # mutants of each base: 2,560 in all


@dataclass
class Base:
    data: bytes
    stored: np.ndarray
    pixels: range  # where the pixel data (a compressed stream) lies in the file
    hu: np.ndarray | None = None


def hu(path: Path) -> np.ndarray:
    image = read_image(path)
    quirks.correct(image)
    values = image.stored * image.slope + image.intercept
    return (
        values if image.padding is None else np.where(image.stored == image.padding, -1000, values)
    )


def lossless_jpeg(source: Path, target: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(str(source))
    assert reader.Read()
    kind = gdcm.TransferSyntax.JPEGLosslessProcess14_1
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


BASES = {
    "explicit, signed, padded": (ExplicitVRLittleEndian, True),
    "implicit, unsigned 12-bit": (ImplicitVRLittleEndian, False),
    "big endian, signed": (ExplicitVRBigEndian, True),
    "deflated, unsigned": (DeflatedExplicitVRLittleEndian, False),
    "RLE, signed": (RLELossless, True),
    "JPEG lossless, unsigned": (JPEGLosslessSV1, False),
    "JPEG-LS, unsigned": (JPEGLSLossless, False),
    "JPEG 2000, signed": (JPEG2000Lossless, True),
}


def make_base(name, folder, make_dicom, head, need_decoder) -> Base:
    syntax, signed = BASES[name]
    values = head(SIZE) + np.random.default_rng(0).integers(-9, 9, (SIZE, SIZE))
    tags = {} if signed else {"RescaleIntercept": -1024, "BitsStored": 12}
    if "padded" in name:
        values[:2] = -1500
        tags["PixelPaddingValue"] = -1500
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    stored = (values if signed else np.maximum(values + 1024, 0)).astype(
        f"{order}{'i' if signed else 'u'}2"
    )
    native = syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    dataset = make_dicom(stored, **tags, **({"TransferSyntaxUID": syntax} if native else {}))
    path = folder / "base.dcm"
    if syntax == JPEG2000Lossless:
        openjpeg = pytest.importorskip("openjpeg.utils")
        stream = openjpeg.encode_array(stored, photometric_interpretation=2)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax in (RLELossless, JPEGLSLossless):
        if syntax == JPEGLSLossless:
            pytest.importorskip("jpeg_ls")
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    if syntax == JPEGLosslessSV1:
        lossless_jpeg(path, path)
    if syntax.is_compressed and not syntax.is_deflated:
        need_decoder(syntax)
    data = path.read_bytes()
    whole = dcmread(path)
    if syntax == DeflatedExplicitVRLittleEndian:
        start = 144 + whole.file_meta.FileMetaInformationGroupLength
        return Base(data, stored, range(start, len(data)))
    start = data.rindex(bytes(whole.PixelData))
    compressed = whole.file_meta.TransferSyntaxUID.is_encapsulated
    # past the offset table and the fragment's own 8 bytes, up to the delimiter
    skip = 8 + int.from_bytes(data[start + 4 : start + 8], "little") + 8 if compressed else 0
    end = start + len(whole.PixelData)
    return Base(data, stored, range(start + skip, end))


def mutate(base: Base, rng: np.random.Generator) -> tuple[str, bytes]:
    """Where it was hit (header, pixels, or both for what shifts the file) and the bytes."""
    data = bytearray(base.data)
    pixels = base.pixels
    header = range(128, pixels.start)
    kind = rng.integers(8)
    if kind == 0:  # one bit of the header
        at = rng.choice(header)
        data[at] ^= 1 << rng.integers(8)
    elif kind == 1:  # a few bytes of the header
        for at in rng.choice(header, rng.integers(1, 4)):
            data[at] = rng.integers(256)
    elif kind == 2:  # a number, or a letter, of an image tag: group 0028 in either byte order
        tags = [i for i in header if data[i : i + 2] in (b"\x28\0", b"\0\x28")]
        data[rng.choice(tags) + rng.integers(2, 14) if tags else rng.choice(header)] ^= (
            1 << rng.integers(8)
        )
    elif kind == 3:  # bytes lost or added in the header
        at = int(rng.choice(header))
        data[at : at + rng.integers(0, 5)] = rng.bytes(rng.integers(0, 5))
    elif kind == 4:
        return "cut", bytes(data[: rng.integers(len(data))])
    elif kind == 5:  # bytes of the pixel data lost
        at = int(rng.choice(pixels))
        del data[at : at + rng.integers(1, 9)]
        return "shifted", bytes(data)
    else:
        for at in rng.choice(pixels, 1 if kind == 6 else rng.integers(1, 4)):
            data[at] = data[at] ^ 1 << rng.integers(8) if kind == 6 else rng.integers(256)
        return "pixels", bytes(data)
    return "header", bytes(data)


def read_as_it_says(data: bytes, base: Base) -> np.ndarray:
    """HU of a file whose rescale or padding was hit, by pydicom's reading of its header."""
    with silence("pydicom"):
        dataset = dcmread(BytesIO(data), stop_before_pixels=True)
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        padding = dataset.get("PixelPaddingValue")
    values = base.stored * slope + intercept
    if isinstance(padding, int):
        padding = (padding + 32768) % 65536 - 32768 if base.stored.dtype.kind == "i" else padding
        if not -500 < padding * slope + intercept < 3000:
            values = np.where(base.stored == padding, -1000, values)
    return values


def read_hit_pixels(data: bytes, base: Base) -> np.ndarray:
    """HU of a native file whose pixels were hit."""
    stored = np.frombuffer(data, base.stored.dtype, SIZE * SIZE, base.pixels.start)
    if stored.dtype.kind == "u":
        return (stored & 0xFFF).reshape(SIZE, SIZE) - 1024.0
    values = stored.reshape(SIZE, SIZE).astype(float)
    padded = (values == -1500) & (b"\x28\0\x20\1" in data)
    return np.where(padded, -1000, values)


def inflate(data: bytes, base: Base) -> bytes:
    """The same file without its deflation, as zlib reads it."""
    meta = data[: base.pixels.start]
    syntax, plain = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
    return meta.replace(syntax, plain) + zlib.decompress(data[base.pixels.start :], -zlib.MAX_WBITS)


def judge(name: str, where: str, data: bytes, base: Base, path: Path) -> str:
    """'refused', 'same' or the reason why other HU are right; AssertionError when they are not."""
    try:
        found = hu(path)
    except Refused:
        return "refused"
    if np.array_equal(found, base.hu):
        return "same"
    assert where in ("header", "pixels", "shifted"), f"{where} read as {found}"
    if where == "header":
        np.testing.assert_array_equal(found, read_as_it_says(data, base))
        return "rescale or padding"
    if "deflated" in name:
        path.write_bytes(inflate(data, base))
        np.testing.assert_array_equal(found, hu(path))
        return "inflates"
    if BASES[name][0].is_encapsulated:
        assert decoders_agree(path) is not False
        return "decodes"
    assert where == "pixels"
    np.testing.assert_array_equal(found, read_hit_pixels(data, base))
    return "pixels"


@pytest.mark.parametrize("name", BASES)
def test_refused_or_right(name, tmp_path, make_dicom, head, need_decoder):
    base = make_base(name, tmp_path, make_dicom, head, need_decoder)
    path = tmp_path / "base.dcm"
    base.hu = hu(path)
    np.testing.assert_array_equal(base.hu, read_as_it_says(base.data, base))
    outcomes: Counter[tuple[str, str]] = Counter()
    for seed in range(EACH):
        where, data = mutate(base, np.random.default_rng(seed))
        path.write_bytes(data)
        try:
            outcomes[where, judge(name, where, data, base, path)] += 1
        except AssertionError as error:
            raise AssertionError(f"{name}, mutant {seed} ({where})") from error
    assert outcomes["cut", "refused"] == sum(n for (w, _), n in outcomes.items() if w == "cut")
    assert sum(outcomes.values()) == EACH
    if name == "JPEG-LS, unsigned":  # it nearly always notices
        assert outcomes["pixels", "decodes"] < 0.3 * sum(
            n for (w, _), n in outcomes.items() if w == "pixels"
        )


def outcome(path: Path) -> object:
    try:
        image = read_image(path)
        names = quirks.correct(image)
    except Refused as refused:
        return str(refused), refused.skip
    ours = image.slope, image.intercept, image.padding, image.stored.dtype, image.stored.tobytes()
    return names, repr(image.header), ours


@pytest.mark.parametrize("name", BASES)
def test_quick_and_pydicoms_header_lead_to_the_same(
    name, tmp_path, make_dicom, head, need_decoder, monkeypatch
):
    base = make_base(name, tmp_path, make_dicom, head, need_decoder)
    path = tmp_path / "base.dcm"
    quick, seeds = 0, range(0, EACH, 4)
    for seed in seeds:
        data = mutate(base, np.random.default_rng(seed))[1]
        path.write_bytes(data)
        plain = outcome(path)
        with monkeypatch.context() as patch:
            patch.setattr(headers, "_scan_plain", lambda data: None)
            assert plain == outcome(path), seed
        with suppress(Refused):
            quick += headers._scan_plain(data[: headers._SIZES[1]]) is not None
    assert (quick > len(seeds) / 2) == (name not in ("big endian, signed", "deflated, unsigned"))


def test_each_is_named_and_the_others_unharmed(tmp_path, make_dicom, head, need_decoder):
    """One folder: 120 mutants around three good slices."""
    folder = tmp_path / "all"
    folder.mkdir()
    good = {}
    for i, name in enumerate(("explicit, signed, padded", "big endian, signed", "RLE, signed")):
        base = make_base(name, tmp_path, make_dicom, head, need_decoder)
        for seed in range(40):
            (folder / f"mutant {i} {seed}.dcm").write_bytes(
                mutate(base, np.random.default_rng(seed))[1]
            )
        dataset = make_dicom((head(SIZE) + i).astype(np.int16), z=5.0 * i, SeriesInstanceUID="9.9")
        dataset.save_as(folder / f"good {i}.dcm", enforce_file_format=True)
        good[f"good {i}.dcm"] = head(SIZE) + i
    problems = Problems()
    problems.expect(10**6)  # so many bad ones would rightly stop the work
    read = {}
    for series in read_series(folder, problems):
        read |= dict(zip(series.sources, series.hu(), strict=True))
    for name, expected in good.items():
        np.testing.assert_array_equal(read[name], expected)
    named = {item.source: item.reason for item in problems.items}
    assert read.keys() | named.keys() >= {path.name for path in folder.iterdir()}
    assert all(named.values())
