"""The elements of a plain little-endian DICOM file in a fraction of pydicom's time.

What is plain, csrc/dicom/elements.h says.
"""

from pydicom.datadict import dictionary_VR

from ichfast._C_python import dicom_elements


class Elements(dict[int, bytes]):
    """Values by tag, as much of a pydicom Dataset as making a Header asks for."""

    def __init__(self, syntax: object):
        super().__init__()
        self.file_meta = {"TransferSyntaxUID": syntax}
        self.vrs: dict[int, bytes] = {}  # empty where the VR is implicit
        self.pixels = 0  # where PixelData begins


def walk_elements(data: bytes, wanted: tuple[int, ...]) -> Elements | None:
    """Those of the wanted tags, which ascend, that come before PixelData. `data` is the file, or
    enough of its beginning. None where it is not plain: pydicom decides.
    """
    walked = dicom_elements(data, wanted, is_sequence)
    if walked is None:
        return None
    values, vrs, syntax, pixels = walked
    found = Elements(syntax)
    found |= values
    found.vrs, found.pixels = vrs, pixels
    return found


def is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
