"""What the scanner adds to anatomy: hardening, streaks, limited resolution, noise, calibration."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.phantom.geometry import AIR, Array, Plane, blur, edge, pixel_centres


@dataclass(frozen=True)
class Scanner:
    sharpness: float  # mm, sigma of the point spread
    noise: float  # HU, standard deviation
    grain: float  # mm, sigma of the noise's correlation
    offset: float  # HU, calibration error of this patient
    hardening: float  # HU added to the brain next to bone
    reach: float  # mm over which that fades
    cupping: float  # HU missing in the centre
    petrous: float  # HU of the dark band between the petrous bones
    holder: tuple[float, float, float]  # half-axes in mm and HU of the head holder's shell
    streaks: tuple[tuple[float, float, float, float], ...]  # angle, distance, level, HU

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Scanner":
        streaks = tuple(
            (
                rng.uniform(-0.5, 0.5),
                rng.uniform(-45, 30),
                rng.uniform(-45, -15),
                rng.choice([-1, 1]) * rng.uniform(3, 10),
            )
            for _ in range(rng.poisson(3))
        )
        return cls(
            sharpness=rng.uniform(0.6, 0.9),
            noise=rng.uniform(3, 6),
            grain=rng.uniform(0.5, 0.8),
            offset=rng.uniform(-5, 5),
            hardening=rng.uniform(8, 24),
            reach=rng.uniform(3.5, 7),
            cupping=rng.uniform(0, 4),
            petrous=rng.uniform(2, 14),
            holder=(rng.uniform(92, 100), rng.uniform(107, 116), rng.uniform(40, 160)),
            streaks=streaks,
        )

    def make_surroundings(self, size: int, pixel: float, drift: float) -> Array:
        """Air, and the shell of the head holder: the lower half of a thin ellipse."""
        offsets = pixel_centres(size, pixel)
        x, y = offsets[None, :], -offsets[:, None] - drift
        a, b, hu = self.holder
        rho = np.sqrt((x / a) ** 2 + (y / b) ** 2)
        shell = edge(1.0 - np.abs(rho - 1) * 0.5 * (a + b), 2 * pixel) * edge(8 - y, 4)
        return AIR + (hu - AIR) * shell

    def degrade(self, hu: Array, plane: Plane) -> Array:
        """Add beam hardening, streaks and the point spread: the image without noise."""
        inside = edge(plane.depth + 1, 2)
        depth = np.clip(plane.depth, 0, None)
        hu = hu + inside * (
            self.hardening * np.exp(-depth / self.reach) - self.cupping * np.clip(depth / 60, 0, 1)
        )
        if plane.holds(-46, -26):
            band = edge(7 - np.abs(plane.y + 4 - 0.1 * plane.x), 8) * edge(50 - np.abs(plane.x), 20)
            hu -= self.petrous * band * inside * edge(-28 - plane.z, 8)
        for angle, distance, level, strength in self.streaks:
            if plane.holds(level - 8, level + 8):
                across = plane.y * np.cos(angle) + plane.x * np.sin(angle) - distance
                fade = np.clip(1 - np.abs(plane.z - level) / 8, 0, 1)
                hu += strength * inside * fade * np.exp(-((across / 2.5) ** 2))
        return self.apply_resolution(hu, plane)

    def apply_resolution(self, image: Array, plane: Plane) -> Array:
        return blur(image, self.sharpness / plane.pixel)

    def make_noise(self, size: int, pixel: float, level: float, rng: np.random.Generator) -> Array:
        """Correlated noise for a slice, stronger near the skull base; and the calibration error."""
        fine = blur(rng.standard_normal((size, size)), self.grain / pixel)
        grain = fine - 0.6 * blur(fine, 2.5 * self.grain / pixel)
        strength = self.noise * (1 + 0.25 * np.clip((-10 - level) / 20, 0, 1))
        grain *= strength / grain.std()
        return self.offset + grain
