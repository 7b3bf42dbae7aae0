"""Intensities, slices and windows: every step against its inverse."""

import numpy as np
import pytest

from damm_lite.brains.volumes import Frame, IntensityScale, frame_brain, planes, robust_scale, to_slices, to_volume


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_normalising_and_back(rng):
    volume, mask = rng.normal(300, 200, (12, 10, 8)), rng.random((12, 10, 8)) < 0.6
    scale = robust_scale(volume, mask)._replace(values=(-1.0, -0.5, 0.7, 1.0))
    volume = volume.clip(scale.intensities[0], scale.intensities[-1])
    assert scale.intensities[0] < 0  # negative voxels are real
    x = scale.normalise(volume, mask)
    assert x.dtype == np.float32 and (x[~mask] == -1).all()
    assert x[mask].min() == pytest.approx(-1) and x[mask].max() == pytest.approx(1)
    back = scale.restore(x, mask)
    np.testing.assert_allclose(back[mask], volume[mask], atol=1e-3)
    assert (back[~mask] == 0).all() and np.isfinite(back).all()


def test_the_range_is_robust(rng):
    volume, mask = rng.normal(500, 50, (30, 30, 30)), np.zeros((30, 30, 30), bool)
    mask[5:25, 5:25, 5:25] = True
    expected = robust_scale(volume, mask)
    assert expected.intensities == tuple(np.percentile(volume[mask], [0.5, 5, 95, 99.5]))
    assert np.mean(abs(expected.normalise(volume, mask)[mask]) <= 0.8) == pytest.approx(0.9, abs=0.001)
    spiked = volume.copy()
    spiked[5:7, 5, 5] = 1e5  # a hot voxel or two change next to nothing
    spiked[~mask] = -1e5  # and what is outside nothing at all
    assert robust_scale(spiked, mask).intensities == pytest.approx(expected.intensities, rel=0.01)
    # Another scanner's units give the same picture.
    other = robust_scale(3 * volume - 100, mask)
    np.testing.assert_allclose(other.normalise(3 * volume - 100, mask), expected.normalise(volume, mask), atol=1e-4)


def test_more_fluid_hardly_moves_the_tissue(rng):
    """A brain with ten times the dark fluid has the same tissue: two percentiles alone would move it."""
    tissue, mask, found = rng.normal(500, 50, (20, 20, 20)), np.ones((20, 20, 20), bool), []
    for share in (0.003, 0.03):
        volume = np.where(rng.random(tissue.shape) < share, 100, tissue)
        scale = robust_scale(volume, mask)
        ends = IntensityScale(scale.intensities[::3])
        found.append([s.normalise(500.0, True) for s in (scale, ends)])
    (few, few_ends), (many, many_ends) = found
    assert abs(many - few) < 0.1 and many_ends - few_ends > 0.3


def test_there_must_be_something_to_scale():
    with pytest.raises(ValueError, match="empty mask"):
        robust_scale(np.ones((4, 4, 4)), np.zeros((4, 4, 4), bool))
    with pytest.raises(ValueError, match="constant 7"):
        robust_scale(np.full((4, 4, 4), 7), np.ones((4, 4, 4), bool))


def test_slices_are_seen_as_radiologists_do(rng):
    volume = rng.random((5, 6, 7))
    assert to_slices(volume).shape == (7, 6, 5)
    np.testing.assert_array_equal(to_volume(to_slices(volume)), volume)
    marked = np.zeros((5, 6, 7))
    marked[4, 5, 6] = 1  # rightmost, foremost, uppermost
    assert np.argwhere(to_slices(marked)).tolist() == [[6, 0, 0]]  # last slice, top, left


def test_a_window_of_full_size_is_the_image_itself(rng):
    slices = rng.random((3, 40, 30)).astype(np.float32)
    frame = Frame((3, 40, 30), (4, 28), (2, 26), 24)
    cut = frame.cut(slices, fill=-1)
    np.testing.assert_array_equal(cut, slices[:, 4:28, 2:26])
    back = frame.paste(cut, np.ones_like(cut), fill=-1)
    np.testing.assert_array_equal(back[:, 4:28, 2:26], cut)
    assert (back[:, :4] == -1).all() and (back[:, :, 26:] == -1).all()


@pytest.mark.parametrize("rows, columns", [((-5, 45), (-10, 40)), ((-5, 20), (20, 45)), ((30, 60), (-20, 10))])
def test_a_window_may_reach_beyond_the_image(rng, rows, columns):
    slices, size = rng.random((2, 40, 30)).astype(np.float32), rows[1] - rows[0]
    columns = (columns[0], columns[0] + size)
    frame = Frame(slices.shape, rows, columns, size)
    cut = frame.cut(slices, fill=7)
    padded = np.pad(slices, [(0, 0), (50, 50), (50, 50)], constant_values=7)
    np.testing.assert_array_equal(cut, padded[:, rows[0] + 50 : rows[1] + 50, columns[0] + 50 : columns[1] + 50])
    back = frame.paste(cut, np.ones_like(cut), fill=7)
    inside = np.zeros((40, 30), bool)
    inside[max(rows[0], 0) : max(rows[1], 0), max(columns[0], 0) : max(columns[1], 0)] = True
    np.testing.assert_array_equal(back, np.where(inside, slices, 7))


def test_resizing_keeps_places_and_the_rim_of_the_brain():
    y, x = np.mgrid[:96, :96]
    brain = (np.hypot(y - 50, x - 44) < 38)[None]
    image = np.where(brain, 0.5 + 0.004 * (y - x), -1).astype(np.float32)
    frame = frame_brain(brain, (2.0, 2.0), 48)
    assert frame.size == 48 and frame.rows[1] - frame.rows[0] == 96
    mask = frame.cut(brain, fill=0) > 0.5
    small = np.where(mask, frame.cut(image, fill=-1), -1)
    back = frame.paste(small, mask, fill=-1)
    error = np.abs(back - image)[brain]
    assert error.mean() < 0.03  # without continuing the picture, the rim would darken by 0.3
    centre = np.argwhere(mask[0]).mean(axis=0)
    np.testing.assert_allclose(centre, (47 / 2, 47 / 2), atol=0.6)  # the brain is in the middle


def test_the_window_is_square_in_millimetres_and_never_cuts():
    brain = np.zeros((4, 100, 80), bool)
    brain[1:3, 20:60, 30:50] = True
    frame = frame_brain(brain, (1.5, 3.0), 64)
    assert [round((b - a) * zoom) for (a, b), zoom in ((frame.rows, 1.5), (frame.columns, 3.0))] == [192, 192]
    assert sum(frame.rows) == 80 and sum(frame.columns) == 80
    head = np.ones((4, 250, 200), bool)  # not skull-stripped
    frame = frame_brain(head, (1.0, 1.0), 64)
    assert frame.rows == (0, 250) and frame.columns == (-25, 225)


def test_planes_meet_in_their_voxel(rng):
    volume = rng.random((5, 6, 7))
    x, y, z = 1, 4, 2
    axial, coronal, sagittal = planes(volume, (x, y, z))
    np.testing.assert_array_equal(axial, to_slices(volume)[z])
    assert (axial.shape, coronal.shape, sagittal.shape) == ((6, 5), (7, 5), (7, 6))
    assert axial[5 - y, 4 - x] == coronal[6 - z, 4 - x] == sagittal[6 - z, 5 - y] == volume[x, y, z]
    assert coronal[0, 0] == volume[4, y, 6]  # top left: right side, above
    assert sagittal[0, 0] == volume[x, 5, 6]  # top left: front, above
