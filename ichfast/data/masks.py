"""From the values in a mask's file to haemorrhage or not. A mask that says something and would
become empty is refused: nothing else tells it from that of a healthy patient.
"""

import numpy as np

from ichfast.data.problems import Refused

NEAR = 0.01  # to a whole number: what resampling and scaling leave of one


def round_labels(values: np.ndarray) -> np.ndarray:
    """The labels as whole numbers. Refused where they are negative or no labels at all."""
    labels: np.ndarray = np.rint(values)
    if np.abs(values - labels).max(initial=0) > NEAR:
        raise Refused("the mask has values that are no whole numbers, so no labels")
    _refuse_negative(labels)
    return labels


def threshold(values: np.ndarray, at: float) -> np.ndarray:
    """bool: above `at`."""
    _refuse_negative(values)
    mask: np.ndarray = values > at
    greatest = float(values.max(initial=0))
    if greatest > NEAR and not mask.any():
        raise Refused(
            f"the mask has values up to {greatest:.3g}, none of which is above {at:.3g}: it would "
            f"be taken for empty"
        )
    return mask


def _refuse_negative(values: np.ndarray) -> None:
    least = float(values.min(initial=0))
    if least < -NEAR:
        raise Refused(
            f"the mask has negative values ({least:.3g}), as 255 becomes in signed bytes; save it "
            f"with 0 and 1"
        )
