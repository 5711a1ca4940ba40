"""A patient's head: the random shape of skull and brain, and the coordinates of one slice in it."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.phantom.geometry import SLAB, Array, Noise, Plane, pixel_centres


class GyralPattern:
    """Where the sulci run: zero lines of a sum of random plane waves over the brain's surface.

    A point is first projected from the brain's centre to its surface, so that sulci cut the slices
    at the level of the ventricles radially and meander over the slices near the vertex, as they do
    in life.
    """

    WAVES = 14

    def __init__(self, rng: np.random.Generator, wavelength: float) -> None:
        direction = rng.standard_normal((self.WAVES, 3))
        direction /= np.sqrt((direction**2).sum(1, keepdims=True))
        number = 2 * np.pi / (wavelength * rng.uniform(0.8, 1.25, (self.WAVES, 1)))
        self.waves = direction * number
        self.phases = rng.uniform(0, 2 * np.pi, self.WAVES)
        self.steepness = 2 * np.pi / wavelength * 0.6  # typical gradient, per mm

    def measure_distance(self, x: Array, y: Array, z: Array) -> Array:
        """Approximate mm to the nearest sulcus, from surface coordinates."""
        total = np.zeros_like(x)
        for (kx, ky, kz), phase in zip(self.waves, self.phases, strict=True):
            total += np.cos(kx * x + ky * y + kz * z + phase)
        spread = (self.WAVES / 2) ** 0.5  # standard deviation of the sum
        distance: Array = np.abs(total) / (spread * self.steepness)
        return distance


@dataclass(frozen=True, eq=False)
class Head:
    """What is random about one patient, apart from lesions and the scanner."""

    half_width: float  # mm of the cranial cavity
    half_length: float
    height: float  # from the level of the third ventricle to the vertex
    yaw: float  # radians
    roll: float  # slopes of the slice against the head
    pitch: float
    centre: tuple[float, float]  # mm
    skull: float  # thickness, mm
    scalp: float
    age: int
    atrophy: float  # 0 young, 1 marked
    csf: float  # HU
    white: float
    grey: float
    dura: float
    blood_pool: float  # venous sinuses and arteries
    ventricles: tuple[float, float]  # relative size, right and left
    bend: tuple[Noise, Noise]  # displace the anatomy a little
    shape: tuple[Noise, Noise]  # displace skull and anatomy
    bone: Noise
    texture: Noise
    fine: Noise
    gyri: GyralPattern

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Head":
        size = rng.normal(1.0, 0.03)
        age = int(rng.uniform(18, 90))
        atrophy = float(np.clip((age - 45) / 45 + rng.normal(0, 0.2), 0.02, 1.0))
        white = rng.uniform(26, 30)
        enlarged = 0.85 + 0.7 * atrophy + rng.uniform(0, 0.25)
        return cls(
            half_width=66 * size * rng.uniform(0.95, 1.05),
            half_length=81 * size * rng.uniform(0.96, 1.04),
            height=77 * size * rng.uniform(0.97, 1.03),
            yaw=rng.normal(0, 0.06),
            roll=rng.normal(0, 0.04),
            pitch=rng.normal(0, 0.06),
            centre=(rng.normal(0, 4), rng.normal(0, 5)),
            skull=rng.uniform(4.0, 6.5),
            scalp=rng.uniform(4.0, 7.5),
            age=age,
            atrophy=atrophy,
            csf=rng.uniform(4, 10),
            white=white,
            grey=white + rng.uniform(6.5, 9.5),
            dura=rng.uniform(44, 62),
            blood_pool=rng.uniform(44, 62),
            ventricles=(enlarged * rng.uniform(0.9, 1.1), enlarged * rng.uniform(0.9, 1.1)),
            bend=(Noise(rng, 22), Noise(rng, 22)),
            shape=(Noise(rng, 55), Noise(rng, 55)),
            bone=Noise(rng, 28),
            texture=Noise(rng, 9),
            fine=Noise(rng, 5),
            gyri=GyralPattern(rng, rng.uniform(25, 31)),
        )

    def make_plane(self, size: int, pixel: float, level: float, drift: float) -> Plane:
        """Slice at height `level`; a tilted gantry lets the head drift along the rows (mm)."""
        offsets = pixel_centres(size, pixel)
        across = offsets - self.centre[0]
        along = -offsets - self.centre[1] - drift
        # The cavity's section, enlarged by a slanting slice, and the tissues around it.
        ring = np.sqrt(1 - np.clip((level - 14) / self.height, 0, 0.98) ** 2)
        rows = _find_span(np.abs(along) < ring * self.half_length + 26)
        columns = _find_span(np.abs(across) < ring * (self.half_width + 6) + 26)
        across, along = across[columns], along[rows]
        turned = self._rotate(across, along, level)
        plane = Plane(rows, columns, across, along, level, pixel, *turned)
        plane.x += 2.0 * self.shape[0](plane)
        plane.y += 2.0 * self.shape[1](plane)
        self._measure_depth(plane)
        inside = np.clip(plane.depth / 12, 0, 1)
        plane.brain_x = plane.x + inside * (1.6 * self.bend[0](plane) + 0.6 * self.texture(plane))
        plane.brain_y = plane.y + inside * (1.6 * self.bend[1](plane) + 0.6 * self.fine(plane))
        plane.cover = plane.depth.copy()
        return plane

    def _rotate(self, across: Array, along: Array, level: float) -> tuple[Array, Array, Array]:
        u, v = across[None, :], along[:, None]
        x = u * np.cos(self.yaw) + v * np.sin(self.yaw)
        y = v * np.cos(self.yaw) - u * np.sin(self.yaw)
        return x, y, level + self.roll * x + self.pitch * y

    def _measure_depth(self, plane: Plane) -> None:
        """Signed distance to the inner table, an ellipsoid narrower in front, to first order."""
        a = self.half_width * (1 - 0.13 * np.clip(plane.y / self.half_length, -1, 1))
        b = self.half_length
        c = np.where(plane.z > 0, self.height, 1.45 * self.height)
        qx, qy, qz = plane.x / a, plane.y / b, plane.z / c
        rho = np.sqrt(qx * qx + qy * qy + qz * qz) + 1e-6
        # Heads are squarer than ellipses: bulge where both coordinates are large.
        rho *= 1 - 0.05 * (qx * qy / rho**2) ** 2 * 4 * np.clip(1 - qz * qz, 0, 1)
        slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2 + (qz / c) ** 2) + 1e-6
        plane.depth = (1 - rho) * rho / slope
        plane.blur = np.hypot(0.9 * plane.pixel, SLAB * np.abs(qz / c) / slope)


def _find_span(inside: Array) -> slice:
    found = np.flatnonzero(inside)
    return slice(int(found[0]), int(found[-1]) + 1)
