"""Whether a scan's numbers can be Hounsfield units: air around the patient near -1000, soft tissue
near 0, bone above. Pictures of grey levels, masks, and files whose rescale was lost are whole and
say something else; nothing in their headers shows it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ichfast.data.problems import Refused

SAMPLE = 1 << 15  # pixels per scan that are looked at, evenly spread
LOW, STEP, BINS = (
    -1200.0,
    50.0,
    90,
)  # of a census: what is below in the first bin, above in the last
# HU. What is darker than air is padding that nobody declared.
AIR, SOFT, BONE = (-1200.0, -500.0), (-200.0, 300.0), 300.0
OPEN_AIR = (-1150.0, -850.0)
FEW = 4  # slices: so few may lie above the skull

SIDE = 32  # pixels: less is a thumbnail or a piece, which may show nothing but bone

NO_AIR, NO_BONE, TOO_SMALL = "no air", "no bone", "too small to judge"


@dataclass(frozen=True, eq=False)
class Census:
    """How many pixels of a sample have which HU, by bins, without declared padding. Those of
    several slices add up to that of their scan.
    """

    slices: int
    side: int  # of the picture, the shorter one
    inside: np.ndarray  # (BINS,)
    border: np.ndarray  # (BINS,) of the first and last rows and columns

    def __add__(self, other: "Census") -> "Census":
        return Census(
            self.slices + other.slices,
            min(self.side, other.side),
            self.inside + other.inside,
            self.border + other.border,
        )


def take_census(
    stored: np.ndarray, slope: np.ndarray, intercept: np.ndarray, padding: float | None
) -> Census:
    """Of (n, H, W) stored values with their (n,) rescale."""
    n, rows, columns = stored.shape
    if padding is not None and AIR[0] <= padding * slope[0] + intercept[0] < AIR[1]:
        padding = None  # in many files it is air, too
    step = max(1, int(np.sqrt(stored.size / SAMPLE)))
    start = min(step // 2, rows - 1, columns - 1)
    # From HU to bins in the one multiplication that makes HU of stored values.
    scale = (slope / STEP).astype(np.float32)[:, None]
    offset = ((intercept - LOW) / STEP + 1).astype(np.float32)[:, None]

    def count(values: np.ndarray) -> np.ndarray:
        bins = np.clip(values * scale + offset, 0, BINS - 1).astype(np.intp)
        kept = bins.ravel() if padding is None else bins[values != padding]
        return np.bincount(kept, minlength=BINS)

    lines = (stored[:, 0], stored[:, -1], stored[:, :, 0], stored[:, :, -1])
    border = np.concatenate([line[:, start::step] for line in lines], axis=1)
    side = min(rows, columns)
    return Census(n, side, count(stored[:, start::step, start::step].reshape(n, -1)), count(border))


def is_plain(stored: np.ndarray, slope: float, intercept: float) -> bool:
    """Whether some hundred pixels of one (H, W) slice show that `judge` has nothing against it, as
    nearly always: a dark border, air, bone and soft tissue. A thirtieth of the time.
    """
    if min(stored.shape) < SIDE or slope <= 0:
        return False
    marks = _find_marks(slope, intercept)

    # A comparison and a count of what is true take twice as long as this, on so few pixels.
    def count(values: np.ndarray) -> list[int]:
        bins: list[int] = np.bincount(marks.searchsorted(values, "right").ravel(), None, 6).tolist()
        return bins

    edge = count(stored[:: len(stored) - 1, ::16])
    if sum(edge[:3]) <= sum(edge[3:]):
        return False
    _, open_air, _, low, soft, bone = sample = count(stored[12::24, 12::24])
    return 100 * open_air > sum(sample) and bone > 0 and 10 * soft > low + soft + bone


@lru_cache
def _find_marks(slope: float, intercept: float) -> np.ndarray:
    """In stored values, where open air begins and ends, air ends, soft tissue begins and ends."""
    return (np.array([*OPEN_AIR, AIR[1], *SOFT]) - intercept) / slope


def judge(census: Census) -> tuple[str, ...]:
    """The names of what is odd about a scan in HU; `Refused` where it is in none."""
    try:
        return _judge(census)
    except Refused:
        if census.side < SIDE:
            return (TOO_SMALL,)
        raise


def _judge(census: Census) -> tuple[str, ...]:
    seen, border = census.inside[1:], census.border[1:]
    total = int(seen.sum())
    deep = int(census.inside[0])
    if not total:
        if deep:
            raise Refused("not in HU: every value lies far below air's")
        return ()
    edges = LOW + STEP * np.arange(BINS - 1)  # the lower ones of the bins that are left

    def share(low: float, high: float = np.inf) -> float:
        return float(seen[(edges >= low) & (edges < high)].sum()) / total

    def find_quantile(counts: np.ndarray, part: float) -> float:
        return float(edges[np.searchsorted(np.cumsum(counts), part * counts.sum())])

    if share(*AIR) == 1 and share(*OPEN_AIR) >= 0.99 and not deep:
        return ()  # a slice outside the patient
    odd = []
    background = find_quantile(border, 0.5) if border.sum() else None
    if share(*AIR) < 0.001:
        # The inside of a head may fill a picture; then its border is not what is darkest in it, and
        # nothing takes the place of air.
        darkest = find_quantile(seen, 0.01)
        bare = background is None and census.border[0] > 0
        if bare or share(darkest, darkest + 2 * STEP) > 0.2 or background == darkest:
            raise Refused(
                f"not in HU: no air, and the darkest values are near {darkest:.0f} (where these "
                f"are HU cut out of a scan, fill what is outside with -1000)"
            )
        odd.append(NO_AIR)
    if background is not None and background > BONE:
        raise Refused(f"not in HU: the background is near {background:.0f}, as dense as bone")
    tissue = share(AIR[1])
    if tissue > 0.02 and share(*SOFT) < 0.05 * tissue:
        raise Refused("not in HU: hardly anything has the values of soft tissue")
    if not share(BONE):
        if odd or census.slices >= FEW or share(*SOFT) < 0.02:
            raise Refused(
                f"not in HU: no bone{' and no air' if odd else ''} (or a head without its skull; "
                f"whole heads can be read)"
            )
        odd.append(NO_BONE)
    return tuple(odd)
