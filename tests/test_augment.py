"""Versions of slices: geometry against flips, turns and scipy, masks that follow, and nothing left to chance."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from skimage.transform import AffineTransform, warp

from damm_lite.brains.augment import Augmented, move_image, move_region, random_affine, random_gamma

SIDE = 40
MIDDLE = (SIDE - 1) / 2
BLOBS = [(16, 22, 4), (22, 15, 3)]  # x, y, width of those of the secondary image


def blob(x, y, width):
    rows, cols = np.mgrid[:SIDE, :SIDE]
    image = np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    return torch.tensor(2 * image - 1, dtype=torch.float32)[None]


@pytest.fixture
def item():
    return {
        "target": blob(18, 14, 3),
        "primary": blob(18, 14, 3),
        "secondary": torch.cat([blob(*one) for one in BLOBS]),
        "mask": (blob(18, 14, 8) > 0).float(),
        "lesion": (blob(18, 14, 3) > 0).float(),
        "segmented": True,
        "case": "a",
        "slice": 7,
    }


def about_the_middle(**changes):
    """A map of pixels that leaves the middle of the image where it is."""
    to_middle, back = (AffineTransform(translation=(side, side)) for side in (-MIDDLE, MIDDLE))
    return to_middle + AffineTransform(**changes) + back


def test_an_item_depends_on_seed_and_index_alone(item):
    data, again = Augmented([item] * 3, copies=4, seed=5), Augmented([item] * 3, copies=4, seed=5)
    assert len(data) == 12
    for i in (11, 0, 7):
        for key, value in data[i].items():
            assert torch.equal(value, again[i][key]) if torch.is_tensor(value) else value == again[i][key]
    different = [data[0], data[1], data[4], Augmented([item] * 3, copies=4, seed=6)[0]]
    assert all(not torch.equal(a["target"], b["target"]) for i, a in enumerate(different) for b in different[:i])


def test_every_key_is_kept_and_the_item_unchanged(item):
    before = {key: value.clone() if torch.is_tensor(value) else value for key, value in item.items()}
    version = Augmented([item], copies=1)[0]
    assert list(version) == list(item)
    for key, value in item.items():
        if torch.is_tensor(value):
            assert version[key].shape == value.shape and version[key].dtype == torch.float32
            assert torch.equal(value, before[key])
        else:
            assert version[key] == value
    only = {key: item[key] for key in ("target", "primary", "secondary")}
    assert list(Augmented([only], copies=1)[0]) == list(only)


def test_a_version_is_one_of_its_slice(item):
    other = {key: -torch.ones_like(x) if torch.is_tensor(x) else x for key, x in item.items()}
    data = Augmented([item, other], copies=3)
    assert [bool((data[i]["target"] > -1).any()) for i in range(6)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "to_old, expected",
    [
        (about_the_middle(scale=(-1, 1)), lambda x: x.flip(-1)),
        (about_the_middle(scale=(1, -1)), lambda x: x.flip(-2)),
        (about_the_middle(rotation=np.pi / 2), lambda x: x.rot90(1, (-2, -1))),
        (AffineTransform(translation=(3, -2)), lambda x: torch.roll(x, (2, -3), (-2, -1))),
    ],
    ids=["mirrored", "upside down", "turned", "moved"],
)
def test_whole_pixels_are_only_put_elsewhere(item, to_old, expected):
    """Exact, but for what a move brings in from beyond the border: background."""
    moved, wanted = move_image(item["secondary"], to_old), expected(item["secondary"])
    inside = slice(2, SIDE - 3)
    torch.testing.assert_close(moved[:, inside, inside], wanted[:, inside, inside], atol=1e-5, rtol=0)
    assert torch.equal(move_region(item["mask"], to_old)[:, inside, inside], expected(item["mask"])[:, inside, inside])


def test_images_are_mapped_as_the_map_says(item):
    """Against the formula of the blobs, taken at the places that the map names; linear interpolation errs far more."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([cols, rows, np.ones_like(rows)]).reshape(3, -1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        to_old = random_affine(rng, SIDE)
        x, y, _ = (to_old.params @ pixels).reshape(3, SIDE, SIDE)
        near = (np.abs(x - MIDDLE) < 0.8 * MIDDLE) & (np.abs(y - MIDDLE) < 0.8 * MIDDLE)
        for mine, (u, v, width) in zip(move_image(item["secondary"], to_old), BLOBS, strict=True):
            wanted = 2 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * width**2)) - 1
            linear = warp(blob(u, v, width)[0].double().numpy(), to_old, order=1, cval=-1)
            ours, theirs = (np.square(image - wanted)[near].mean() ** 0.5 for image in (mine.numpy(), linear))
            assert ours < 2e-3 and ours < 0.3 * theirs


