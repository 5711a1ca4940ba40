"""What lies inside the dura: cortex and white matter, deep nuclei, ventricles, cisterns, falx."""

from dataclasses import dataclass

import numpy as np

from ichfast.data.phantom.geometry import SLAB, Array, Plane, edge, paint, tube
from ichfast.data.phantom.head import Head

# Tapered capsules in mm: (start, end, (radius at start, at end), stretch upwards). x is a distance
# from the midline, both sides alike; y is to the front, z up from the third ventricle.
Tube = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float], float]

LATERAL_VENTRICLE: tuple[Tube, ...] = (
    ((11, 36, 4), (5, 17, 12), (2.0, 4.0), 1.5),  # frontal horn
    ((5, 17, 12), (9, -10, 21), (4.0, 4.2), 1.2),  # body
    ((9, -10, 21), (19, -30, 12), (4.2, 5.5), 1.2),  # body to trigone
    ((19, -30, 12), (23, -54, 6), (5.0, 1.5), 1.3),  # occipital horn
    ((20, -28, 8), (31, -14, -14), (3.5, 2.0), 1.0),  # trigone to temporal horn
    ((31, -14, -14), (28, 8, -22), (2.0, 1.2), 1.0),  # temporal horn
)
THIRD_VENTRICLE: Tube = ((0, 9, -3), (0, -15, 0), (1.2, 1.6), 3.5)
FOURTH_VENTRICLE: Tube = ((0, -33, -27), (0, -36, -38), (5.0, 3.5), 1.0)

CAUDATE: Tube = ((14, 25, 5), (13, 6, 20), (6.0, 3.0), 1.3)
LENTIFORM: tuple[Tube, ...] = (
    ((24, 16, 3), (23, -2, 4), (6.5, 6.0), 1.4),
    ((27, 8, 3), (26, -12, 4), (5.0, 3.0), 1.6),
)
THALAMUS: Tube = ((8, -2, 4), (12, -16, 5), (6.0, 8.0), 1.1)
BRAINSTEM: Tube = ((0, -13, -10), (0, -10, -46), (14.0, 15.0), 1.0)

CISTERNS: tuple[Tube, ...] = (
    ((0, 10, -21), (0, 24, -20), (4.0, 1.5), 1.3),  # suprasellar, to the interhemispheric fissure
    ((0, 9, -21), (15, 15, -20), (4.0, 2.2), 1.3),  # its horn to the Sylvian fissure
    ((15, 15, -20), (33, 13, -18), (2.2, 1.6), 1.3),
    ((4, 6, -21), (13, 0, -20), (2.8, 1.6), 1.3),  # crural
    ((0, -30, -10), (11, -26, -9), (2.6, 1.6), 1.5),  # quadrigeminal
)
SYLVIAN: tuple[Tube, ...] = (
    ((33, 13, -16), (52, 10, -8), (1.2, 1.0), 3.0),
    ((37, 20, 0), (40, -8, 6), (0.9, 0.9), 8.0),  # over the insula
    ((40, -4, 6), (60, -14, 14), (0.9, 1.4), 2.5),
    ((38, 17, 4), (56, 24, 6), (0.8, 1.2), 2.5),
)


@dataclass(eq=False)
class Spaces:
    """Coverage by cerebrospinal fluid (0..1): where blood can collect."""

    ventricles: Array
    subarachnoid: Array
    parenchyma: Array
    cerebellum: Array


def paint_brain(
    hu: Array, head: Head, plane: Plane, widening: Array | float, dilation: float
) -> Spaces:
    """Paint everything within the dura.

    `widening` (mm) opens the sulci, as clotted blood does; `dilation` is that of the ventricles.
    """
    cerebellum, sheet = _shape_tentorium(plane)
    paint(hu, edge(plane.depth, plane.blur), head.csf + 4)
    paint(hu, 0.8 * edge(plane.depth, plane.blur) * edge(1.0 - plane.depth), head.dura)
    gap = 0.6 + 2.2 * head.atrophy**1.5
    brain = edge(plane.cover - gap, plane.blur)
    sulci, cortex = _shape_cortex(head, plane, widening, 1 - cerebellum)
    matter = _compute_matter(head, plane, cortex, cerebellum)
    paint(hu, brain, matter)

    ventricles = _shape_ventricles(head, plane, dilation)
    cisterns = _shape_cisterns(head, plane, widening)
    fissure = _shape_fissure(head, plane, widening) * (1 - cerebellum)
    inside = edge(plane.cover, plane.blur)
    subarachnoid = np.maximum(np.maximum(sulci, fissure), cisterns) * inside
    fluid = np.maximum(ventricles, subarachnoid)
    paint(hu, fluid, head.csf)
    _paint_falx(hu, head, plane, 1 - cerebellum)
    paint(hu, sheet * inside, head.dura)
    surface = inside * (1 - brain) * min(gap - 0.3, 1.0)
    return Spaces(
        ventricles,
        np.maximum(subarachnoid, surface),
        brain * (1 - fluid),
        cerebellum,
    )


