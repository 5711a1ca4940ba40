"""The five kinds of intracranial haemorrhage, each where anatomy puts it.

A lesion displaces the brain (`displace`), opens the sulci (`compute_widening`) and fills voxels
with blood (`compute_coverage`, 0..1, of density `hu`). All lengths are in mm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import numpy as np

from ichfast.data.phantom.brain import Spaces
from ichfast.data.phantom.geometry import Array, Noise, Plane, edge, paint
from ichfast.data.phantom.head import Head

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
FREQUENCY = (0.21, 0.22, 0.17, 0.21, 0.19)  # of a patient's first lesion

Point = tuple[float, float, float]


@dataclass(eq=False)
class Lesion:
    head: Head
    clot: Noise  # unevenness of the blood
    hu: float

    subtype: ClassVar[str]
    dilation: ClassVar[float] = 1.0  # of the ventricles, when their outflow is blocked

    def displace(self, plane: Plane) -> None:
        """Mass effect: move the coordinates in which the brain is then painted."""

    def compute_widening(self, plane: Plane) -> Array | float:
        return 0.0

    def alter_tissue(self, hu: Array, plane: Plane, spaces: Spaces) -> None:
        """Change the tissue around the blood."""

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        """Fraction of each voxel that is blood; None where the slice has none."""
        raise NotImplementedError

    def compute_density(self, plane: Plane) -> Array:
        return self.hu + 2.0 * self.clot(plane)


@dataclass(eq=False)
class Extradural(Lesion):
    """A lens between skull and dura, held by the sutures."""

    subtype = "epidural"

    centre: Point
    radius: float
    thickness: float

    def _compute_profile(self, plane: Plane) -> Array:
        x, y, z = self.centre
        gap = (plane.x - x) ** 2 + (plane.y - y) ** 2 + (plane.z - z) ** 2
        gap = np.clip(gap - np.clip(plane.depth, 0, None) ** 2, 0, None)
        uneven = 1 + 0.08 * self.clot(plane)
        return self.thickness * uneven * np.clip(1 - gap / self.radius**2, 0, 1)

    def displace(self, plane: Plane) -> None:
        profile = self._compute_profile(plane)
        plane.cover -= profile * np.exp(-np.clip(plane.depth - profile, 0, None) / 20)
        _push(plane, self.centre, 0.75 * self.thickness, 1.2 * self.radius)

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        profile = self._compute_profile(plane)
        if profile.max() < 1:
            return None
        inner = edge(profile - plane.depth, 0.5 * (plane.blur + 1.5))
        return inner * edge(plane.depth, plane.blur) * (profile > 0.3)


@dataclass(eq=False)
class Subdural(Lesion):
    """A crescent over one hemisphere, under the dura; may be isodense or layered with age."""

    subtype = "subdural"

    side: int  # +1 the patient's left
    bearing: float  # radians from lateral, positive to the front
    extent: float  # radians to either side
    level: float
    tall: float
    thickness: float
    layering: float  # HU difference from front to back

    def _compute_profile(self, plane: Plane) -> Array:
        angle = np.arctan2(plane.y, self.side * plane.x)
        away = (angle - self.bearing) / self.extent
        height = (plane.z - self.level) / self.tall
        profile = np.clip(1 - away**4 - height**4, 0, 0.7) / 0.7
        profile *= self.thickness * (1 + 0.15 * self.head.bone(plane))
        return profile * edge(self.side * plane.x - 1.5, 3) * edge(plane.z + 16, 6)

    def displace(self, plane: Plane) -> None:
        profile = self._compute_profile(plane)
        plane.cover -= profile * np.exp(-np.clip(plane.depth - profile, 0, None) / 25)
        head = self.head
        centre = (
            self.side * head.half_width * np.cos(self.bearing),
            head.half_length * np.sin(self.bearing),
            self.level,
        )
        _push(plane, centre, 0.9 * self.thickness, 45.0)

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        profile = self._compute_profile(plane)
        if profile.max() < 1:
            return None
        inner = edge(profile - plane.depth, 0.5 * (plane.blur + 1.5))
        return inner * edge(plane.depth, plane.blur) * (profile > 0.5)

    def compute_density(self, plane: Plane) -> Array:
        level = np.clip(-plane.y / 40, -1, 1)  # the patient lies on the back: cells sink
        return super().compute_density(plane) + 0.5 * self.layering * level


@dataclass(eq=False)
class Intraparenchymal(Lesion):
    """An uneven clot within the brain, with a rim of oedema."""

    subtype = "intraparenchymal"

    centre: Point
    radii: Point
    turn: float
    bumps: Noise
    oedema: float  # width of the rim

    @property
    def size(self) -> float:
        return float(np.mean(self.radii))

    def _compute_reach(self, plane: Plane) -> Array:
        """Distance from the centre in units of the clot's own radius."""
        dx, dy = plane.x - self.centre[0], plane.y - self.centre[1]
        u = dx * np.cos(self.turn) + dy * np.sin(self.turn)
        v = dy * np.cos(self.turn) - dx * np.sin(self.turn)
        a, b, c = self.radii
        reach: Array = np.sqrt((u / a) ** 2 + (v / b) ** 2 + ((plane.z - self.centre[2]) / c) ** 2)
        reach *= 1 + 0.12 * self.bumps(plane) + 0.05 * self.clot(plane)
        return reach

    def displace(self, plane: Plane) -> None:
        dx, dy = plane.x - self.centre[0], plane.y - self.centre[1]
        height = (plane.z - self.centre[2]) / self.radii[2]
        core2 = 0.75 * self.radii[0] * self.radii[1] * np.exp(-(height**2))
        r2 = dx * dx + dy * dy + 1e-6
        # Area-preserving outward displacement, none at the skull.
        scale = np.sqrt(np.clip(1 - core2 / r2, 0.05, 1))
        taper = np.clip(plane.depth / 18, 0, 1)
        plane.brain_x += (scale - 1) * dx * taper
        plane.brain_y += (scale - 1) * dy * taper

    def alter_tissue(self, hu: Array, plane: Plane, spaces: Spaces) -> None:
        if plane.holds(self.centre[2] - 2 * self.radii[2], self.centre[2] + 2 * self.radii[2]):
            rim = edge((1 - self._compute_reach(plane)) * self.size + self.oedema, 5.0)
            paint(hu, 0.85 * rim * spaces.parenchyma, self.head.white - 8)

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        if not plane.holds(
            self.centre[2] - 1.3 * self.radii[2], self.centre[2] + 1.3 * self.radii[2]
        ):
            return None
        inside = edge((1 - self._compute_reach(plane)) * self.size, 2.2)
        return inside * edge(plane.cover - 1.5, plane.blur)