def test_regions_are_moved_as_scipy_does_it(item):
    rng = np.random.default_rng(0)
    for _ in range(20):
        to_old = random_affine(rng, SIDE)
        matrix, offset = to_old.params[:2, :2][::-1, ::-1], to_old.params[:2, 2][::-1]  # scipy has rows first
        wanted = affine_transform(item["mask"][0].numpy(), matrix, offset, order=0)
        moved = move_region(item["mask"], to_old)
        assert moved.shape == (1, SIDE, SIDE) and set(moved.unique().tolist()) == {0, 1}
        assert np.abs(moved[0].numpy() - wanted).mean() < 2e-3  # but for pixels on the very edge


def test_values_stay_in_range_and_beyond_the_border_is_background():
    sharp = torch.full((1, SIDE, SIDE), -1.0)
    sharp[:, 10:30, 10:30] = 1
    away = AffineTransform(translation=(2 * SIDE, 0))
    assert (move_image(sharp, away) == -1).all() and not move_region((sharp + 1) / 2, away).any()
    turned = move_image(sharp, random_affine(np.random.default_rng(1), SIDE))
    assert turned.min() == -1 and turned.max() == 1


def test_the_images_of_a_slice_stay_together(item):
    """Target and primary, equal in the item, differ by a gamma only; mask and lesion lie on the target."""
    for version in Augmented([item], copies=8):
        inside = version["target"] > -0.99
        target, primary = version["target"][inside], version["primary"][inside]
        gamma = torch.log((primary + 1) / 2) / torch.log((target + 1) / 2)
        assert gamma.max() - gamma.min() < 1e-3 and np.exp(-0.15) - 1e-3 < gamma.mean() < np.exp(0.15) + 1e-3
        assert (version["primary"][version["target"] == -1] == -1).all()
        assert (version["lesion"] <= version["mask"]).all()
        assert version["target"][version["lesion"] == 1].min() > -0.5
        assert version["target"][version["lesion"] == 0].max() < 0.5


def test_versions_cover_what_they_should():
    maps = torch.tensor(np.stack([random_affine(np.random.default_rng(i), SIDE).params for i in range(400)]))
    determinant = maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]
    assert 160 < (determinant < 0).sum() < 240, "half are mirrored"
    sizes = determinant.abs().sqrt()
    assert 0.81 < sizes.min() < 0.88 and 1.12 < sizes.max() < 1.21
    middle = torch.tensor([MIDDLE, MIDDLE, 1], dtype=torch.float64)
    moves = ((maps @ middle - middle)[:, :2] / (SIDE / 2)).abs()
    assert 0.075 < moves.max() <= 0.08 + 1e-9
    turns = torch.atan2(-maps[:, 0, 1], maps[:, 1, 1])
    assert -0.2 <= turns.min() < -0.19 and 0.19 < turns.max() <= 0.2


def test_channels_get_a_gamma_of_their_own():
    image = torch.zeros(3, 4, 4)
    changed = random_gamma(image, np.random.default_rng(0))
    assert len(changed.unique()) == 3 and changed.abs().max() < 0.15
    ends = torch.tensor([-1.0, 1.0]).expand(2, 2, 2)
    assert torch.equal(random_gamma(ends, np.random.default_rng(0)), ends)


def test_wrong_arguments_are_named(item):
    with pytest.raises(ValueError, match="copies: expected at least 1, got 0"):
        Augmented([item], copies=0)
    with pytest.raises(IndexError):
        Augmented([item], copies=2)[2]
