"""Slides that stay on disk: what a slice gives is what `read_stain` gives of the whole."""

import sys

import numpy as np
import pytest
import tifffile
import torch

from damm_lite.schedules import scaled_linear_schedule
from damm_lite.tumours.slides import open_slide
from damm_lite.tumours.tiff import read_stain
from damm_lite.whole_slide import Tiling, predict_slide
from helpers import tiny

PIXELS = np.random.default_rng(0).integers(0, 4096, (2, 150, 220)).astype(np.uint16)
STORED = dict(photometric="minisblack", compression="zlib")
NAMES = dict(axes="CYX", Channel=dict(Name=["CD31", "DAPI"]), SignificantBits=12)


def pyramid(path):
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS, subifds=1, metadata=NAMES, tile=(64, 64), **STORED)
        tiff.write(PIXELS[:, ::2, ::2], subfiletype=1, tile=(64, 64), **STORED)


FILES = {
    "tiles.ome.tif": lambda path: tifffile.imwrite(path, PIXELS, metadata=NAMES, tile=(64, 64), **STORED),
    "strips.ome.tif": lambda path: tifffile.imwrite(path, PIXELS, metadata=NAMES, rowsperstrip=7, **STORED),
    "pyramid.ome.tif": pyramid,
    "slices.ome.tif": lambda path: tifffile.imwrite(
        path, PIXELS[None, :, None], metadata=NAMES | dict(axes="TCZYX"), tile=(32, 16), **STORED
    ),
    "imagej.tif": lambda path: tifffile.imwrite(
        path, PIXELS, imagej=True, metadata=dict(axes="CYX", Labels=["CD31", "DAPI"])
    ),
}


@pytest.fixture
def written(tmp_path):
    def write(name):
        FILES[name](tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("channel", ["CD31", "DAPI", 0, 1])
@pytest.mark.parametrize("name", FILES)
def test_a_slice_is_that_of_the_whole_channel(written, name, channel):
    path = written(name)
    whole = read_stain(path, channel)[None]
    with open_slide(path, channel) as slide:
        assert slide.shape == whole.shape == (1, 150, 220)
        for rows, columns in ((slice(None), slice(None)), (slice(3, 70), slice(60, 140)), (slice(140, 150), slice(9))):
            found = slide[:, rows, columns]
            assert found.dtype == slide.dtype == np.float32
            np.testing.assert_array_equal(found, whole[:, rows, columns])
        np.testing.assert_array_equal(slide[:, 20:30], whole[:, 20:30])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_file_of_one_channel_needs_no_name(tmp_path, photometric):
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, PIXELS[0], photometric=photometric, tile=(64, 64))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide[:, 5:99, 7:88][0], read_stain(path)[5:99, 7:88])


def test_a_slide_on_disk_is_predicted_as_its_arrays(written, tmp_path):
    path, tiling = written("tiles.ome.tif"), Tiling(64, 16, 4)
    arrays = [read_stain(path, name)[None] for name in ("CD31", "DAPI")]
    for name, use in {"a.tif": arrays, "b.tif": None}.items():
        torch.manual_seed(0)
        model = tiny()
        if use:
            predict_slide(model, scaled_linear_schedule(), *use, tmp_path / name, 1, tiling=tiling)
        else:
            with open_slide(path, "CD31") as vessels, open_slide(path, "DAPI") as nuclei:
                predict_slide(model, scaled_linear_schedule(), vessels, nuclei, tmp_path / name, 1, tiling=tiling)
    np.testing.assert_array_equal(*(tifffile.imread(tmp_path / name) for name in ("a.tif", "b.tif")))


@pytest.mark.parametrize(
    "pixels, options, channel, message",
    [
        (PIXELS, STORED, None, "one channel"),
        (PIXELS, STORED, "CD3", "no channel 'CD3'"),
        (np.zeros((64, 64, 3), np.uint8), dict(photometric="rgb"), None, "axes YXS"),
        (PIXELS[0], dict(photometric="minisblack", extratags=[(274, "H", 1, 6, True)]), None, "upright.*got 6"),
    ],
)
def test_what_is_no_channel_is_named(tmp_path, pixels, options, channel, message):
    path = tmp_path / "odd.tif"
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(ValueError, match=f"odd.tif: .*{message}"), open_slide(path, channel):
        pass


def test_values_are_refused_where_they_are_read(tmp_path):
    path, pixels = tmp_path / "real.tif", np.zeros((64, 64), np.float32)
    pixels[40, 40] = 3
    tifffile.imwrite(path, pixels, tile=(16, 16))
    with open_slide(path) as slide:
        assert not slide[:, :32, :32].any()
        with pytest.raises(ValueError, match=r"real.tif: expected pixels in \[0, 1\]"):
            slide[:, 32:, 32:]


def test_what_is_no_slice_of_pixels_is_named(written):
    with open_slide(written("tiles.ome.tif"), 0) as slide:
        for where in ((0, slice(9), slice(9)), (slice(None), 3, slice(9)), (slice(None),) * 4):
            with pytest.raises(IndexError, match="a slice of rows"):
                slide[where]


def test_an_error_of_the_block_stays_as_it_is(written):
    with pytest.raises(KeyError, match="mine"), open_slide(written("tiles.ome.tif"), 0):
        raise KeyError("mine")


def test_without_zarr_the_error_names_it(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match="pip install zarr"), open_slide(written("tiles.ome.tif"), 0):
        pass
