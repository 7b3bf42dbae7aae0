"""Reading TIFFs: every readable kind comes out right, every unreadable one is named."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from damm_lite.tumours.fluorescence import FluorescenceDataset, find_channel, first_channel, stretch
from damm_lite.tumours.tiff import read_at_scale, read_stain, read_tiff


@pytest.fixture
def image():
    return np.random.default_rng(0).random((32, 48))


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize(
    "dtype, tolerance", [("uint8", 1 / 255), ("uint16", 1 / 65535), ("uint32", 1e-6), ("float32", 0), ("float64", 1e-7)]
)
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}]
)
def test_every_type_gives_the_same_image(tmp_path, image, dtype, tolerance, options):
    scale = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    back = read_tiff(write(tmp_path / "a.tif", (image * scale).astype(dtype), **options))
    assert back.dtype == np.float32 and back.shape == image.shape
    np.testing.assert_allclose(back, image.astype(np.float32), atol=tolerance)


def test_channels_and_samples(tmp_path, image):
    pages = np.stack([image, image**2, image**3]).astype(np.float32)
    np.testing.assert_array_equal(read_tiff(write(tmp_path / "pages.tif", pages, photometric="minisblack")), pages)
    rgb = (np.stack([image] * 3, axis=-1) * 255).astype(np.uint8)
    assert read_tiff(write(tmp_path / "rgb.tif", rgb, photometric="rgb")).shape == (3, 32, 48)
    np.testing.assert_allclose(read_stain(tmp_path / "rgb.tif"), image, atol=1 / 255)
    boolean = read_tiff(write(tmp_path / "mask.tif", image > 0.5))
    np.testing.assert_array_equal(boolean, (image > 0.5).astype(np.float32))


def test_coarser_pixels_are_means_of_what_they_cover(tmp_path, image):
    path = write(tmp_path / "a.tif", image.astype(np.float32))
    blocks = image.reshape(8, 4, 12, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(read_at_scale(path, 0.5), blocks, atol=1e-6)
    np.testing.assert_array_equal(read_at_scale(path, 2.0), read_stain(path))
    odd = read_at_scale(path, 0.65)  # 32 x 48 pixels are 10.4 x 15.6 of 2 µm
    assert odd.dtype == np.float32 and odd.shape == (10, 16) and odd.mean() == pytest.approx(image.mean(), rel=1e-3)
    for pixel, found in ((0.0, "0 and 2"), (-1.0, "-1 and 2"), (0.02, "0 x 0"), (1e5, "1600000 x 2400000")):
        with pytest.raises(ValueError, match=f"a.tif: expected.*got {found}"):
            read_at_scale(path, pixel)


def test_pyramid_is_read_at_full_resolution(tmp_path, image):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write((image * 255).astype(np.uint8), subifds=1)
        tiff.write((image[::2, ::2] * 255).astype(np.uint8), subfiletype=1)
    assert read_tiff(tmp_path / "pyramid.tif").shape == image.shape


def nan(image):
    return np.where(image > 0.9, np.nan, image).astype(np.float32)


BAD = {
    "not a TIFF": (lambda path, image: path.write_bytes(b"II*\0nonsense"), "expected a whole TIFF"),
    "empty": (lambda path, image: path.write_bytes(b""), "expected a whole TIFF"),
    "truncated": (
        lambda path, image: path.write_bytes(write(path, (image * 255).astype(np.uint8)).read_bytes()[:800]),
        "expected a whole TIFF",
    ),
    "NaN": (lambda path, image: write(path, nan(image)), "finite"),
    "infinity": (lambda path, image: write(path, (image / 0).astype(np.float32)), "finite"),
    "negative": (lambda path, image: write(path, (image * 100 - 50).astype(np.int16)), r"\[0, 32767\].*-49"),
    "float beyond one": (lambda path, image: write(path, (image * 200).astype(np.float32)), r"\[0, 1\].*rescale"),
    "complex": (lambda path, image: write(path, image.astype(np.complex64)), "integer or real.*complex"),
    "four axes": (
        lambda path, image: write(path, np.zeros((2, 3, 8, 8), np.uint8), photometric="minisblack"),
        r"\(H, W\) or \(C, H, W\)",
    ),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD)
def test_bad_files_are_named(tmp_path, image, make, message):
    path = tmp_path / "bad one.tif"
    make(path, image)
    with pytest.raises(ValueError, match=message) as caught:
        read_tiff(path)
    assert str(path) in str(caught.value)


def test_a_header_bomb_is_refused_before_allocation(tmp_path):
    path = write(tmp_path / "bomb.tif", np.zeros((8, 8), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(100_000)
        tiff.pages[0].tags["ImageLength"].overwrite(100_000)
    with pytest.raises(ValueError, match="expected between 1 and .* values"):
        read_tiff(path)


def test_missing_and_colour_and_constant(tmp_path, image):
    with pytest.raises(FileNotFoundError, match="nothing.tif"):
        read_tiff(tmp_path / "nothing.tif")
    colour = (np.stack([image, image**2, image], axis=-1) * 255).astype(np.uint8)
    with pytest.raises(ValueError, match="colour.tif.*one grey channel"):
        read_stain(write(tmp_path / "colour.tif", colour, photometric="rgb"))
    with pytest.raises(ValueError, match="flat.tif.*constant 0"):
        read_stain(write(tmp_path / "flat.tif", np.zeros((8, 8), np.uint8)))


def test_stretch(image):
    out = stretch(image * 0.3 + 0.2, 1, 99)
    assert out.min() == 0 and out.max() == 1 and out.dtype == np.float32
    sparse = np.zeros((100, 100))
    sparse[3, 4] = 0.5  # fewer bright pixels than the percentile cuts off
    assert stretch(sparse)[3, 4] == 1
    with pytest.raises(ValueError, match="constant"):
        stretch(np.ones((4, 4)))


@pytest.fixture
def folder(tmp_path, image):
    for i, channel in enumerate(("QD", "CD31", "DAPI")):
        for field in ("a", "b"):
            write(tmp_path / "set" / channel / f"{field}.tif", (image ** (i + 1) * 65535).astype(np.uint16))
    return tmp_path / "set"


def test_dataset_of_the_release_layout(folder, image):
    data = FluorescenceDataset(folder, "QD", "CD31", "DAPI", size=16)
    assert len(data) == 2 * 2 * 3
    item = data[4]
    assert item["field"] == "a"
    for key, power in (("target", 1), ("primary", 2), ("secondary", 3)):
        assert item[key].shape == (1, 16, 16) and item[key].dtype == torch.float32
        np.testing.assert_allclose(item[key][0], 2 * image[16:32, 16:32] ** power - 1, atol=1e-4)
    both = FluorescenceDataset(folder, "QD", "CD31", ["DAPI", "QD"], size=16)[0]
    assert both["secondary"].shape == (2, 16, 16)
    squared = FluorescenceDataset(folder, "QD", "CD31", "DAPI", size=16, normalise=np.square)[0]
    np.testing.assert_allclose((squared["target"] + 1) / 2, ((data[0]["target"] + 1) / 2) ** 2, atol=1e-4)


def test_other_layouts(tmp_path, image):
    pixels = (image * 255).astype(np.uint8)
    for channel in ("CD31", "HH3", "COLI"):
        write(tmp_path / "one" / f"{channel}.tif", pixels)
        for field in ("p1", "p2"):
            write(tmp_path / "many" / field / f"{channel}.TIFF", pixels)
    assert {item["field"] for item in FluorescenceDataset(tmp_path / "one", "COLI", "CD31", "HH3", 32)} == {"one"}
    assert {item["field"] for item in FluorescenceDataset(tmp_path / "many", "COLI", "CD31", "HH3", 32)} == {"p1", "p2"}
    assert first_channel(tmp_path / "one", ["DAPI", "HH3"]) == "HH3"


def test_what_a_folder_can_lack(folder, image, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_channel(tmp_path / "nowhere", "QD")
    with pytest.raises(ValueError, match="no channel 'CD13'; found .*CD31.*DAPI.*QD"):
        FluorescenceDataset(folder, "QD", "CD13", "DAPI", 16)
    with pytest.raises(ValueError, match="multiple of 4 pixels, got 30"):
        FluorescenceDataset(folder, "QD", "CD31", "DAPI", 30)
    with pytest.raises(ValueError, match=r"at least 64 x 64 pixels, got 32 x 48"):
        FluorescenceDataset(folder, "QD", "CD31", "DAPI", 64)
    (folder / "DAPI" / "b.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"b.tif.*no counterpart in channel 'DAPI'"):
        FluorescenceDataset(folder, "QD", "CD31", "DAPI", 16)
    write(folder / "DAPI" / "b.tif", (image[:, :40] * 255).astype(np.uint8))
    with pytest.raises(ValueError, match=r"DAPI.b.tif: expected the size of .*QD.b.tif \(32, 48\), got \(32, 40\)"):
        FluorescenceDataset(folder, "QD", "CD31", "DAPI", 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no TIFF files"):
        find_channel(tmp_path / "empty", "QD")


def test_the_real_field(shared):
    root = shared / "data" / "tumour" / "point2203"
    counts = tifffile.imread(root / "HH3.tif")
    image = read_tiff(root / "HH3.tif")
    np.testing.assert_allclose(image * 255, counts, atol=1e-4)
    data = FluorescenceDataset(
        root, target="COLI", primary="CD31", secondary=["HH3", "SMA"], size=256, normalise=stretch
    )
    assert len(data) == 16 and data[15]["secondary"].shape == (2, 256, 256)
    assert all(item[key].abs().max() <= 1 for item in data for key in ("target", "primary", "secondary"))


# What the standard says of each orientation: where the first stored row lies, and where the first stored column.
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


@pytest.mark.parametrize("value", SIDES)
def test_an_image_is_turned_upright_as_its_tag_says(tmp_path, image, value):
    stored = (image * 255).astype(np.uint8)
    found = read_tiff(write(tmp_path / "a.tif", stored, extratags=[(274, "H", 1, value, True)]))
    edges = {"top": found[0], "bottom": found[-1], "left": found[:, 0], "right": found[:, -1]}
    row, column = SIDES[value]
    for side, line, other in ((row, stored[0], column), (column, stored[:, 0], row)):
        first = 0 if other in ("top", "left") else -1  # where this line begins
        shown = edges[side] if first == 0 else edges[side][::-1]
        np.testing.assert_allclose(shown, line / 255, atol=1e-6)
    if value <= 4:
        np.testing.assert_allclose(found, np.asarray(Image.open(tmp_path / "a.tif")) / 255, atol=1e-6)


@pytest.mark.parametrize("value", [0, 9])
def test_no_orientation_at_all_is_refused(tmp_path, image, value):
    path = write(tmp_path / "a.tif", (image * 255).astype(np.uint8), extratags=[(274, "H", 1, value, True)])
    with pytest.raises(ValueError, match=r"a.tif: .*expected one orientation from 1 to 8"):
        read_tiff(path)


def test_where_white_is_zero_the_image_is_inverted(tmp_path, image):
    mask = image > 0.5
    Image.fromarray(mask).save(tmp_path / "mask.tif", tiffinfo={262: 0})
    with tifffile.TiffFile(tmp_path / "mask.tif") as tiff:
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE
    assert np.array_equal(read_stain(tmp_path / "mask.tif"), np.asarray(Image.open(tmp_path / "mask.tif")))
    for dtype in (np.uint8, np.uint16):
        grey = (image * np.iinfo(dtype).max).astype(dtype)
        path = write(tmp_path / "grey.tif", np.iinfo(dtype).max - grey, photometric="miniswhite")
        np.testing.assert_allclose(read_stain(path), grey / np.iinfo(dtype).max, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64"])
@pytest.mark.parametrize("top", [1, 300, 60_000])
def test_counts_in_wide_integers_are_refused(tmp_path, image, dtype, top):
    path = write(tmp_path / "a.tif", np.rint(image * top).astype(dtype))
    with pytest.raises(ValueError, match=rf"a.tif: expected values that use the range of {dtype}.* got at most \d+"):
        read_tiff(path)


def test_slices_that_happen_to_be_equal_are_no_colours(tmp_path, image):
    grey = (image * 255).astype(np.uint8)
    stack = np.stack([grey] * 3 + [255 - grey])
    path = write(tmp_path / "z.tif", stack, photometric="minisblack", imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match="z.tif: expected one grey channel, got 4 different ones"):
        read_stain(path)
    colours = write(tmp_path / "rgb.tif", np.stack([grey] * 3, axis=-1), photometric="rgb")
    np.testing.assert_allclose(read_stain(colours), grey / 255, atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [("CD31/a.tif", "CD31/a.tiff"), ("DAPI.tif", "DAPI.TIF"), ("DAPI.tif", "DAPI/a.tif"), ("a/DAPI.tif", "DAPI/b.tif")],
)
def test_two_files_that_could_be_meant_are_both_named(tmp_path, image, names):
    for name in names:
        write(tmp_path / name, image)
    with pytest.raises(ValueError, match="two files for channel") as caught:
        find_channel(tmp_path, "CD31" if "CD31" in names[0] else "DAPI")
    assert all(str(tmp_path / name) in str(caught.value) for name in names)


def test_hidden_files_are_passed_over(tmp_path, image):
    hidden = ("DAPI/._a.tif", ".trash/DAPI.tif", "DAPI/.a.tiff", "__MACOSX/DAPI.tif", "DAPI/~$a.tif")
    for name in ("DAPI/a.tif", *hidden):
        write(tmp_path / name, image)
    assert find_channel(tmp_path, "DAPI") == {"a": tmp_path / "DAPI" / "a.tif"}


def test_names_are_the_same_however_accents_are_written(tmp_path, image):
    for name in ("Gef\u00e4\u00dfe/caf\u00e9.tif", "Kerne/cafe\u0301.tif"):  # e with an accent as one letter and as two
        write(tmp_path / name, image)
    assert list(find_channel(tmp_path, "Gefa\u0308\u00dfe")) == list(find_channel(tmp_path, "Kerne")) == ["caf\u00e9"]
    dataset = FluorescenceDataset(tmp_path, "Kerne", "Gef\u00e4\u00dfe", "Kerne", size=8)
    assert dataset[0]["field"] == "caf\u00e9"
