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


def test_images_are_mapped_as_the_map_says(item):
    """Against the formula of the blobs, asked at the places that the map names; linear sampling errs far more."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([cols, rows, np.ones_like(rows)]).reshape(3, -1)
    to_unit = np.array([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]])  # pixel -> -1 to 1
    rng, blobs = np.random.default_rng(0), [(16, 22, 4), (22, 15, 3)]  # those of item["secondary"]
    for _ in range(20):
        affine = draw_affine(rng)
        matrix = np.linalg.inv(to_unit) @ np.vstack([affine, [0, 0, 1]]) @ to_unit
        x, y, _ = (matrix @ pixels).reshape(3, SIDE, SIDE)
        near = (np.abs(2 * x / SIDE - 1) < 0.8) & (np.abs(2 * y / SIDE - 1) < 0.8)
        for mine, (u, v, width) in zip(augment.warp(item["secondary"], affine), blobs, strict=True):
            wanted = 2 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * width**2)) - 1
            linear = warp(blob(u, v, width)[0].double().numpy(), AffineTransform(matrix), order=1, cval=-1)
            ours, theirs = (np.square(image - wanted)[near].mean() ** 0.5 for image in (mine.numpy(), linear))
            assert ours < 5e-4 and ours < 0.2 * theirs


def test_values_stay_in_range_and_beyond_the_border_is_background():
    sharp = torch.full((1, SIDE, SIDE), -1.0)
    sharp[:, 10:30, 10:30] = 1
    away = np.array([[1.0, 0, 3], [0, 1, 0]])
    assert (augment.warp(sharp, away) == -1).all()
    turned = augment.warp(sharp, draw_affine(np.random.default_rng(1)))
    assert turned.min() == -1 and turned.max() == 1


def test_the_images_of_a_slice_stay_together(item):
    """Target and primary, equal in the item, differ by a rising curve only."""
    for version in Augmented([item], copies=8):
        inside = version["target"] > -0.99
        target, primary = version["target"][inside], version["primary"][inside]
        gamma = torch.log((primary + 1) / 2) / torch.log((target + 1) / 2)
        assert gamma.max() - gamma.min() < 1e-3 and np.exp(-0.15) - 1e-3 < gamma.mean() < np.exp(0.15) + 1e-3
        assert (version["primary"][version["target"] == -1] == -1).all()


def test_versions_cover_what_they_should():
    maps = torch.tensor(np.stack([draw_affine(np.random.default_rng(i)) for i in range(400)]))
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