def _shape_tentorium(plane: Plane) -> tuple[Array, Array]:
    """Coverage of the posterior fossa behind and below the tentorium, and of the sheet itself."""
    x, y = np.abs(plane.brain_x), plane.brain_y
    roof = 2 - 0.42 * x - 0.30 * np.clip(-28 - y, 0, None)
    above = plane.z - roof
    hole = np.hypot(x, (y + 8) * 0.8) - 19  # the incisura, where the brainstem passes
    behind = edge(-12 - y + 0.25 * x, 4)
    below = edge(-above, SLAB) * behind
    sheet = np.clip(1 - np.abs(above) / (0.5 * SLAB + 1), 0, 1) * 0.3 * edge(hole, 3)
    return below, sheet * edge(-16 - y + 0.2 * x, 4)


def _shape_cortex(
    head: Head, plane: Plane, widening: Array | float, supratentorial: Array
) -> tuple[Array, Array]:
    """Coverage by the sulci and by the grey matter that lines them and the surface."""
    sulci, cortex = np.zeros_like(plane.x), np.zeros_like(plane.x)
    near = np.flatnonzero((plane.cover > -2) & (plane.cover < 34) & (supratentorial > 0))
    if near.size == 0:
        return sulci, cortex
    cover = plane.cover.flat[near]
    x, y, z = (a.flat[near] for a in (plane.brain_x, plane.brain_y, plane.z))
    wobble = head.texture(plane).flat[near]
    # Project to a sphere of the brain's size: x, y, z over the distance from the centre.
    stretch = 72 / np.sqrt(x * x + y * y + z * z + 100)
    away = np.abs(x) < 4  # the two hemispheres have different gyri
    distance = head.gyri.measure_distance(
        np.where(x > 0, x + 200, x) * stretch + 1.5 * wobble,
        y * stretch,
        z * stretch + 1.5 * wobble,
    )
    wide = widening.flat[near] if isinstance(widening, np.ndarray) else widening
    depth = 13 + 4 * wobble + 3 * head.atrophy
    half = 0.35 + 1.5 * head.atrophy + wide
    taper = np.clip(1.15 - cover / (depth + 4), 0.25, 1)  # sulci narrow as they go deeper
    fold = edge(half * taper - distance, 1.6 * plane.pixel) * edge(depth - cover, 4)
    fold *= 0.55 + 0.45 * np.clip(half, 0, 1)
    ribbon = np.maximum(
        edge(4.2 - distance, 2.5) * edge(depth + 3 - cover, 4), edge(3.8 - cover, 2.0)
    )
    keep = supratentorial.flat[near] * np.where(away, 0.5, 1.0)
    sulci.flat[near] = fold * keep
    cortex.flat[near] = ribbon
    return sulci, cortex


def _compute_matter(head: Head, plane: Plane, cortex: Array, cerebellum: Array) -> Array:
    grey = cortex
    for nucleus in (CAUDATE, *LENTIFORM, THALAMUS):
        inside = tube(plane, *nucleus)
        if inside is not None:
            grey = np.maximum(grey, 0.9 * edge(inside, 2.5))
    insula = tube(plane, *SYLVIAN[1], margin=6)
    if insula is not None:
        grey = np.maximum(grey, 0.9 * edge(insula + 4, 2.0))
    texture = 0.8 * head.texture(plane)
    value = head.white + (head.grey - head.white) * grey + texture
    if head.atrophy > 0.5:  # leukoaraiosis: pale caps around the ventricles of the old
        for part in LATERAL_VENTRICLE[:3]:
            inside = tube(plane, *part, margin=12)
            if inside is not None:
                value -= 8 * head.atrophy * edge(inside + 7, 9) * (1 - grey)
    folia = head.white + 6 + 2.5 * head.fine(plane)
    value += cerebellum * (folia - value)
    stem = tube(plane, *BRAINSTEM, mirror=False)
    if stem is not None:
        value += edge(stem, 2.0) * (head.white + 2.5 + texture - value)
    return value


