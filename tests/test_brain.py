"""The brain phantom: anatomy where it belongs, contrasts as expected, divergences that hit one contrast only."""

import numpy as np
import pytest
import torch

from damm_lite.brains.anatomy import draw_brain, draw_head
from damm_lite.brains.shapes import covered, covered_by_sheet, displace, ellipsoid, grid, smooth_field, tube
from damm_lite.brains.synthetic import (
    BRAIN_DIVERGENCES,
    SLICES,
    SyntheticBrains,
    draw_patient,
    later,
    scan,
    tissues_of,
)


@pytest.fixture(scope="module")
def heads():
    """Mean tissue fractions (3, X, Y, Z) of a few heads, and one of them."""
    drawn = [draw_brain(draw_head(np.random.default_rng(i))) for i in range(6)]
    return np.mean(drawn, axis=0), drawn[0]


def at(fractions, x, y, z):
    """Fractions at a point in mm, averaged over both sides."""
    points = grid(3.0)
    away = [np.linalg.norm(points - np.reshape((side * x, y, z), (3, 1, 1, 1)), axis=0) for side in (1, -1)]
    return np.mean([fractions.reshape(3, -1)[:, np.argmin(a)] for a in away], axis=0)


def test_structures_lie_where_anatomists_expect(heads):
    mean, _ = heads
    csf, grey, white = 0, 1, 2
    assert at(mean, 24, -46, 10)[csf] > 0.6  # atrium of the lateral ventricle
    assert at(mean, 7, 12, 14)[csf] > 0.5  # its frontal horn
    assert at(mean, 11, -18, 7)[grey] > 0.6  # thalamus
    assert at(mean, 27, 3, 1)[grey] > 0.5  # putamen
    assert at(mean, 24, 0, 36)[white] > 0.8  # centrum semiovale
    assert at(mean, 1, 27, 6)[white] > 0.5  # genu of the corpus callosum
    assert at(mean, 0, -70, 40)[white] < 0.3  # fissure between the hemispheres, with its cortex
    assert at(mean, 90, 0, 0).sum() == 0  # outside


def test_volumes_are_those_of_an_adult(heads):
    _, one = heads
    litres = one.sum(axis=(1, 2, 3)) * 27e-6
    assert 1.2 < litres.sum() < 1.9
    assert 0.4 < litres[1] < 0.9 and 0.4 < litres[2] < 0.9  # grey, white
    assert one.min() >= -1e-12 and one.sum(axis=0).max() <= 1 + 1e-12


def test_cortex_is_folded(heads):
    _, one = heads
    points = grid(3.0)
    shell = ellipsoid(points, (0, -17, 10), (58, 76, 56))
    ring = one[:, (np.abs(shell) < 2) & (points[2] > 10)]  # under the surface it goes back and forth
    assert (ring[1] > 0.5).mean() > 0.25 and (ring[2] > 0.5).mean() > 0.15 and (ring[0] > 0.3).mean() > 0.02


