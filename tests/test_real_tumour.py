"""A real tumour, region by region: what is trained on, what is scored, and that neither sees the other."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from damm_lite.experiments import real_tumour
from damm_lite.experiments.real_tumour import BUDGET, KINDS, REGIONS, STAINS

TINY = replace(BUDGET, steps=2, batch_size=4, num_steps=2, num_samples=2)


def write_plane(path, rng, rows=520, margin=20):
    """A plane whose particle is a known function of its nuclei; nothing within `margin` of the border."""
    tissue = np.zeros((rows, 440))
    tissue[margin:-margin, margin:-margin] = 1
    nuclei = 2000 * tissue * (1 + gaussian_filter(rng.standard_normal(tissue.shape), 6) * 8).clip(0.3, 3)
    vessels = 4000.0 * tissue * (gaussian_filter(rng.standard_normal(tissue.shape), 3) > 0.12)
    planes = np.stack([vessels, nuclei, nuclei / 2]).astype(np.uint16)
    about = {"axes": "CYX", "Channel": {"Name": ["CD31", "Syto16", "virus"]}}
    about |= {f"PhysicalSize{axis}": 4.0 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    tifffile.imwrite(path, planes, ome=True, metadata=about)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("planes"), np.random.default_rng(0)
    for depth in range(3):
        write_plane(folder / f"plane{depth}.ome.tif", rng)
    return folder


@pytest.fixture(scope="module")
def tumour(folder):
    return real_tumour.read_tumour(folder)


def test_tissue_is_found(tumour):
    assert tumour.tissue[30:-30, 30:-30].all() and not tumour.tissue[:10].any() and not tumour.tissue[:, -10:].any()
    assert 0 < tumour.far.sum() < tumour.tissue.sum()
    assert not (tumour.far & ~tumour.tissue).any()


def test_regions_have_as_much_tissue_and_none_in_common(tumour):
    regions = real_tumour.regions_of(tumour.tissue)
    assert len(regions) == REGIONS and all(one.stop == other.start for one, other in pairwise(regions))
    shares = [tumour.tissue[rows.start : rows.stop].sum() / tumour.tissue.sum() for rows in regions]
    assert shares == pytest.approx([1 / REGIONS] * REGIONS, abs=0.02) and sum(shares) > 0.99


def test_windows_keep_away_from_the_border_and_from_background(tumour):
    rows = real_tumour.regions_of(tumour.tissue)[1]
    corners = real_tumour.windows(tumour.tissue, rows, 32, 4)
    assert corners
    for row, col in corners:
        assert rows.start + real_tumour.GAP <= row and row + 32 + real_tumour.GAP <= rows.stop
        assert tumour.tissue[row : row + 32, col : col + 32].mean() >= real_tumour.TISSUE


def test_training_sees_no_pixel_of_the_other_regions(tumour):
    """With other values there, what is trained on is the same, its scale too."""
    regions = real_tumour.regions_of(tumour.tissue)
    items = real_tumour.training_items(tumour, regions[2:], TINY)
    images = {role: planes.copy() for role, planes in tumour.images.items()}
    for planes in images.values():
        planes[:, : regions[1].stop] = 0.9
    other = real_tumour.training_items(tumour._replace(images=images), regions[2:], TINY)
    for one, same in zip(items, other, strict=True):
        assert all(torch.equal(one[role], same[role]) for role in STAINS)
    assert len(items) == TINY.steps * TINY.batch_size


def test_kinds_of_nuclei(tumour):
    regions = real_tumour.regions_of(tumour.tissue)
    batches = real_tumour.batches_of(tumour, regions[2:], regions[0], "region 1", 32)
    assert tuple(batches) == KINDS
    for kind, batch in batches.items():
        assert all(torch.equal(batch[key], batches["none"][key]) for key in ("target", "primary", "mask"))
        assert torch.equal(batch["secondary"], batches["none"]["secondary"]) == (kind == "none")
        assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0} and set(batch["case"]) == {"region 1"}
    corner = real_tumour.windows(tumour.tissue, regions[0], 32, 32)[0]
    beside = (corner[0], corner[1] - real_tumour.MOVED)
    nuclei = real_tumour.scaled(tumour, regions[2:])["secondary"][1]
    assert torch.equal(batches["shift"]["secondary"][0], real_tumour.cut(nuclei, beside, 32))
    elsewhere = batches["elsewhere"]["secondary"]
    assert not (elsewhere == batches["none"]["secondary"]).flatten(1).all(dim=1).any()


def test_a_particle_that_follows_the_nuclei_is_found_by_them_alone(tumour, tmp_path):
    table = real_tumour.run("untrained", tumour, 1, TINY, tmp_path)
    psnr = table[table["kind"] == "none"].set_index("method")["psnr"]
    assert psnr["nuclei, pixel by pixel"] > 30 > 20 > psnr["distance"] > psnr["constant"] - 1
    wrong = table[table["kind"] == "shift"].set_index("method")["psnr"]
    assert wrong["distance"] == psnr["distance"] and wrong["nuclei, pixel by pixel"] < 20


@pytest.mark.parametrize("name", ["regression, nuclei", "ours"])
def test_a_tiny_run(tumour, tmp_path, name):
    table = real_tumour.run(name, tumour, 4, TINY, tmp_path / "run")
    assert set(table["case"]) == {"region 5"}
    full = table[table["method"] == (name if name != "ours" else "ours, patch")]
    assert set(full["kind"]) == set(KINDS)
    assert np.isfinite(full[["ssim", "psnr", "mae", "crps", "covered_widened"]].to_numpy()).all()
    again = real_tumour.run(name, tumour, 4, TINY, tmp_path / "run")  # is trained already
    pd.testing.assert_frame_equal(table, again)


def test_planes_of_several_sizes_are_refused(tmp_path):
    for rows in (520, 500):
        write_plane(tmp_path / f"plane{rows}.ome.tif", np.random.default_rng(1), rows)
    with pytest.raises(ValueError, match="expected planes of one size"):
        real_tumour.read_tumour(tmp_path)


def test_the_mouse_tumour_is_cut_into_five_regions(shared):
    tumour = real_tumour.read_tumour(shared / "data" / "lightsheet")
    assert tumour.images["target"].shape == (8, 757, 573)
    assert tumour.tissue.mean() == pytest.approx(0.453, abs=0.005)
    regions = real_tumour.regions_of(tumour.tissue)
    assert min(len(real_tumour.windows(tumour.tissue, rows, 32, 32)) for rows in regions) >= 20