def _shape_ventricles(head: Head, plane: Plane, dilation: float) -> Array:
    coverage = np.zeros_like(plane.x)
    right, left = (size * dilation for size in head.ventricles)
    size = np.where(plane.brain_x > 0, left, right)
    for part in LATERAL_VENTRICLE:
        radius = 0.5 * (part[2][0] + part[2][1])
        inside = tube(plane, *part, margin=max(0.0, (max(right, left) - 1) * radius) + 1)
        if inside is not None:
            coverage = np.maximum(coverage, edge(inside + (size - 1) * radius, 1.5))
    # Only the septum between the frontal horns and bodies parts right from left.
    coverage *= edge(np.abs(plane.brain_x) - 0.8, 1.5)
    for part in (THIRD_VENTRICLE, FOURTH_VENTRICLE):
        inside = tube(plane, *part, mirror=False)
        if inside is not None:
            coverage = np.maximum(coverage, edge(inside + 1.2 * (right - 1), 1.5))
    return coverage


def _shape_cisterns(head: Head, plane: Plane, widening: Array | float) -> Array:
    coverage = np.zeros_like(plane.x)
    wider = 1.5 * head.atrophy - 0.3 + widening
    for part in CISTERNS:
        inside = tube(plane, *part)
        if inside is not None:
            coverage = np.maximum(coverage, edge(inside + 0.5 * wider, 2.0))
    for part in SYLVIAN:
        inside = tube(plane, *part)
        if inside is not None:
            coverage = np.maximum(coverage, 0.9 * edge(inside + 0.7 * wider, 1.5))
    stem = tube(plane, *BRAINSTEM, mirror=False, margin=6)
    if stem is not None:
        half = 0.7 + 0.5 * wider + 0.8 * head.bend[0](plane)  # here wide, there a mere slit
        shell = edge(half - np.abs(stem + 2), 2.0) * edge(plane.brain_y + 34, 4)
        coverage = np.maximum(coverage, 0.7 * shell * edge(-8 - plane.z, 4))
    return coverage


def _shape_fissure(head: Head, plane: Plane, widening: Array | float) -> Array:
    """The interhemispheric fissure, down to the corpus callosum."""
    half = 0.5 + 1.1 * head.atrophy + 0.7 * widening
    bottom = np.where(plane.brain_y > 0, 40.0, 46.0)
    return (
        edge(half - np.abs(plane.brain_x), 1.5)
        * edge(bottom - plane.cover, 5)
        * edge(plane.z + 16, 6)
    )


def _paint_falx(hu: Array, head: Head, plane: Plane, supratentorial: Array) -> None:
    sickle = 22 + 26 * np.clip((20 - plane.brain_y) / 60, 0, 1)
    sheet = edge(0.7 - np.abs(plane.brain_x), 1.2) * edge(sickle - plane.cover, 5)
    sheet *= edge(plane.depth, plane.blur) * edge(plane.z + 14, 6) * supratentorial
    paint(hu, 0.8 * sheet, head.dura)
    # Superior sagittal sinus: a triangle on the inner table.
    width = np.clip(4.5 - 0.8 * plane.depth, 0, 4.5)
    sinus = edge(width - np.abs(plane.x), 1.5) * edge(plane.depth, plane.blur)
    present = edge(np.maximum(10 - plane.y, plane.z - 25), 10) * edge(plane.z + 20, 4)
    paint(hu, sinus * present, head.blood_pool)
    # Transverse sinuses, at the tentorium's rim.
    rim = edge(2.5 - np.abs(plane.depth - 2.5), plane.blur) * edge(-28 - plane.y, 4)
    paint(hu, rim * edge(4 - np.abs(plane.z + 24), SLAB), head.blood_pool)
