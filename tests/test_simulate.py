"""The simulator against closed forms, conservation laws and its own promises."""

import numpy as np
import pytest
import torch

from damm_lite.tumours.simulate import (
    Physics,
    distance_to_vessels,
    simulate_nanoparticles,
    simulate_nuclei,
    simulate_vessels,
    smooth_noise,
    solve_steady_state,
)
from damm_lite.tumours.synthetic import DIVERGENCES, SyntheticTumours, misregister, random_region

D, K, P = 1.0, 1e-3, 5e-2  # µm²/s, 1/s, 1/s


def straight_vessel(x, half_width, length, diffusivity=D, removal=K, exchange=P):
    """Exact c(x) for a vessel |x| < half_width in uniform tissue, no flux at |x| = length.

    Inside D c'' - (k + P) c + P = 0, outside D c'' - k c = 0; c and c' continuous.
    """
    inner, outer = np.sqrt((removal + exchange) / diffusivity), np.sqrt(removal / diffusivity)
    plateau = exchange / (removal + exchange)
    # c = plateau - A cosh(inner x) inside, B cosh(outer (length - x)) outside
    w, tail = half_width, length - half_width
    system = [
        [np.cosh(inner * w), np.cosh(outer * tail)],
        [-inner * np.sinh(inner * w), outer * np.sinh(outer * tail)],
    ]
    a, b = np.linalg.solve(system, [plateau, 0])
    x = np.abs(x)
    return np.where(x < w, plateau - a * np.cosh(inner * x), b * np.cosh(outer * (length - x)))


def solve_straight(pixel, half_width=8.0, length=128.0):
    n = int(2 * length / pixel)
    x = (np.arange(n) + 0.5) * pixel - length
    vessel = (np.abs(x) < half_width).astype(float)
    shape = (8, n)
    c = solve_steady_state(np.full(shape, D), np.full(shape, K), np.broadcast_to(P * vessel, shape), pixel)
    return x, c


