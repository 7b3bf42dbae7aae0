"""Simulated tumours: vessels, nuclei, and where nanoparticles go.

The nanoparticle map is physics, not drawing. Particles leave the vessels,
diffuse through tissue that crowded nuclei make narrow, are cleared, and are
taken up by cells. In the steady state their concentration c (a fraction of
that in plasma) balances

    div(D(rho) grad c) - k(rho) c + P v (1 - c) = 0,    no flux through the border,

with v the fraction of a pixel that is vessel, rho the local crowding by
nuclei, D = D0 exp(-a rho) and k = k0 + k1 rho. In uniform tissue c falls off
from a straight vessel as exp(-x / sqrt(D / k)). A camera sees free and
cell-bound particles, c (1 + b rho).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.fft import dctn, idctn
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree
from scipy.special import ndtr


@dataclass(frozen=True)
class Physics:
    """Constants of nanoparticle transport, for particles of about 50 nm."""

    pixel: float = 2.0  # side of a pixel, µm
    diffusivity: float = 1.0  # D0, in tissue without cells, µm²/s
    hindrance: float = 2.0  # a, how strongly crowding slows diffusion
    clearance: float = 3e-4  # k0, loss without cells, 1/s
    uptake: float = 2e-3  # k1, further loss into cells at full crowding, 1/s
    leakage: float = 5e-2  # P, plasma-tissue exchange inside a vessel, 1/s
    binding: float = 1.0  # b, cell-bound over free particles at full crowding
    crowding_radius: float = 5.0  # Gaussian radius of the crowding, µm


VESSEL_WAVELENGTH = 12.0  # at which vessels vary: about the width of one, µm


def simulate_vessels(
    rng: np.random.Generator, size: int | tuple[int, int], *, density: float = 250.0, pixel: float = 2.0
) -> np.ndarray:
    """Draw vessels as winding tubes of 3-7 µm radius; (H, W) float32.

    A value in [0, 1] is the fraction of the pixel that is vessel. `size` is a
    side or (H, W) in pixels, `density` the vessels per mm², of which at least
    one is drawn, `pixel` in µm.

    >>> simulate_vessels(np.random.default_rng(0), (32, 48)).shape
    (32, 48)
    """
    height, width = np.broadcast_to(size, 2)
    wanted = rng.poisson(density * height * width * (pixel / 1000) ** 2)
    points, radii = [], []
    for _ in range(max(1, wanted)):
        steps = 2 + int(rng.exponential(120.0) / pixel)  # 120 µm on average
        start, turns = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.15, steps)
        heading = start + np.cumsum(turns)
        step = np.stack([np.sin(heading), np.cos(heading)], axis=1)
        path = np.cumsum(step, axis=0)
        middle = rng.uniform(0, 1, 2) * (height, width)
        points.append(path - path[steps // 2] + middle)
        radii.append(np.full(steps, rng.uniform(3.0, 7.0) / pixel))
    points, radii = np.concatenate(points), np.concatenate(radii)
    centres = np.stack(np.indices((height, width)), axis=-1) + 0.5  # (H, W, 2)
    # Pixels further than `reach` from all vessels stay 0: for them the query
    # gives the distance inf and, as the nearest point, the index len(points).
    reach = radii.max() + 0.5
    tree = cKDTree(points)
    distance, nearest = tree.query(centres, distance_upper_bound=reach)
    inside = np.append(radii, 0)[nearest] - distance + 0.5
    return np.clip(inside, 0, 1).astype(np.float32)


def simulate_nuclei(rng: np.random.Generator, vessels: np.ndarray, *, pixel: float = 2.0) -> np.ndarray:
    """Draw cell nuclei around `vessels` (H, W); (H, W) float32 in [0, 1].

    Cells live off the vessels: within about 25 µm of one the tissue is dense
    (tumour cords), further out sparse, with smooth random variation over 25
    µm. None sits on a vessel. `pixel` is in µm.
    """
    near = 1 - distance_to_vessels(vessels, pixel) / 25.0
    noise = smooth_noise(rng, vessels.shape, 25.0 / pixel)
    occupancy = ndtr(noise + 3 * near) * (vessels < 0.2)
    return draw_nuclei(rng, occupancy, pixel) * (1 - vessels)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> np.ndarray:
    """Gaussian noise (H, W) of mean 0 and variance 1, correlated over `radius`
    pixels.
    """
    margin = int(np.ceil(3 * radius))  # drawn wider than the image, so that borders are like the rest
    noise = rng.standard_normal([n + 2 * margin for n in shape])
    rows, cols = (slice(margin, margin + n) for n in shape)
    noise = gaussian_filter1d(noise, radius, axis=0, truncate=3)[rows]  # cut at once: less to filter along the rows
    noise = gaussian_filter1d(noise, radius, axis=1, truncate=3)[:, cols]
    return noise * 2 * np.sqrt(np.pi) * radius


def distance_to_vessels(vessels: np.ndarray, pixel: float) -> np.ndarray:
    """Distance (H, W) of each pixel from the nearest vessel in µm.

    >>> distance_to_vessels(np.array([[1.0, 0.0, 0.0]]), pixel=2.0)
    array([[0., 2., 4.]])
    """
    return pixel * distance_transform_edt(vessels < 0.5)


def draw_nuclei(rng: np.random.Generator, occupancy: np.ndarray, pixel: float) -> np.ndarray:
    """Ellipses of 3.5-5 µm semi-axis on jittered hexagonal places 9 µm apart;
    (H, W) float32 in [0, 1].

    `occupancy` (H, W) is the chance that a place is taken.
    """
    height, width = occupancy.shape
    spacing = 9.0 / pixel
    rows, cols = np.mgrid[-1 : height / (spacing * 0.866) + 1, -1 : width / spacing + 1]
    places = np.stack([rows * 0.866, cols + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2)
    places = spacing * (places + rng.uniform(-0.3, 0.3, places.shape))
    y, x = places.astype(int).clip(0, (height - 1, width - 1)).T
    places = places[rng.random(len(places)) < occupancy[y, x]]

    long = rng.uniform(3.5, 5.0, len(places)) / pixel
    short = long * rng.uniform(0.6, 1.0, len(places))
    angle = rng.uniform(0, np.pi, len(places))
    brightness = rng.uniform(0.6, 1.0, len(places))

    # All nuclei at once, each in the square of n pixels' side that holds it.
    reach = int(np.ceil(5.0 / pixel)) + 1
    corners = np.floor(places).astype(int) - reach
    y, x = corners.T[..., None] + np.arange(2 * reach + 1)  # (nuclei, n) each
    y, x = y[:, :, None], x[:, None, :]
    long, short, cos, sin, brightness, row, col = (
        a[:, None, None] for a in (long, short, np.cos(angle), np.sin(angle), brightness, *places.T)
    )
    dy, dx = y + 0.5 - row, x + 0.5 - col
    ellipse = np.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short)  # (nuclei, n, n), 1 at the border
    values = (brightness * np.clip((1 - ellipse) * short + 0.5, 0, 1)).astype(np.float32)

    nuclei = np.zeros((height, width), dtype=np.float32)
    drawn = (values > 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    nucleus, i, j = drawn.nonzero()
    np.maximum.at(nuclei, (y[nucleus, i, 0], x[nucleus, 0, j]), values[drawn])
    return nuclei


def simulate_nanoparticles(vessels: np.ndarray, nuclei: np.ndarray, physics: Physics | None = None) -> np.ndarray:
    """Nanoparticle signal in the steady state; (H, W) float32 in [0, 1].

    `vessels` and `nuclei` are (H, W) images in [0, 1] of any size, simulated
    or real. The result is c (1 + b rho) / (1 + b), so 1 means plasma
    concentration at full crowding. Raises ValueError for images that are not
    2-D, differ in shape, or leave [0, 1].
    """
    physics = physics or Physics()
    vessels = _checked_image("vessels", vessels)
    nuclei = _checked_image("nuclei", nuclei)
    if vessels.shape != nuclei.shape:
        expected = f"expected the shape of vessels {vessels.shape}"
        raise ValueError(f"nuclei: {expected}, got {nuclei.shape}")
    rho = local_crowding(nuclei, physics)
    concentration = solve_steady_state(
        diffusivity=physics.diffusivity * np.exp(-physics.hindrance * rho),
        removal=physics.clearance + physics.uptake * rho,
        exchange=physics.leakage * vessels,
        pixel=physics.pixel,
    )
    signal = concentration * (1 + physics.binding * rho)
    return (signal / (1 + physics.binding)).clip(0, 1).astype(np.float32)


def local_crowding(nuclei: np.ndarray, physics: Physics) -> np.ndarray:
    """rho (H, W) in [0, 1]: twice the share of nuclei around each pixel, at
    most 1 (tight packing).
    """
    radius = physics.crowding_radius / physics.pixel
    return np.minimum(2 * gaussian_filter(nuclei, radius), 1)


def solve_steady_state(diffusivity: np.ndarray, removal: np.ndarray, exchange: np.ndarray, pixel: float) -> np.ndarray:
    """Solve div(D grad c) - k c + P v (1 - c) = 0 with no flux through the
    border; c (H, W).

    `diffusivity` D (µm²/s), `removal` k and `exchange` P v (1/s) are (H, W);
    `pixel` in µm. Cell-centred finite volumes: the flux between two pixels
    sees the harmonic mean of their diffusivities, and the error falls with the
    square of the pixel.

    The symmetric system A c = P v is solved by conjugate gradients,
    preconditioned with a scaled Helmholtz operator of constant coefficients
    (Concus and Golub, SIAM J Numer Anal 10:1103 (1973)): S^-1 (m - Laplace)
    S^-1, S diagonal, m a number. A cosine transform inverts it exactly, and
    the number of iterations does not grow with the image. Raises
    ArithmeticError where they do not converge.
    """
    shape = height, width = diffusivity.shape
    # Conductance from each pixel to the next column and to the next row.
    right, below = np.zeros(shape), np.zeros(shape)
    resistance = 1 / diffusivity
    right[:, :-1] = 2 / (resistance[:, 1:] + resistance[:, :-1]) / pixel**2
    below[:-1] = 2 / (resistance[1:] + resistance[:-1]) / pixel**2
    loss = removal + exchange
    centre = loss + right + below
    centre[:, 1:] += right[:, :-1]
    centre[1:] += below[:-1]
    east, south = -right.ravel()[:-1], -below.ravel()[:-width]
    diagonals = [centre.ravel(), east, east, south, south]
    system = sparse.diags(diagonals, [0, 1, -1, width, -width])

    # At wave number w, A is D w² + loss and the Helmholtz operator w² + m;
    # with s² = (w² + m) / (D w² + loss), both agree there in every pixel.
    m = np.exp(np.log(loss / diffusivity).mean())
    w_squared = (2 * np.pi / VESSEL_WAVELENGTH) ** 2
    s = np.sqrt((w_squared + m) / (diffusivity * w_squared + loss))
    rows, cols = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in shape)
    helmholtz = (rows[:, None] + cols) / pixel**2 + m  # in the cosine basis

    def precondition(residual):
        modes = dctn(s * residual.reshape(shape), norm="ortho") / helmholtz
        return (s * idctn(modes, norm="ortho")).ravel()

    inverse = LinearOperator(system.shape, matvec=precondition, dtype=float)
    source = exchange.ravel()
    solution, failed = cg(system, source, rtol=1e-9, maxiter=2000, M=inverse)
    if failed:
        found = f"steady state not reached in {failed} iterations"
        raise ArithmeticError(f"{found}; are the constants physical?")
    return solution.reshape(shape)


def _checked_image(name, image):
    image = np.asarray(image, dtype=float)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"{name}: expected a 2-D image (H, W), got shape {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"{name}: expected values in [0, 1], got [{image.min():g}, {image.max():g}]")
    return image
