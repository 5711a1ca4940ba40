"""The native walk over a header against pydicom, of any bytes."""

from io import BytesIO

from pydicom import dcmread

from ichfast.data.elements import walk_elements
from ichfast.data.headers import LUT_SEQUENCE, TAGS, Tags
from ichfast.data.problems import silence

START = bytes(128) + b"DICM"
SIMPLE = [tag for tag in TAGS if tag != LUT_SEQUENCE]  # with it in the file, pydicom decides


def compare(data: bytes) -> str:
    """What is different, or "" where nothing is. The walk may leave a file to pydicom."""
    found = walk_elements(data, TAGS)
    if found is None or LUT_SEQUENCE in found:
        return ""
    file = BytesIO(data)
    with silence("pydicom"):
        try:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
            tags = Tags(dataset)
            theirs = {tag: tags.get_raw(tag) for tag in SIMPLE}
            syntax = dataset.file_meta.get("TransferSyntaxUID", "")
        except Exception as error:
            return f"pydicom fails ({type(error).__name__}: {error})"
    ours = {tag: found.get(tag, b"") for tag in SIMPLE}
    for tag in SIMPLE:
        if ours[tag] != theirs[tag]:
            return f"{tag:#010x} is {ours[tag]!r}, by pydicom {theirs[tag]!r}"
    if file.tell() != found.pixels:
        return f"PixelData begins at {found.pixels}, by pydicom at {file.tell()}"
    if syntax != found.file_meta["TransferSyntaxUID"]:
        return f"transfer syntax {found.file_meta['TransferSyntaxUID']!r}, by pydicom {syntax!r}"
    return ""