@dataclass(eq=False)
class Intraventricular(Lesion):
    """Blood in the ventricles, fluid below a level or a cast of one or both sides."""

    subtype = "intraventricular"
    dilation = 1.45

    sides: tuple[float, float]  # right, left: filled or not
    surface: float  # y of the level; blood lies behind it

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        side = np.where(plane.brain_x > 0, self.sides[1], self.sides[0])
        side = np.where(np.abs(plane.brain_x) < 3.5, 1.0, side)  # third and fourth are shared
        below = edge(self.surface - plane.y + 1.5 * self.clot(plane), 4)
        filled = spaces.ventricles * below * side
        return filled if filled.max() > 0.5 else None


@dataclass(eq=False)
class Subarachnoid(Lesion):
    """Blood that follows sulci and cisterns around a centre."""

    subtype = "subarachnoid"

    centre: Point
    radii: Point
    swelling: float

    def _compute_region(self, plane: Plane) -> Array:
        x, y, z = self.centre
        a, b, c = self.radii
        reach = ((plane.x - x) / a) ** 2 + ((plane.y - y) / b) ** 2 + ((plane.z - z) / c) ** 2
        return edge(1 - np.sqrt(reach) + 0.15 * self.clot(plane), 0.3)

    def compute_widening(self, plane: Plane) -> Array | float:
        return self.swelling * self._compute_region(plane)

    def compute_coverage(self, plane: Plane, spaces: Spaces) -> Array | None:
        filled = spaces.subarachnoid * self._compute_region(plane)
        return filled if filled.max() > 0.5 else None


def _push(plane: Plane, centre: Point, amount: float, width: float) -> None:
    """Shift the brain away from `centre`, most near it, across the midline, never at the skull."""
    x, y, z = centre
    length = np.hypot(x, y) + 1e-6
    near = ((plane.x - x) ** 2 + (plane.y - y) ** 2) / (2 * width**2)
    near = near + ((plane.z - z) / (1.5 * width)) ** 2
    shift = amount * np.exp(-near) * np.clip(plane.depth / 25, 0, 1)
    plane.brain_x += shift * x / length
    plane.brain_y += shift * y / length


def sample_lesions(rng: np.random.Generator, head: Head) -> list[Lesion]:
    """One lesion, or in four patients of ten two of different kinds.

    In three of ten with blood in the brain it has broken through into the ventricles.
    """
    count = 1 + int(rng.random() < 0.4)
    kinds = {int(kind) for kind in rng.choice(len(SUBTYPES), count, replace=False, p=FREQUENCY)}
    if "intraparenchymal" in (SUBTYPES[kind] for kind in kinds) and rng.random() < 0.3:
        kinds.add(SUBTYPES.index("intraventricular"))
    return [_SAMPLERS[kind](rng, head) for kind in sorted(kinds)]


class _Common(TypedDict):
    head: Head
    clot: Noise
    hu: float


