"""Bright things that are not haemorrhage: what defeats a threshold."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.phantom.geometry import Array, Plane, edge, paint, tube
from ichfast.data.phantom.head import Head

Point = tuple[float, float, float]

# Arteries of the skull base, in the cisterns (capsules as in brain.py).
ARTERIES = (
    ((0, 4, -30), (0, 8, -20), (1.6, 1.6), False),  # basilar
    ((4, 16, -20), (30, 14, -17), (1.5, 1.1), True),  # middle cerebral
    ((11, 10, -28), (10, 14, -20), (1.8, 1.6), True),  # carotid
)


@dataclass(frozen=True)
class Calcification:
    centre: Point
    radius: float
    hu: float

    def paint(self, hu: Array, plane: Plane) -> None:
        inside = tube(plane, self.centre, self.centre, (self.radius, self.radius), mirror=False)
        if inside is not None:
            paint(hu, edge(inside, 1.5), self.hu)


@dataclass(frozen=True)
class ScalpHaematoma:
    """Blood or a bloody swelling outside the skull."""

    bearing: float
    extent: float
    level: float
    thickness: float
    hu: float

    def paint(self, hu: Array, plane: Plane, vault: Array) -> None:
        turn = np.arctan2(plane.y, plane.x) - self.bearing
        turn = (turn + np.pi) % (2 * np.pi) - np.pi
        bulge = 1 - (turn / self.extent) ** 2 - ((plane.z - self.level) / 35) ** 2
        if bulge.max() <= 0:
            return
        outside = -plane.depth - vault
        thick = self.thickness * np.clip(bulge, 0, 1)
        paint(hu, edge(outside, 1.5) * edge(thick - outside, 2) * (bulge > 0), self.hu)


@dataclass(frozen=True)
class Confounders:
    calcifications: tuple[Calcification, ...]
    haematoma: ScalpHaematoma | None
    arteries: float  # how dense they look

    @classmethod
    def sample(cls, rng: np.random.Generator, head: Head) -> "Confounders":
        old = head.age / 90
        spots: list[Calcification] = []

        def add(
            chance: float, centres: list[Point], radius: tuple[float, float], hu: float
        ) -> None:
            if rng.random() < chance:
                for x, y, z in centres:
                    jitter = rng.normal(0, 1.5, 3)
                    place = (x + 0.5 * jitter[0], y + jitter[1], z + 2 * jitter[2])
                    spots.append(Calcification(place, rng.uniform(*radius), hu))

        both = (-1, 1)
        add(0.4 + 0.4 * old, [(0, -26, 0)], (1.5, 3.5), rng.uniform(90, 300))  # pineal gland
        plexus = [(s * 19.0, -33.0, 10.0) for s in both]
        add(0.3 + 0.6 * old, plexus, (2.0, 4.5), rng.uniform(70, 220))  # choroid plexus
        pallidum = [(s * 18.0, 2.0, 2.0) for s in both]
        add(0.4 * old, pallidum, (2.0, 4.0), rng.uniform(60, 130))
        falx = [(0.0, rng.uniform(20, 60), rng.uniform(20, 50))]
        add(0.3, falx, (1.5, 4.0), rng.uniform(90, 400))
        tumour = [(rng.uniform(-45, 45), rng.uniform(-55, 50), rng.uniform(0, 45))]
        add(0.08, tumour, (4.0, 9.0), rng.uniform(60, 160))
        haematoma = None
        if rng.random() < 0.4:
            haematoma = ScalpHaematoma(
                bearing=rng.uniform(-np.pi, np.pi),
                extent=rng.uniform(0.3, 0.8),
                level=rng.uniform(-10, 50),
                thickness=rng.uniform(4, 12),
                hu=rng.uniform(50, 75),
            )
        return cls(tuple(spots), haematoma, rng.uniform(0.4, 1.0))

    def paint_inside(self, hu: Array, head: Head, plane: Plane) -> None:
        for start, end, radii, mirror in ARTERIES:
            inside = tube(plane, start, end, radii, mirror=mirror)
            if inside is not None:
                paint(hu, self.arteries * edge(inside, 1.5), head.blood_pool)
        for spot in self.calcifications:
            spot.paint(hu, plane)
