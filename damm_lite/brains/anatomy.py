"""A brain to image: folded cortex, white matter, ventricles and deep grey
nuclei, drawn as distances.

Every structure is a signed distance in mm, in coordinates that follow the
usual atlas: x to the right, y to the front, z up, the origin at the anterior
commissure. Sizes and places are those of an adult brain to within some
millimetres; it is a phantom, no atlas.
"""

from dataclasses import dataclass

import numpy as np

from damm_lite.brains.shapes import (
    CENTRE,
    covered,
    covered_by_sheet,
    displace,
    ellipsoid,
    grid,
    interpolate,
    join,
    smooth_field,
    tube,
)

CORTEX = 3.0  # thickness, mm

# Tubes: (x, y, z) of the middle and radius in mm, of the right side or the
# midline. The lateral ventricle: frontal horn, body, atrium, occipital horn.
VENTRICLE = np.array(
    [
        [15, 36, 3, 2.0],
        [11, 27, 7, 4.5],
        [7, 16, 11, 5.0],
        [6, 4, 15, 4.5],
        [7, -8, 18, 4.5],
        [11, -22, 18, 5.0],
        [19, -34, 14, 6.0],
        [24, -46, 8, 5.5],
        [24, -64, 5, 2.5],
    ]
)
STEM = np.array([[0, -18, -4, 15], [0, -24, -18, 14], [0, -27, -32, 16], [0, -36, -56, 10], [0, -44, -90, 9]])
CAUDATE_TAIL = np.array([[15, 12, 12, 4], [18, -6, 20, 3], [22, -24, 20, 2]])
TEMPORAL_HORN = np.array([[19, -34, 14, 5.0], [32, -30, -4, 3.0], [33, -14, -18, 2.0]])


@dataclass(frozen=True)
class Head:
    """What makes one brain differ from another."""

    size: np.ndarray  # (3,) relative
    turn: np.ndarray  # (3,) small rotations of the head about x, y, z, rad
    ventricles: float  # width, relative
    atrophy: float  # width of the sulci, relative
    folds: np.ndarray  # random field; sulci are where it changes its sign
    depth: np.ndarray  # random field of their depth
    warps: tuple[np.ndarray, ...]  # three random fields: displacements along x, y, z


def draw_head(rng: np.random.Generator) -> Head:
    """A random head. It does not depend on the voxel at which `draw_brain`
    draws it.
    """
    return Head(
        size=rng.normal(1, 0.03, 3),
        turn=rng.normal(0, np.deg2rad(2), 3),
        ventricles=rng.lognormal(0, 0.2),
        atrophy=rng.lognormal(0, 0.25),
        folds=smooth_field(rng, 12.0),
        depth=smooth_field(rng, 25.0),
        warps=tuple(smooth_field(rng, 60.0) for _ in range(3)),
    )


def draw_brain(head: Head, voxel: float = 3.0, mass: tuple[np.ndarray, float] | None = None) -> np.ndarray:
    """Fractions (3, X, Y, Z) of each voxel that are cerebrospinal fluid, grey
    and white matter.

    Axes run right, front, up (RAS), `voxel` is in mm. The fractions add up to
    1 in the brain, to 0 outside, and to less than 1 at the rim, which is partly
    dura without signal. `mass` is (centre (3,), radius) in mm of a growth that
    displaces what is inside the brain; its outline, which the skull holds,
    stays.
    """
    points = grid(voxel)
    bend = np.stack([interpolate(warp, points) for warp in head.warps])
    outside = _pose(points + bend, head)
    inside = _pose((displace(points, *mass) if mass else points) + 2.5 * bend, head)
    cerebrum, cerebellum, stem, hull = _outline(outside)
    gap, pia = _sulci(inside, -cerebrum, head, voxel)
    fluid = _ventricles(inside, head.ventricles)
    grey = covered(pia - CORTEX, voxel)

    in_cerebellum = covered(cerebellum - cerebrum, voxel)
    bark, leaves = _cerebellum(inside, cerebellum, voxel)
    grey = grey * (1 - in_cerebellum) + bark * in_cerebellum
    gap = gap * (1 - in_cerebellum) + leaves * in_cerebellum
    in_stem = covered(np.maximum(stem, -cerebrum - 6), voxel)
    grey, gap = grey * (1 - in_stem) + 0.35 * in_stem, gap * (1 - in_stem)

    deep = covered(_deep_grey(inside), voxel)
    grey = np.maximum(grey * (1 - covered(fluid - 2, voxel)), 0.75 * deep)  # fibres cross the nuclei
    csf = np.maximum.reduce([gap, covered(fluid, voxel), covered(-hull - 0.6 * head.atrophy, voxel)])
    grey = np.minimum(grey, 1 - csf)
    return np.stack([csf, grey, 1 - csf - grey]) * (hull < 0) * covered(hull + 1.4, voxel)


def _pose(points, head):
    """Turn and scale points of this head to coordinates of the standard brain."""
    a, b, c = head.turn
    rotation = np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]]) / head.size[:, None]
    centre = CENTRE.reshape(3, 1, 1, 1)
    return np.tensordot(rotation, points - centre, 1) + centre


