"""What lies outside the dura: scalp, skull with its diploe, and the skull base."""

import numpy as np

from ichfast.data.phantom.geometry import AIR, Array, Noise, Plane, edge, paint, tube
from ichfast.data.phantom.head import Head

FAT, MUSCLE, SKIN = -95.0, 58.0, 50.0  # HU

# Capsules as in brain.py: the bones that stand into the cavity at the lowest slices.
SKULL_BASE = (
    ((62, -22, -40), (14, 8, -38), (9.0, 4.5), 0.8),  # petrous ridge
    ((52, 34, -30), (10, 24, -30), (3.5, 4.0), 0.8),  # sphenoid ridge
    ((26, 56, -40), (26, 44, -40), (15.0, 13.0), 0.6),  # orbital roof
    ((0, 6, -34), (0, 0, -44), (6.0, 9.0), 1.0),  # dorsum sellae and clivus
    ((0, 70, -36), (0, 34, -38), (4.0, 4.0), 1.0),  # ethmoid
)


def paint_skull(hu: Array, head: Head, plane: Plane) -> Array:
    """Paint scalp and vault; return the thickness of the vault in mm, pixel by pixel."""
    bumps = head.bone(plane)
    thickness = head.skull * (1 + 0.18 * bumps)
    thickness += 1.5 * np.clip(np.abs(plane.y) / head.half_length - 0.75, 0, 1) / 0.25
    thickness -= 1.5 * np.clip(np.abs(plane.x) / head.half_width - 0.75, 0, 1) / 0.25
    thickness = np.clip(thickness, 2.5, 14)
    scalp = head.scalp * (1 + 0.2 * head.shape[0](plane))
    outer = plane.depth + thickness + scalp
    # Temporalis muscle in a fossa of its own, at the sides of the lower slices.
    muscle = edge(18 - np.abs(plane.y - 18), 36) * edge(8 - plane.z, 24)
    muscle *= edge(np.abs(plane.x) - 0.55 * head.half_width, 12)
    outer += 4 * muscle
    neck = edge(-plane.y - 0.55 * head.half_length, 30) * edge(-16 - plane.z, 24)
    outer += 9 * neck
    hu[...] = AIR
    fibrous = np.clip(0.15 + 0.2 * head.texture(plane), 0, 1)
    muscular = np.maximum(np.clip(3 * (muscle + neck) - 0.6, 0, 1), fibrous)
    tissue = FAT + (MUSCLE - FAT) * muscular
    paint(hu, edge(outer, 1.2 * plane.pixel + 0.4 * plane.blur), SKIN)
    paint(hu, edge(outer - 2.2, 1.5), tissue)
    paint(hu, 0.8 * edge(outer - scalp + 1.5 + 0.4 * bumps, 1.5), MUSCLE - 5)  # galea

    vault = edge(plane.depth + thickness, plane.blur)
    middle = np.abs(plane.depth + 0.5 * thickness) / (0.5 * thickness)  # 1 at either table
    diploe = np.clip((0.62 - middle) / 0.3, 0, 1) * np.clip((thickness - 3) / 3, 0, 1)
    paint(hu, vault, 1250 - (520 + 120 * head.texture(plane)) * diploe)
    return thickness


def paint_base(hu: Array, head: Head, plane: Plane, cells: Noise) -> Array:
    """Paint the bones of the skull base over the brain; return their coverage."""
    coverage = np.zeros_like(hu)
    for i, part in enumerate(SKULL_BASE):
        inside = tube(plane, *part, margin=8)
        if inside is None:
            continue
        bone = edge(inside + 2.0 * head.texture(plane), 2.5)
        value = 800 + 250 * head.fine(plane)
        if i == 0:  # mastoid air cells in the lateral half of the petrous bone
            air = edge(np.abs(plane.x) - 44, 6) * edge(cells(plane) - 0.3, 0.8)
            value = value + air * (-600 - value)
        elif i == 2:  # behind the roof, orbital fat
            value = value + edge(inside - 4, 2.5) * (FAT - value)
        paint(hu, bone, value)
        coverage = np.maximum(coverage, bone)
    return coverage
