"""What a threshold alone reaches: the floor that any learned segmentation must clear."""

from typing import Any

import numpy as np

LOWEST, HIGHEST = 0, 400  # HU: the thresholds tried, in steps of one


def tune_thresholds(hu: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """Best Dice of one global HU threshold and of one HU band, tuned on the very slices given.

    `hu` and `masks` are (N, S, S); slices without blood are left out and Dice is pooled over the
    others. With histograms h of all voxels and b of blood, a band [low, high) has
    Dice = 2 sum(b[low:high]) / (sum(h[low:high]) + sum(b)), so that all bands cost one pass.
    """
    hu, masks = np.asarray(hu), np.asarray(masks).astype(bool)
    if hu.shape != masks.shape or hu.ndim != 3:
        raise ValueError(f"hu {hu.shape} and masks {masks.shape} must both be (N, S, S)")
    positive = masks.any(axis=(1, 2))
    if not positive.any():
        raise ValueError("no slice has blood in its mask, so Dice is undefined")
    hu, masks = hu[positive], masks[positive]
    # Bin k holds LOWEST + k <= HU < LOWEST + k + 1; the last one all that is denser.
    bins = np.append(np.arange(LOWEST, HIGHEST + 1), np.inf)
    every = np.concatenate([[0], np.histogram(hu, bins)[0].cumsum()])
    blood = np.concatenate([[0], np.histogram(hu[masks], bins)[0].cumsum()])
    chosen = every[None, :] - every[:, None]  # [low, high): rows low, columns high
    hits = blood[None, :] - blood[:, None]
    dice = np.triu(2 * hits / np.maximum(chosen + masks.sum(), 1))
    low = int(dice[:, -1].argmax())
    band = np.unravel_index(dice.argmax(), dice.shape)
    return {
        "slices": int(positive.sum()),
        "threshold": {"dice": float(dice[low, -1]), "low": LOWEST + low},
        "band": {
            "dice": float(dice[band]),
            "low": LOWEST + int(band[0]),
            "high": LOWEST + int(band[1]) if band[1] < len(bins) - 1 else None,
        },
    }
