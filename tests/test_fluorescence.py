"""Reading TIFFs: every readable kind comes out right, every unreadable one is named."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from damm_lite.tumours.fluorescence import FluorescenceDataset, find_channel, first_channel, read_channel, stretch
from damm_lite.tumours.tiff import read_at_scale, read_stain, read_tiff
from damm_lite.tumours.tiff_header import channel_names, pixel_size

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize("dtype", ["uint32", "int32", "uint64"])
def test_counts_with_a_hot_pixel_are_refused_and_what_uses_the_range_is_not(tmp_path, image, dtype):
    top = np.iinfo(dtype).max
    counts = np.rint(image * 300).astype(dtype)
    counts[3, 4] = top
    path = write(tmp_path / "a.tif", counts)
    with pytest.raises(ValueError, match=r"a.tif: .* half of them at most 1\d\d; store them as 8 or 16 bits"):
        read_tiff(path)
    for sound in (image, image > 0.5, np.rint(image * 7) / 7):
        found = read_tiff(write(tmp_path / "b.tif", (sound * (top // 2) * np.float64(1.9)).astype(dtype)))
        np.testing.assert_allclose(found, sound * 0.95, atol=1e-6)


@pytest.mark.parametrize(
    "pixels", [lambda x: np.rint(x * 9).astype(np.uint16), lambda x: x / 2**32 * 300, lambda x: 0.5 + x * 1e-5]
)
def test_next_to_no_contrast_is_refused_unless_it_is_stretched(folder, image, pixels):
    path = write(folder / "DAPI" / "b.tif", pixels(image))
    with pytest.raises(ValueError, match=rf"{path}: expected values that use the range from 0 to 1, got .*stretch"):
        FluorescenceDataset(folder, "QD", "CD31", "DAPI", 16)
    stretched = FluorescenceDataset(folder, "QD", "CD31", "DAPI", 16, normalise=stretch)
    assert stretched.images["b"][2].min() == -1 and stretched.images["b"][2].max() == 1


@pytest.mark.parametrize("channels, height, width", [(2, 40, 30), (5, 24, 64), (9, 17, 17)])
def test_channels_that_were_written_last_are_refused(tmp_path, channels, height, width):
    last = np.random.default_rng(0).integers(0, 255, (height, width, channels), dtype=np.uint8)
    path = write(tmp_path / "a.tif", last, photometric="minisblack")
    for read in (read_tiff, read_stain, lambda path: read_stain(path, 1)):
        with pytest.raises(ValueError, match=rf"a.tif: expected channels of whole images, got {height} of {width} x"):
            read(path)
    first = write(tmp_path / "b.tif", np.moveaxis(last, -1, 0), photometric="minisblack")
    np.testing.assert_allclose(read_stain(first, 1), last[..., 1] / 255, atol=1e-6)


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


def test_a_field_named_as_its_channel_is_one_file_and_a_folder_none(tmp_path, image):
    path = write(tmp_path / "CD31" / "CD31.tif", image)
    (tmp_path / "CD31.tif").mkdir()
    assert find_channel(tmp_path, "CD31") == {"CD31": path}


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


# --- several channels in one file

NAMES = ["CD31", "Syto16", "virus"]


@pytest.fixture
def stains(image):
    """Three different stains (3, 32, 48), 16 bits."""
    return (np.stack([image, image**2, 1 - image]) * 65535).astype(np.uint16)


def pages_with_names(path, stains, names):
    with tifffile.TiffWriter(path) as tiff:
        for name, plane in zip(names, stains, strict=True):
            tiff.write(plane, extratags=[(285, "s", 0, name, True)], metadata=None)
    return path


MANY = {
    "OME": lambda path, x: write(
        path.with_suffix(".ome.tif"), x, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": NAMES}}
    ),
    "OME, compressed tiles": lambda path, x: write(
        path.with_suffix(".ome.tif"), x, photometric="minisblack", tile=(16, 16), compression="zlib",
        metadata={"axes": "CYX", "Channel": {"Name": NAMES}},
    ),
    "ImageJ": lambda path, x: write(path, x, imagej=True, metadata={"axes": "CYX", "Labels": NAMES}),
    "ImageJ, from single images": lambda path, x: write(
        path, x, imagej=True, metadata={"axes": "ZYX", "Labels": [f"{name}\nGain 3" for name in NAMES]}
    ),
    "page names": lambda path, x: pages_with_names(path, x, NAMES),
}  # fmt: skip


@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_a_channel_is_chosen_by_name_or_number(tmp_path, stains, make):
    path = make(tmp_path / "many.tif", stains)
    assert channel_names(path) == NAMES
    for number, name in enumerate(NAMES):
        for channel in (name, number):
            np.testing.assert_allclose(read_stain(path, channel), stains[number] / 65535, atol=1e-6)
    with pytest.raises(ValueError, match=rf"many.*: no channel 'DAPI'; found {', '.join(NAMES)}"):
        read_stain(path, "DAPI")
    for number in (3, -1):
        with pytest.raises(ValueError, match=f"many.*: expected a channel from 0 to 2, got {number}"):
            read_stain(path, number)
    with pytest.raises(
        ValueError, match="many.*one grey channel, got 3 different ones; .*choose one: CD31, Syto16, virus"
    ):
        read_stain(path)


def test_channels_without_names_have_numbers(tmp_path, stains):
    pages = write(tmp_path / "pages.tif", stains, photometric="minisblack")
    samples = write(tmp_path / "samples.tif", np.moveaxis(stains, 0, -1), photometric="rgb")
    parts = write(tmp_path / "parts.tif", stains, photometric="rgb", planarconfig="separate")
    last = write(
        tmp_path / "last.tif", np.moveaxis(stains[:2], 0, -1), photometric="minisblack", planarconfig="contig",
        metadata={"axes": "YXC"},
    )  # fmt: skip
    for path in (pages, samples, parts, last):
        assert channel_names(path) == []
        np.testing.assert_allclose(read_stain(path, 1), stains[1] / 65535, atol=1e-6)
        with pytest.raises(ValueError, match="no channel 'CD31'; found no names"):
            read_stain(path, "CD31")
    one = write(tmp_path / "one.tif", stains[0])
    np.testing.assert_array_equal(read_stain(one, 0), read_stain(one))


def test_what_cannot_be_chosen_is_refused(tmp_path, stains):
    slices = write(tmp_path / "z.tif", stains, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match="z.tif: expected channels .* got slices or times: ZYX"):
        read_stain(slices, 1)
    both = write(tmp_path / "zc.tif", np.stack([stains, stains]), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match="zc.tif: expected channels .* ZCYX"):
        read_stain(both, 1)
    same = {"axes": "CYX", "Channel": {"Name": ["CD31", "CD31", "virus"]}}
    twice = write(tmp_path / "twice.ome.tif", stains, photometric="minisblack", metadata=same)
    with pytest.raises(ValueError, match="twice.*: expected one channel 'CD31', got CD31, CD31, virus"):
        read_stain(twice, "CD31")
    np.testing.assert_allclose(read_stain(twice, "virus"), stains[2] / 65535, atol=1e-6)
    np.testing.assert_allclose(read_stain(twice, 1), stains[1] / 65535, atol=1e-6)


def test_one_of_many_channels_is_read_without_the_others(tmp_path):
    many = np.zeros((40, 2048, 1024), np.uint8)
    many[7, :5] = 9
    path = write(tmp_path / "many.tif", many, photometric="minisblack", compression="zlib")
    with pytest.raises(ValueError, match="expected between 1 and 67108864 values"):
        read_tiff(path)
    np.testing.assert_allclose(read_stain(path, 7) * 255, many[7], atol=1e-5)


def test_several_images_in_one_file(tmp_path, stains, image):
    def images(name, *contents, **options):
        with tifffile.TiffWriter(tmp_path / name, ome=True) as tiff:
            for pixels, names in contents:
                about = {"axes": "CYX", "Channel": {"Name": names}} if names else {"axes": "YX"}
                tiff.write(pixels, photometric="minisblack", metadata=about, **options)
        return tmp_path / name

    label = (stains[0, :8, :8] // 2, None)
    path = images("label.ome.tif", label, (stains, NAMES))
    np.testing.assert_allclose(read_stain(path, "Syto16"), stains[1] / 65535, atol=1e-6)
    for read in (read_tiff, read_stain, pixel_size, lambda path: read_stain(path, 0)):
        with pytest.raises(ValueError, match=r"label.ome.tif: expected one image or pyramid, got 2: .*8.*32, 48"):
            read(path)
    fields = images("fields.ome.tif", (stains, NAMES), (stains // 2, NAMES))
    with pytest.raises(ValueError, match="fields.ome.tif: expected one image or pyramid, got 2"):
        read_stain(fields, "Syto16")


def test_a_pyramid_is_told_from_what_lies_beside_it(tmp_path, stains):
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(stains[2, :8, :8], photometric="minisblack", metadata={"axes": "YX"})  # a photograph of the label
        about = {"axes": "CYX", "Channel": {"Name": NAMES}}
        tiff.write(stains, photometric="minisblack", subifds=1, metadata=about)
        tiff.write(stains[:, ::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_allclose(read_tiff(path), stains / 65535, atol=1e-6)
    np.testing.assert_allclose(read_stain(path, "virus"), stains[2] / 65535, atol=1e-6)
    flat = tmp_path / "flat.tif"  # smaller copies as further pages, largest last
    with tifffile.TiffWriter(flat) as tiff:
        tiff.write(stains[0, ::4, ::4], subfiletype=1, metadata=None)
        tiff.write(stains[0, ::2, ::2], subfiletype=1, metadata=None)
        tiff.write(stains[0], metadata=None)
    np.testing.assert_allclose(read_tiff(flat), stains[0] / 65535, atol=1e-6)


# --- the size of a pixel


def ome_size(x, y, unit="µm"):
    sizes = {"PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": unit}
    return {"ome": True, "metadata": {"axes": "YX"} | sizes}


def imagej_size(per_unit, unit):
    return {"imagej": True, "resolution": (per_unit, per_unit), "metadata": {"unit": unit}}


def tag_size(per_unit, unit):
    return {"resolution": (per_unit, per_unit), "resolutionunit": unit}


SIZES = {
    "OME": (ome_size(0.325, 0.325), 0.325),
    "OME in nm": (ome_size(650, 650, "nm"), 0.65),
    "OME in mm": (ome_size(0.004, 0.004, "mm"), 4.0),
    "OME in pixels": (ome_size(1, 1, "pixel"), None),
    "OME of nothing": (ome_size(0, 0), None),
    "OME not a number": (ome_size(float("nan"), float("nan")), None),
    "ImageJ micron": (imagej_size(2, "micron"), 0.5),
    "ImageJ um": (imagej_size(1 / 0.325, "um"), 0.325),
    "ImageJ with an escape": (imagej_size(0.25, "\\u00B5m"), 4.0),
    "ImageJ nm": (imagej_size(0.001, "nm"), 1.0),
    "ImageJ at 72 a micrometre": (imagej_size(72, "micron"), 1 / 72),
    "ImageJ pixels": (imagej_size(1, "pixel"), None),
    "tags in cm": (tag_size(5000, "CENTIMETER"), 2.0),
    "tags in inches": (tag_size(25400, "INCH"), 1.0),
    "tags without a unit": (tag_size(3, "NONE"), None),
    "72 dpi": (tag_size(72, "INCH"), None),
    "96 dpi": (tag_size(96, "INCH"), None),
    "72 dpi in cm": (tag_size(28.35, "CENTIMETER"), None),
    "300 dpi": (tag_size(300, "INCH"), None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("options, size", SIZES.values(), ids=SIZES)
def test_the_size_of_a_pixel_is_what_the_file_says(tmp_path, image, options, size):
    path = write(tmp_path / "a.tif", (image * 65535).astype(np.uint16), **options)
    found = pixel_size(path)
    assert found == (size if size is None else pytest.approx(size, rel=1e-5))


@pytest.mark.parametrize("options", [ome_size(0.5, 1), {"resolution": (5000, 2500), "resolutionunit": "CENTIMETER"}])
def test_pixels_that_are_not_square_are_refused(tmp_path, image, options):
    path = write(tmp_path / "a.tif", (image * 65535).astype(np.uint16), **options)
    with pytest.raises(ValueError, match="a.tif: expected square pixels, got .* x .* µm"):
        pixel_size(path)


def test_a_size_that_contradicts_the_file_is_refused(tmp_path, image):
    stored = (image * 65535).astype(np.uint16)
    path = write(tmp_path / "a.tif", stored, **ome_size(0.5, 0.5))
    blocks = (stored / 65535).reshape(8, 4, 12, 4).mean(axis=(1, 3))
    for pixel in (None, 0.5, 0.505):
        np.testing.assert_allclose(read_at_scale(path, pixel), blocks, atol=2e-2 if pixel == 0.505 else 1e-6)
    for pixel in (0.325, 0.52, 0.48, 2.0):
        with pytest.raises(ValueError, match=rf"a.tif: expected pixels of 0.5 µm as the file says, got .*{pixel:g}"):
            read_at_scale(path, pixel)
    silent = write(tmp_path / "b.tif", stored)
    with pytest.raises(ValueError, match="b.tif: expected the size of a pixel in the file or as `pixel`.* neither"):
        read_at_scale(silent)


def test_the_samples_of_the_book_say_their_size():
    assert {pixel_size(p) for p in (ROOT / "data" / "tumour_sample").rglob("*.tif")} == {2.0}


# --- cameras of fewer bits than their files


@pytest.mark.parametrize(
    "options, largest",
    [
        ({"ome": True, "metadata": {"axes": "YX", "SignificantBits": 12}}, 4095),
        ({"ome": True, "metadata": {"axes": "YX", "SignificantBits": 16}}, 65535),
        ({"extratags": [(281, "H", 1, 4095, True)]}, 4095),
        ({"extratags": [(281, "H", 1, 16383, True)]}, 16383),
        ({"extratags": [(281, "H", 1, 4000, True)]}, 65535),  # the image's own maximum
        ({"extratags": [(281, "H", 1, 65535, True)]}, 65535),
        ({}, 65535),
    ],
)
def test_the_bits_of_the_camera_are_used_where_the_file_says_them(tmp_path, image, options, largest):
    counts = np.rint(image * 4000).astype(np.uint16)
    np.testing.assert_allclose(read_tiff(write(tmp_path / "a.tif", counts, **options)), counts / largest, atol=1e-6)


def test_values_beyond_the_bits_of_the_camera_are_refused(tmp_path, image):
    counts = np.rint(image * 5000).astype(np.uint16)
    path = write(tmp_path / "a.tif", counts, ome=True, metadata={"axes": "YX", "SignificantBits": 12})
    with pytest.raises(ValueError, match=r"a.tif: expected pixels in \[0, 4095\] \(uint16\), got"):
        read_tiff(path)


def test_a_compression_that_needs_another_library_names_it(tmp_path, image):
    path, grey = tmp_path / "a.tif", (image * 255).astype(np.uint8)
    Image.fromarray(grey).save(path, compression="tiff_lzw")
    if importlib.util.find_spec("imagecodecs"):
        np.testing.assert_allclose(read_tiff(path) * 255, grey, atol=1e-4)
    else:
        with pytest.raises(ValueError, match=r"a.tif: .*LZW.*pip install imagecodecs"):
            read_tiff(path)


def test_planes_that_are_missing_are_not_filled_with_zeros(tmp_path, stains):
    path = MANY["OME"](tmp_path / "a.tif", stains)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        xml = tiff.ome_metadata.replace('IFD="0" PlaneCount="3"', 'IFD="0" PlaneCount="1"')
        tiff.pages[0].tags["ImageDescription"].overwrite(xml)
    with pytest.raises(ValueError, match="a.ome.tif: expected all 3 planes of its header, got some missing"):
        read_tiff(path)


# --- folders of files that hold all channels


@pytest.fixture
def fields(tmp_path, stains):
    """Two fields, each one file of three channels."""
    for field, scale in (("a", 1), ("b", 2)):
        about = {"axes": "CYX", "Channel": {"Name": NAMES}}
        write(tmp_path / "many" / f"{field}.ome.tif", stains // scale, photometric="minisblack", metadata=about)
    return tmp_path / "many"


def test_channels_are_found_inside_the_files(fields, stains):
    assert find_channel(fields, "virus") == {field: fields / f"{field}.ome.tif" for field in "ab"}
    assert first_channel(fields, ["DAPI", "Syto16"]) == "Syto16"
    data = FluorescenceDataset(fields, target="virus", primary="CD31", secondary=["Syto16", "CD31"], size=16)
    assert len(data) == 12 and [item["field"] for item in data] == ["a"] * 6 + ["b"] * 6
    expected = torch.from_numpy(stains[[2, 0, 1, 0], 16:, :16] / 65535 * 2 - 1).float()
    found = data[3]
    torch.testing.assert_close(torch.cat([found["target"], found["primary"], found["secondary"]]), expected)
    with pytest.raises(ValueError, match="no channel 'DAPI'; found CD31, Syto16, a, b, virus"):
        find_channel(fields, "DAPI")


@pytest.mark.parametrize("name", ["virus.tif", "virus.ome.tif", "virus/a.tif", "a/virus.tif", "a.tif"])
def test_a_channel_inside_and_beside_is_refused(fields, stains, image, name):
    if name == "a.tif":  # the same field in another format
        write(fields / name, stains, imagej=True, metadata={"axes": "CYX", "Labels": NAMES})
    else:
        write(fields / name, (image * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="two files for channel 'virus'") as caught:
        find_channel(fields, "virus")
    assert str(fields / name) in str(caught.value) and ".ome.tif" in str(caught.value)


def test_a_file_without_one_of_the_channels_is_named(fields, stains):
    about = {"axes": "CYX", "Channel": {"Name": ["CD31", "virus"]}}
    write(fields / "c.ome.tif", stains[:2], photometric="minisblack", metadata=about)
    with pytest.raises(FileNotFoundError, match=r"c.ome.tif: has no counterpart in channel 'Syto16'"):
        FluorescenceDataset(fields, "virus", "CD31", "Syto16", 16)


def test_a_file_of_one_stain_may_have_any_name_inside(tmp_path, image):
    """Microscopes name channels after their filters; here the folder says which stain it is."""
    for power, channel in enumerate(("QD", "CD31", "DAPI"), 1):
        about = {"axes": "YX", "Channel": {"Name": ["TxRed"]}}
        write(tmp_path / channel / "a.ome.tif", (image**power * 65535).astype(np.uint16), metadata=about)
    assert find_channel(tmp_path, "CD31") == {"a": tmp_path / "CD31" / "a.ome.tif"}
    item = FluorescenceDataset(tmp_path, "QD", "CD31", "DAPI", 16)[0]
    np.testing.assert_allclose(item["primary"][0], 2 * image[:16, :16] ** 2 - 1, atol=1e-4)


def test_the_real_tumour_by_light_sheet(shared):
    root = shared / "data" / "lightsheet"
    data = FluorescenceDataset(root, target="virus", primary="CD31", secondary="Syto16", size=256)
    assert len(data.images) == 8 and len(data) == 8 * 2 * 2 and "7IV_z0704" in data.images
    for part, plane in (("primary", 0), ("secondary", 1), ("target", 2)):
        stored = tifffile.imread(root / "7IV_z0701.ome.tif")[plane, :256, 256:512]
        np.testing.assert_allclose((data[1][part][0] + 1) / 2, stored / 65535, atol=1e-6)
    path = find_channel(root, "virus")["7IV_z0701"]
    assert pixel_size(path) == 4.0 and read_at_scale(path, channel="virus", wanted=4.0).shape == (757, 573)
    with pytest.raises(ValueError, match="7IV_z0701.ome.tif: expected pixels of 4 µm as the file says"):
        read_at_scale(path, 0.5, channel="virus")


def test_a_size_that_nobody_says_is_assumed_with_a_word(tmp_path, image):
    path = write(tmp_path / "DAPI" / "a.tif", image.astype(np.float32))
    with pytest.warns(UserWarning, match=r"a.tif does not say how large its pixels are: 0.5 µm are taken"):
        assert read_channel(path, "DAPI").shape == (8, 12)
    assert read_channel(path, "DAPI", pixel=2.0).shape == (32, 48)
    per_cm = dict(resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
    said = write(tmp_path / "DAPI" / "b.tif", image.astype(np.float32), **per_cm)
    assert read_channel(said, "DAPI").shape == (16, 24)
