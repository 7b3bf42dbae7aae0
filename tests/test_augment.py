"""Versions of slices: geometry against scikit-image, grey values in their old order, and nothing left to chance."""

import numpy as np
import pytest
import torch
from skimage.transform import AffineTransform, warp

from damm_lite import augment
from damm_lite.augment import Augmented, bend, draw_affine

SIDE = 40


def blob(x, y, width):
    rows, cols = np.mgrid[:SIDE, :SIDE]
    image = np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    return torch.tensor(2 * image - 1, dtype=torch.float32)[None]


@pytest.fixture
def item():
    second = torch.cat([blob(16, 22, 4), blob(22, 15, 3)])
    return {
        "target": blob(18, 14, 3),
        "primary": blob(18, 14, 3),
        "secondary": second,
        "mask": blob(0, 0, 1),
        "case": "a",
    }


def test_an_item_depends_on_seed_and_index_alone(item):
    data, again = Augmented([item] * 3, copies=4, seed=5), Augmented([item] * 3, copies=4, seed=5)
    assert len(data) == 12 and list(data[0]) == ["target", "primary", "secondary"]
    for i in (11, 0, 7):
        assert all(torch.equal(data[i][key], again[i][key]) for key in data[i])
    different = [data[0], data[1], data[4], Augmented([item] * 3, copies=4, seed=6)[0]]
    assert all(not torch.equal(a["target"], b["target"]) for i, a in enumerate(different) for b in different[:i])


def test_a_version_is_one_of_its_slice(item):
    other = {key: -torch.ones_like(x) if torch.is_tensor(x) else x for key, x in item.items()}
    data = Augmented([item, other], copies=3)
    assert [bool((data[i]["target"] > -1).any()) for i in range(6)] == [True] * 3 + [False] * 3


def test_images_are_mapped_as_scikit_image_maps_them(item):
    rng = np.random.default_rng(0)
    for _ in range(20):
        affine = draw_affine(rng)
        ours = augment.warp(item["secondary"], affine)
        to_unit = np.array([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]])  # pixel -> -1 to 1
        matrix = np.linalg.inv(to_unit) @ np.vstack([affine.double().numpy(), [0, 0, 1]]) @ to_unit
        for mine, image in zip(ours, item["secondary"], strict=True):
            theirs = warp(image.double().numpy(), AffineTransform(matrix), order=1, cval=-1)
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4)


def test_the_images_of_a_slice_stay_together(item):
    """Target and primary, equal in the item, differ by a rising curve only."""
    for version in Augmented([item], copies=8):
        inside = version["target"] > -0.99
        target, primary = version["target"][inside], version["primary"][inside]
        gamma = torch.log((primary + 1) / 2) / torch.log((target + 1) / 2)
        assert gamma.max() - gamma.min() < 1e-3 and np.exp(-0.15) - 1e-3 < gamma.mean() < np.exp(0.15) + 1e-3
        assert (version["primary"][version["target"] == -1] == -1).all()


def test_versions_cover_what_they_should():
    maps = torch.stack([draw_affine(np.random.default_rng(i)) for i in range(400)])
    determinant = maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]
    assert 160 < (determinant < 0).sum() < 240, "half are mirrored"
    sizes, moves = determinant.abs().sqrt(), maps[:, :, 2].abs()
    assert 0.81 < sizes.min() < 0.88 and 1.12 < sizes.max() < 1.21 and 0.075 < moves.max() <= 0.08
    turns = torch.atan2(maps[:, 1, 0], maps[:, 1, 1])
    assert -0.2 <= turns.min() < -0.19 and 0.19 < turns.max() <= 0.2


def test_channels_get_a_gamma_of_their_own():
    image = torch.zeros(3, 4, 4)
    bent = bend(image, np.random.default_rng(0))
    assert len(bent.unique()) == 3 and bent.abs().max() < 0.15
    ends = torch.tensor([-1.0, 1.0]).expand(2, 2, 2)
    assert torch.equal(bend(ends, np.random.default_rng(0)), ends)


def test_wrong_arguments_are_named(item):
    with pytest.raises(ValueError, match="copies: expected at least 1, got 0"):
        Augmented([item], copies=0)
    with pytest.raises(IndexError):
        Augmented([item], copies=2)[2]