def test_profile_of_a_straight_vessel_is_second_order():
    errors = []
    for pixel in (4.0, 2.0, 1.0):
        x, c = solve_straight(pixel)
        assert np.ptp(c, axis=0).max() < 1e-6  # nothing varies along the vessel
        errors.append(np.abs(c[0] - straight_vessel(x, 8.0, 128.0)).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    assert (ratios > 3.5).all() and (ratios < 4.6).all(), (errors, ratios)
    assert errors[-1] < 1e-3


def test_decay_length_is_sqrt_of_d_over_k():
    # A domain so long that the border is not felt.
    x, c = solve_straight(1.0, length=512.0)
    far = (x > 20) & (x < 150)
    slope = np.polyfit(x[far], np.log(c[0, far]), 1)[0]
    assert slope == pytest.approx(-1 / np.sqrt(D / K), rel=1e-3)


def test_flux_through_layers_of_two_diffusivities():
    # Pure diffusion across two layers between an absorbing and a feeding strip: the flux is
    # the same in both, so the slopes go as 1 / D.
    n, pixel = 200, 1.0
    diffusivity = np.where(np.arange(n) < n // 2, 1.0, 0.2) * np.ones((4, 1))
    removal, exchange = np.full((4, n), 1e-12), np.zeros((4, n))
    removal[:, 0], exchange[:, -1] = 10.0, 10.0
    c = solve_steady_state(diffusivity, removal, exchange, pixel)[0]
    slopes = np.diff(c)
    assert slopes[20:80] == pytest.approx(slopes[50], rel=1e-4)
    assert slopes[120:180].mean() / slopes[20:80].mean() == pytest.approx(5.0, rel=1e-3)


def test_what_leaks_in_is_what_is_removed(rng):
    shape = (24, 40)
    diffusivity, removal = rng.uniform(0.1, 1, shape), rng.uniform(1e-4, 1e-2, shape)
    exchange = 0.05 * (rng.random(shape) < 0.1)
    c = solve_steady_state(diffusivity, removal, exchange, 2.0)
    assert (exchange * (1 - c)).sum() == pytest.approx((removal * c).sum(), rel=1e-6)
    assert c.min() >= 0 and c.max() <= 1


def test_agrees_with_a_direct_solver(rng):
    import scipy.sparse as sparse
    from scipy.sparse.linalg import spsolve

    height, width, pixel = 9, 13, 2.0
    diffusivity, removal = rng.uniform(0.1, 1, (height, width)), rng.uniform(1e-4, 1e-2, (height, width))
    exchange = 0.05 * rng.random((height, width))
    system, index = sparse.lil_matrix((height * width,) * 2), np.arange(height * width).reshape(height, width)
    for y in range(height):
        for x in range(width):
            i = index[y, x]
            system[i, i] += removal[y, x] + exchange[y, x]
            for y2, x2 in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= y2 < height and 0 <= x2 < width:
                    a, b = diffusivity[y, x], diffusivity[y2, x2]
                    conductance = 2 * a * b / (a + b) / pixel**2
                    system[i, i] += conductance
                    system[i, index[y2, x2]] -= conductance
    expected = spsolve(system.tocsr(), exchange.ravel()).reshape(height, width)
    np.testing.assert_allclose(solve_steady_state(diffusivity, removal, exchange, pixel), expected, atol=1e-8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("size", [12, 64, (33, 70), (256, 16)])
def test_images_of_any_size(rng, size):
    vessels = simulate_vessels(rng, size)
    nuclei = simulate_nuclei(rng, vessels)
    nanoparticles = simulate_nanoparticles(vessels, nuclei)
    for image in (vessels, nuclei, nanoparticles):
        assert image.shape == tuple(np.broadcast_to(size, 2)) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
    assert vessels.max() > 0.5
    assert nuclei[vessels == 1].max(initial=0) == 0


def test_physics_in_words(rng):
    vessels, nuclei = simulate_vessels(rng, 64), np.zeros((64, 64))
    crowded = np.ones((64, 64))
    free = simulate_nanoparticles(vessels, nuclei, Physics(binding=0))
    assert simulate_nanoparticles(vessels, crowded, Physics(binding=0)).mean() < free.mean()
    assert simulate_nanoparticles(vessels, nuclei, Physics(binding=0, leakage=0.5)).mean() > free.mean()
    assert simulate_nanoparticles(vessels, nuclei, Physics(binding=0, clearance=3e-3)).mean() < free.mean()
    # Twice the pixel, four times the diffusivity: the same physics.
    scaled = Physics(binding=0, pixel=4.0, diffusivity=4.0)
    np.testing.assert_allclose(simulate_nanoparticles(vessels, nuclei, scaled), free, atol=1e-6)


def test_no_vessels_no_particles():
    assert simulate_nanoparticles(np.zeros((16, 16)), np.ones((16, 16))).max() == 0


@pytest.mark.parametrize(
    "vessels, nuclei, message",
    [
        (np.zeros((8, 8, 3)), np.zeros((8, 8)), r"vessels.*2-D.*\(8, 8, 3\)"),
        (np.zeros((8, 8)), np.zeros((8, 12)), r"nuclei.*\(8, 8\).*\(8, 12\)"),
        (np.zeros((8, 8)), np.full((8, 8), np.nan), "nuclei.*NaN"),
        (np.full((8, 8), 255.0), np.zeros((8, 8)), r"vessels.*\[0, 1\].*255"),
    ],
)
def test_bad_images_are_named(vessels, nuclei, message):
    with pytest.raises(ValueError, match=message):
        simulate_nanoparticles(vessels, nuclei)


def test_dataset_is_a_function_of_seed_and_index():
    few, many = SyntheticTumours(3, 16, seed=5), SyntheticTumours(50, 16, seed=5)
    for key, value in few[2].items():
        assert torch.equal(value, many[2][key]) if torch.is_tensor(value) else value == many[2][key]
    assert not torch.equal(few[2]["target"], SyntheticTumours(3, 16, seed=6)[2]["target"])
    assert not torch.equal(few[2]["target"], few[1]["target"])


def test_dataset_contract():
    data = SyntheticTumours(200, 16, seed=1)
    items = list(data)
    assert len(items) == len(data) == 200
    for item in items:
        for key in ("target", "primary", "secondary"):
            x = item[key]
            assert x.shape == (1, 16, 16) and x.dtype == torch.float32
            assert x.min() >= -1 and x.max() <= 1
        assert item["divergent"] == (item["kind"] != "none")
    kinds = [item["kind"] for item in items]
    assert set(kinds) == {"none", *DIVERGENCES}
    assert 75 <= kinds.count("none") <= 125
    assert all(item["kind"] == "none" for item in SyntheticTumours(20, 16, 1, divergent_fraction=0))
    assert all(item["divergent"] for item in SyntheticTumours(20, 16, 1, divergent_fraction=1))


def test_divergence_changes_what_it_should(rng):
    physics = Physics()
    vessels = simulate_vessels(rng, 64)
    nuclei = simulate_nuclei(rng, vessels)
    pairs = {kind: pair(rng, vessels, nuclei, physics) for kind, pair in DIVERGENCES.items()}
    for kind, (imaged, acting) in pairs.items():
        assert not np.array_equal(imaged, acting), kind
        assert np.array_equal(acting, nuclei) == (kind != "necrosis"), kind
    imaged, _ = pairs["dropout"]
    assert ((imaged == nuclei) | (imaged == 0)).all()
    imaged, alive = pairs["necrosis"]
    distance = distance_to_vessels(vessels, physics.pixel)
    assert distance[imaged != alive].min() > distance[alive > 0].mean()  # far from vessels
    assert imaged[imaged != alive].mean() > nuclei[imaged != alive].mean()  # and crowded with debris


def test_misregister_moves_by_whole_pixels(rng):
    image = rng.random((20, 30))
    moved = misregister(image, (3, -5))
    np.testing.assert_array_equal(moved[3:, :-5], image[:-3, 5:])
    np.testing.assert_array_equal(misregister(image, (0, 0)), image)
    np.testing.assert_array_equal(misregister(image, (-4, 0))[-4:], image[-4:][::-1])


def test_noise_has_unit_variance_at_any_size(rng):
    for size in (16, 64):
        assert np.std([smooth_noise(rng, (size, size), 5.0) for _ in range(100)]) == pytest.approx(1, abs=0.1)


def test_region_covers_its_fraction(rng):
    for fraction in (0.1, 0.5, 0.9):
        assert random_region(rng, (64, 64), fraction).mean() == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("arguments", [{"size": 30}, {"size": 0}, {"size": 16, "divergent_fraction": 1.5}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="expected"):
        SyntheticTumours(1, seed=0, **arguments)
