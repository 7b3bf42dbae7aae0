"""Growth against Fisher's front, Fick's law and the logistic curve; the glioma's layers in their order."""

import numpy as np
import pytest

from damm_lite.brains.glioma import DENSE, Growth, compartments, grow, spread


def front(density, voxel):
    """Place in mm where the density falls through a half."""
    return voxel * np.interp(-0.5, -density, np.arange(len(density)))


def test_front_runs_at_fishers_speed():
    diffusivity, rate, voxel = 0.5, 0.02, 0.5
    speed, width = 2 * np.sqrt(diffusivity * rate), np.sqrt(diffusivity / rate)
    density = np.zeros(500)
    density[:10] = 1
    everywhere = np.full(500, diffusivity)
    early = spread(density, everywhere, rate, voxel, 300)
    late = spread(early, everywhere, rate, voxel, 500)
    # From a sharp start it comes up to speed slowly (Bramson 1983): x = c t - 3/2 L ln t
    expected = speed * 500 - 1.5 * width * np.log(800 / 300)
    assert front(late, voxel) - front(early, voxel) == pytest.approx(expected, rel=0.02)


def test_front_is_slower_in_grey_matter():
    grey, white = (spread(np.eye(1, 300)[0], np.full(300, d), 0.05, 1.0, 400) for d in (0.13, 0.65))
    assert front(white, 1.0) / front(grey, 1.0) == pytest.approx(np.sqrt(5), rel=0.1)


def test_without_growth_it_diffuses():
    density = np.zeros(401)
    density[200] = 1
    late = spread(density, np.full(401, 0.4), 0.0, 1.0, 300)
    x = np.arange(401) - 200
    assert late.sum() == pytest.approx(1)
    assert (late * x**2).sum() == pytest.approx(2 * 0.4 * 300, rel=1e-6)
    np.testing.assert_allclose(late, np.exp(-(x**2) / (4 * 0.4 * 300)) / np.sqrt(4 * np.pi * 0.4 * 300), atol=1e-4)


def test_without_diffusion_it_follows_the_logistic_curve():
    late = spread(np.array([0.1, 0.1]), np.full(2, 1e-3), 0.02, 1.0, 100)
    assert late[0] == pytest.approx(0.1 * np.exp(2) / (1 + 0.1 * (np.exp(2) - 1)), rel=0.06)
    finer = spread(np.array([0.1, 0.1]), np.full(2, 8.0), 0.02, 1.0, 100)  # the same, in far smaller steps
    assert finer[0] == pytest.approx(0.1 * np.exp(2) / (1 + 0.1 * (np.exp(2) - 1)), rel=1e-3)


def test_nothing_enters_fluid():
    diffusivity = np.full((20, 20), 0.5)
    diffusivity[:, 10:] = 0
    late = spread(np.full((20, 20), 0.3) * (diffusivity > 0), diffusivity, 0.1, 1.0, 50)
    assert late[:, :10].min() > 0.9 and late[:, 10:].max() == 0


@pytest.fixture(scope="module")
def half_grey():
    """White matter where x > 0, grey elsewhere; voxels of 2 mm."""
    axis = 2.0 * np.arange(-24, 25)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    white = (points[0] > -1).astype(float)
    growth = Growth(diffusivity=0.65, rate=0.1, radius=12.0, rim=4.0)
    return points, white, growth, grow(np.array([-1.0, 0, 0]), points, 1 - white, white, growth)


def test_growth_stops_at_the_wanted_size_and_prefers_white_matter(half_grey):
    points, white, growth, density = half_grey
    radius = np.cbrt((density > DENSE).sum() * 8 * 3 / (4 * np.pi))
    assert 12 <= radius < 14
    assert density.min() >= 0 and density.max() <= 1
    x = points[0][density > 0.3]
    assert x.max() > 1.3 * -x.min()


def test_layers_from_inside_out(half_grey):
    points, white, growth, density = half_grey
    csf = (points[1] > 14).astype(float)
    fractions = np.stack([csf, (1 - white) * (1 - csf), white * (1 - csf)])
    tissues = compartments(density, fractions, growth, voxel=2.0)
    np.testing.assert_allclose(sum(tissues.values()), 1)
    np.testing.assert_array_equal(tissues["csf"], csf)
    assert min(t.min() for t in tissues.values()) >= 0
    line = {name: t[24:, 24, 24] for name, t in tissues.items()}  # from the seed into white matter
    inner = {name: int(np.argmax(t > 0.5)) for name, t in line.items()}
    assert inner["necrosis"] == 0 < inner["rim"] < inner["oedema"] < inner["white"]
    assert line["rim"].sum() * 2 == pytest.approx(growth.rim, abs=2)
    assert tissues["oedema"][points[0] < -2].max() == 0  # swollen is white matter alone