def test_a_head_does_not_depend_on_the_voxel():
    head = draw_head(np.random.default_rng(3))
    coarse, fine = draw_brain(head, 4.0), draw_brain(head, 2.0)
    pooled = fine.reshape(3, 48, 2, 48, 2, 36, 2).mean(axis=(2, 4, 6))
    for a, b in zip(coarse, pooled, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.85
        assert a.sum() == pytest.approx(b.sum(), rel=0.2)


def test_distances_and_coverage():
    points = np.stack(np.meshgrid(*[np.linspace(-20, 20, 41)] * 3, indexing="ij"))
    r = np.linalg.norm(points, axis=0)
    np.testing.assert_allclose(ellipsoid(points, (0, 0, 0), (9, 9, 9)), r - 9, atol=1e-5)
    capsule = tube(points, np.array([[0, 0, -10, 3.0], [0, 0, 10, 3.0]]))
    x, y, z = points
    expected = np.hypot(np.hypot(x, y), np.maximum(np.abs(z) - 10, 0)) - 3
    assert np.abs(capsule - expected)[np.abs(expected - 7) < 8].max() < 0.1
    assert covered(np.array([-5.0, 0.0, 5.0]), 3.0).tolist() == [1, 0.5, 0]
    fine = np.linspace(-1.5, 1.5, 30001)
    for distance in (0.0, 0.4, 1.3, 1.9, 3.0):
        for half_width in (0.3, 1.0, 2.0):
            inside = (np.abs(fine + distance) < half_width).mean()
            assert covered_by_sheet(np.array(distance), half_width, 3.0) == pytest.approx(inside, abs=1e-3)


def test_a_mass_pushes_aside_and_keeps_volume():
    h = 1e-3
    p = np.array([11.0, 4.0, -7.0])

    def before(q):
        return displace(q.reshape(3, 1, 1, 1), (1.0, 2.0, 3.0), 8.0).ravel()

    jacobian = np.stack([(before(p + h * e) - before(p - h * e)) / (2 * h) for e in np.eye(3)], axis=1)
    assert np.linalg.det(jacobian) == pytest.approx(1, rel=1e-4)
    s, now = (np.linalg.norm(q - (1, 2, 3)) for q in (before(p), p))
    assert now**3 == pytest.approx(s**3 + 8**3)


def test_random_fields_have_their_wavelength():
    field = smooth_field(np.random.default_rng(0), 24.0)
    assert field.std() == pytest.approx(1) and field.shape == (48, 48, 36)
    power = np.abs(np.fft.fftn(field)) ** 2
    f = np.linalg.norm(np.meshgrid(*(np.fft.fftfreq(n, 4.0) for n in field.shape), indexing="ij"), axis=0)
    assert (power * f).sum() / power.sum() == pytest.approx(1 / 24, rel=0.2)


@pytest.fixture(scope="module")
def scanned():
    patient = draw_patient(np.random.default_rng([7, 0]))
    return patient, tissues_of(patient)[0], scan(np.random.default_rng(1), patient)


def test_scan(scanned):
    _, _, found = scanned
    assert set(found.images) == {"t1", "t1ce", "t2", "flair"}
    assert found.mask.shape == (64, 64, 48) and found.mask.mean() > 0.2
    assert set(np.unique(found.labels)) <= {0, 1, 2, 4} and not found.labels[~found.mask].any()
    for image in found.images.values():
        assert np.isfinite(image).all() and (image[~found.mask] == 0).all() and (image[found.mask] > 0).all()
    np.testing.assert_allclose(found.affine @ [0, 0, 0, 1], [-94.5, -110.5, -62.5, 1])


def test_images_have_the_contrasts(scanned):
    _, tissues, found = scanned

    def level(contrast, tissue):
        return np.median(found.images[contrast][tissues[tissue] > 0.9])

    assert level("t1", "white") > level("t1", "grey") > level("t1", "csf")
    assert level("t2", "csf") > level("t2", "oedema") > level("t2", "grey") > level("t2", "white")
    assert level("flair", "oedema") > 1.3 * level("flair", "white") > 5 * level("flair", "csf")
    assert level("t1ce", "rim") > 1.4 * level("t1ce", "white")
    assert level("t1", "rim") < level("t1", "white")


def test_the_glioma_grows_between_two_visits(scanned):
    patient, _, first = scanned
    second = scan(np.random.default_rng(1), later(patient, patient.growth.radius + 5))
    core = [np.isin(found.labels, (1, 4)) for found in (first, second)]
    assert core[1].sum() > 1.3 * core[0].sum() and (core[0] & core[1]).sum() > 0.8 * core[0].sum()
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.fixture(scope="module")
def data():
    return SyntheticBrains(SLICES, 64, seed=5, divergent_fraction=0.7)


def test_items(data):
    items = list(data)
    for item in items:
        for key in ("target", "primary", "secondary", "mask", "lesion"):
            assert item[key].shape == (1, 64, 64) and item[key].dtype == torch.float32
        for key in ("target", "primary", "secondary"):
            assert item[key].min() >= -1 and item[key].max() <= 1
            if (key, item["kind"]) not in (("secondary", "shift"), ("secondary", "patient")):
                assert (item[key][item["mask"] == 0] == -1).all()
        assert ((item["lesion"] == 0) | (item["lesion"] == 1)).all() and (item["lesion"] <= item["mask"]).all()
        assert item["divergent"] == (item["kind"] != "none") and item["segmented"]
        assert item["mask"].mean() > 0.1
    assert {item["kind"] for item in items} == {"none", *BRAIN_DIVERGENCES}
    assert len({item["slice"] for item in items}) == SLICES
    assert {item["case"] for item in items} == {"phantom-5-00000"}
    assert sum(float(item["lesion"].sum()) for item in items) > 100


def test_a_slice_is_a_function_of_seed_and_index(data):
    again = SyntheticBrains(1, 64, seed=5, divergent_fraction=0.7)[0]
    for key, value in data[0].items():
        assert torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key]
    other = SyntheticBrains(1, 64, seed=6, divergent_fraction=0.7)[0]
    assert not torch.equal(data[0]["target"], other["target"])


def test_divergence_leaves_the_rest_alone(data):
    clean = SyntheticBrains(SLICES, 64, seed=5, divergent_fraction=0)
    for i in range(SLICES):
        item, expected = data[i], clean[i]
        for key in ("target", "primary", "mask", "lesion", "slice"):
            assert torch.equal(torch.as_tensor(item[key]), torch.as_tensor(expected[key]))
        difference = float((item["secondary"] - expected["secondary"]).abs().mean())
        assert (difference > 0.02) == item["divergent"], (item["kind"], difference)
        if item["kind"] == "motion":  # ghosts blur, they do not make the image brighter
            assert item["secondary"].mean() == pytest.approx(float(expected["secondary"].mean()), abs=0.1)


def test_several_contrasts_and_other_sizes():
    item = SyntheticBrains(1, 32, 0, 1.0, target="t1ce", primary="flair", secondary=["t1", "t2"])[0]
    assert item["secondary"].shape == (2, 32, 32) and item["target"].shape == (1, 32, 32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 30}, "multiple of 4 pixels, got 30"),
        ({"divergent_fraction": 2}, r"\[0, 1\], got 2"),
        ({"target": "t2w"}, "unknown contrast 't2w'.*t1, t1ce, t2, flair"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticBrains(**({"n": 1, "size": 32, "seed": 0} | arguments))
    with pytest.raises(IndexError):
        SyntheticBrains(1, 32, 0)[1]


def test_items_are_copies(data):
    before = data[3]["target"].clone()
    data[3]["target"].zero_()
    assert torch.equal(data[3]["target"], before)