def _outline(points):
    """Distances to cerebrum, cerebellum, brain stem, and the hull of all three."""
    x, y, z = points
    side = np.stack([np.abs(x), y, z])
    narrow = [np.abs(x) * (1 + 0.08 * np.clip((y + 20) / 80, -0.3, 1)), y, z]  # egg-shaped from above
    upper = ellipsoid(narrow, (0, -17, 10), (68, 88, 66))
    lower_aside = 6 * np.clip((np.abs(x) - 10) / 30, 0, 1)
    lower_in_front, lower_behind = 9 * np.clip((y - 5) / 15, 0, 1), 8 * np.clip((-y - 65) / 20, 0, 1)
    upper = np.maximum(upper, -14 - lower_aside - lower_in_front - lower_behind - z)
    temporal = ellipsoid(side, (40, -14, -18), (27, 44, 25))
    cerebrum = join(upper, temporal)
    cerebellum = join(ellipsoid(side, (24, -64, -36), (29, 28, 22)), ellipsoid(points, (0, -60, -27), (15, 24, 20)))
    stem = tube(points, STEM)
    cisterns = ellipsoid(points, (0, -12, -16), (18, 28, 14))
    return cerebrum, cerebellum, stem, join(cerebrum, cerebellum, stem, cisterns)


def _sulci(points, depth, head, voxel):
    """(fraction of fluid in the sulci, distance to the nearest pial surface in
    mm).

    Most sulci lie where a random field changes its sign. The field is
    stretched along the radius, so that they run at right angles to the
    surface. Three are not random: the fissure between the hemispheres, which
    ends at the corpus callosum, the Sylvian fissure, and the insula's.
    """
    x, y, z = points
    middle, reach = np.reshape((0, -17, 8), (3, 1, 1, 1)), np.reshape((68, 88, 66), (3, 1, 1, 1))
    radius = np.linalg.norm((points - middle) / reach, axis=0) + 1e-3
    shrunk = middle + (points - middle) * radius**-0.7
    mirrored = [np.abs(shrunk[0]) + 40, *shrunk[1:]]  # part of the pattern is the same on both sides
    wave = 0.75 * interpolate(head.folds, shrunk) + 0.65 * interpolate(head.folds, mirrored)
    slope = np.sqrt(sum(g**2 for g in np.gradient(wave, voxel)))
    across = np.abs(wave) / np.maximum(slope, 0.2)
    deepest = 21 + 5 * interpolate(head.depth, shrunk)
    width = 0.65 * head.atrophy * np.clip(1.2 - depth / 25, 0.3, 1)
    base = 60 * (0.62 - radius)  # no sulci in the middle of the brain's base
    midline = np.abs(x + 0.8 * np.sin(y / 25))
    callosum = -ellipsoid([0 * x, y, z], (1, -10, 2), (1e3, 47, 29))
    sylvian = z - (1 - 0.42 * y)  # height above its course
    above_insula = np.abs(np.abs(x) - 37)
    sheets = (  # distance in mm, how far beyond the sheet's end in mm, half its width in mm
        (across, np.maximum(depth - deepest, base), width),
        (midline, np.maximum(callosum, -24 - z), 0.9 * head.atrophy),
        (0.9 * np.abs(sylvian), np.maximum.reduce([37 - np.abs(x), y - 24, -42 - y]), 1.2 * head.atrophy),
        (above_insula, np.maximum.reduce([np.abs(sylvian) - 10, y - 22, -24 - y]), head.atrophy),
    )
    fluid, pia = covered(depth - 0.8, voxel), depth - 0.8
    for distance, beyond, half_width in sheets:
        fluid = np.maximum(fluid, covered_by_sheet(distance, half_width, voxel) * covered(beyond, voxel))
        pia = np.minimum(pia, np.hypot(np.maximum(distance - half_width, 0), np.maximum(beyond, 0)))
    return fluid, pia


def _ventricles(points, width):
    """Distance to the ventricles, `width` times as wide as usual."""
    x, y, z = points
    side = np.stack([np.abs(x), y, 0.7 * z])  # a ventricle is higher than wide
    scale = np.array([1, 1, 0.7, width])
    lateral = np.minimum(tube(side, VENTRICLE * scale), tube(side, TEMPORAL_HORN * scale))
    third = np.maximum.reduce([np.abs(x) - 1.8 * width, np.abs(y + 10) - 14, np.abs(z + 2) - 9])
    fourth = ellipsoid(points, (0, -46, -32), (7 * width, 5, 9))
    septum = 0.8 - np.abs(x)  # keeps the two sides apart
    return np.minimum.reduce([np.maximum(lateral, septum), third, fourth])


def _deep_grey(points):
    """Distance to the deep grey nuclei."""
    x, y, z = points
    side = np.stack([np.abs(x), y, z])
    lens = [np.abs(x) - 0.22 * (4 - y) - 25, y, z]  # its back lies further out
    caudate = np.minimum(ellipsoid(side, (14, 14, 4), (5, 11, 9)), tube(side, CAUDATE_TAIL))
    putamen = ellipsoid(lens, (1.5, 3, 1), (5.5, 17, 10))
    pallidum = ellipsoid(lens, (-5.5, -1, -1), (4.5, 10, 6))
    thalamus = ellipsoid(side, (11, -18, 7), (9, 14, 9))
    return np.minimum.reduce([caudate, putamen, pallidum, thalamus])


def _cerebellum(points, distance, voxel):
    """(grey, fluid) fractions of the cerebellum, whose surface is at
    `distance`: nearly level leaves of cortex around a white core.
    """
    x, y, z = points
    between = np.abs((z + 0.3 * y + 2 * np.sin(x / 7)) % 8 - 4)  # distance from the middle between two leaves
    core = np.minimum(
        ellipsoid([np.abs(x), y, z], (20, -56, -36), (16, 12, 7)), ellipsoid(points, (0, -54, -34), (22, 8, 6))
    )
    fluid = covered_by_sheet(between, 0.5, voxel) * covered(-distance - 7, voxel)
    return 1 - covered(core, voxel), np.maximum(fluid, covered(-distance - 0.8, voxel))