def _sample_common(rng: np.random.Generator, head: Head, low: float, high: float) -> _Common:
    """Most clots are in the lower part of their range: anaemia, dilution, the age of the clot."""
    hu = low + (high - low) * rng.beta(1.3, 2.3)
    return {"head": head, "clot": Noise(rng, 8), "hu": hu}


def _make_point(values: Iterable[float]) -> Point:
    x, y, z = map(float, values)
    return x, y, z


def _sample_extradural(rng: np.random.Generator, head: Head) -> Extradural:
    bearing, level = rng.uniform(-0.9, 0.8), rng.uniform(-12, 42)
    waist = np.sqrt(max(0.2, 1 - (level / head.height) ** 2))
    centre = (
        rng.choice([-1, 1]) * head.half_width * waist * np.cos(bearing),
        head.half_length * waist * np.sin(bearing),
        level,
    )
    thickness = 5 + 18 * rng.beta(1.3, 2.0)
    radius = thickness + rng.uniform(12, 22)
    return Extradural(
        **_sample_common(rng, head, 50, 80), centre=centre, radius=radius, thickness=thickness
    )


def _sample_subdural(rng: np.random.Generator, head: Head) -> Subdural:
    isodense = rng.random() < 0.35
    common = _sample_common(rng, head, 36, 46) if isodense else _sample_common(rng, head, 50, 78)
    return Subdural(
        **common,
        side=int(rng.choice([-1, 1])),
        bearing=rng.uniform(-0.35, 0.35),
        extent=rng.uniform(0.7, 1.35),
        level=rng.uniform(10, 38),
        tall=rng.uniform(22, 46),
        thickness=3.5 + 9 * rng.beta(1.3, 2.2),
        layering=rng.uniform(4, 14) if isodense else rng.uniform(0, 6),
    )


def _sample_intraparenchymal(rng: np.random.Generator, head: Head) -> Intraparenchymal:
    place = rng.choice(["deep", "lobar", "contusion", "posterior fossa"], p=[0.4, 0.3, 0.2, 0.1])
    side = rng.choice([-1, 1])
    if place == "deep":
        centre = (side * rng.uniform(16, 32), rng.uniform(-16, 14), rng.uniform(0, 14))
        radii = rng.uniform(6, 17, 3)
    elif place == "lobar":
        bearing, reach = rng.uniform(-1.2, 1.2), rng.uniform(0.55, 0.7)
        centre = (
            side * reach * head.half_width * np.cos(bearing),
            reach * head.half_length * np.sin(bearing),
            rng.uniform(0, 40),
        )
        radii = rng.uniform(7, 19, 3)
    elif place == "contusion":  # frontal and temporal poles
        frontal = rng.random() < 0.5
        centre = (
            (side * rng.uniform(12, 30), rng.uniform(50, 60), rng.uniform(-14, 8))
            if frontal
            else (side * rng.uniform(42, 52), rng.uniform(0, 18), rng.uniform(-22, -8))
        )
        radii = rng.uniform(6, 12, 3)
    else:
        centre = (side * rng.uniform(0, 26), rng.uniform(-52, -38), rng.uniform(-34, -22))
        radii = rng.uniform(7, 15, 3)
    return Intraparenchymal(
        **_sample_common(rng, head, 50, 85),
        centre=_make_point(centre),
        radii=_make_point(radii),
        turn=rng.uniform(0, np.pi),
        bumps=Noise(rng, 16),
        oedema=rng.uniform(1, 8),
    )


def _sample_intraventricular(rng: np.random.Generator, head: Head) -> Intraventricular:
    cast = rng.random() < 0.4
    sides = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))[rng.choice(3, p=[0.6, 0.2, 0.2])]
    surface = 60.0 if cast else rng.uniform(-32, -2)
    return Intraventricular(**_sample_common(rng, head, 48, 74), sides=sides, surface=surface)


def _sample_subarachnoid(rng: np.random.Generator, head: Head) -> Subarachnoid:
    if rng.random() < 0.5:  # aneurysm: the basal cisterns and the Sylvian fissures
        centre = (rng.uniform(-15, 15), rng.uniform(6, 18), rng.uniform(-20, -12))
        radii = (rng.uniform(35, 62), rng.uniform(25, 45), rng.uniform(14, 26))
    else:  # trauma: a few sulci of the convexity
        bearing, side = rng.uniform(-1.1, 1.1), rng.choice([-1, 1])
        centre = (
            side * 0.8 * head.half_width * np.cos(bearing),
            0.8 * head.half_length * np.sin(bearing),
            rng.uniform(5, 50),
        )
        radii = tuple(rng.uniform(22, 42, 3))
    return Subarachnoid(
        **_sample_common(rng, head, 54, 72),
        centre=_make_point(centre),
        radii=_make_point(radii),
        swelling=rng.uniform(0.8, 1.7),
    )


_SAMPLERS = (
    _sample_extradural,
    _sample_intraparenchymal,
    _sample_intraventricular,
    _sample_subarachnoid,
    _sample_subdural,
)
