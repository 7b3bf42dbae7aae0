"""Files to fuzz the readers with: sound ones of every kind, and what mutation makes of them.

A family is a function `(folder, rng, n)` that writes n files below `folder` and yields a `Case` for each;
the same seed gives the same files. What a sound file must be read as is the array that it was written
from, never what a reader made of it. `FAMILIES` says how many files each gives in the long version.
"""

import gzip
import io
import json
import pickle
import re
import struct
import zlib
from itertools import chain, cycle, islice, product, repeat
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import nibabel as nib
import numpy as np
import tifffile
import torch
import yaml
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save, save_file

import damm_lite as dl
from damm_lite.brains.nifti import read_nifti
from damm_lite.checkpoint import load_checkpoint, load_state, save_checkpoint, save_state
from damm_lite.experiments.ablate import read_spec
from damm_lite.release import load_released_state_dict, released_names
from damm_lite.train import Step, TrainConfig
from damm_lite.tumours.tiff import read_tiff

SIDES = (20, 28)  # of a TIFF image
VOXELS = (12, 14, 10)
NETWORK = dl.UNetConfig(2, 1, (16, 16, 16, 16), 16)
RUN = TrainConfig(num_steps=4, batch_size=2)
IDENTITY = {"network": "small", "loss": "our_loss"}


class Case(NamedTuple):
    """A file, and what a reader owes: the truth, an error that names the file, or whichever of them fits."""

    family: str
    name: str
    reader: str  # of `READERS`
    path: Path
    truth: np.ndarray | None = None  # what it must be read as, if it is read
    read: bool = True  # it may be read
    refused: bool = True  # it may be refused
    names: str | None = None  # what the error must name, if not the path


def sound(*case):
    """A case that must be read, and as its truth."""
    return Case(*case, refused=False)


def hopeless(*case, **names):
    """A case that must be refused."""
    return Case(*case, read=False, **names)


# --- TIFF


def pixels_of(rng, dtype, shape):
    """Random pixels of a type, and the same as float64 in [0, 1]."""
    unit, dtype = rng.random(shape), np.dtype(dtype)
    if dtype.kind in "ui":
        pixels = np.rint(unit * np.iinfo(dtype).max * (1 - 2e-16)).astype(dtype)
        return pixels, pixels / np.float64(np.iinfo(dtype).max)
    pixels = (unit > 0.5) if dtype.kind == "b" else unit.astype(dtype)
    return pixels, pixels.astype(np.float64)


TYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64")
OPTIONS = (
    {},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzma"},
    {"byteorder": ">"},
    {"byteorder": ">", "bigtiff": True},
    {"bigtiff": True, "rowsperstrip": 3},
    {"tile": (16, 16)},
    {"tile": (16, 32), "compression": "zlib", "byteorder": ">"},
)
OME = {"axes": "CYX", "UUID": f"urn:uuid:{UUID(int=1)}"}  # else drawn anew for each file
LAYOUTS = {
    "grey": (SIDES, {}),
    "one row": ((1, 33), {}),
    "one column": ((33, 1), {}),
    "one pixel": ((1, 1), {}),
    "pages": ((3, *SIDES), {"photometric": "minisblack"}),
    "one page of a row": ((1, 1, 33), {"photometric": "minisblack"}),
    "OME": ((2, *SIDES), {"photometric": "minisblack", "ome": True, "metadata": OME}),
    "RGB": ((*SIDES, 3), {"photometric": "rgb"}),
    "RGBA": ((*SIDES, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "planes": ((3, *SIDES), {"photometric": "rgb", "planarconfig": "separate"}),
    "pyramid": (SIDES, {"subifds": 1}),
}


def write_tiff(path, rng, dtype, layout, options):
    """Write an image; what it must be read as, float32 (H, W) or (C, H, W)."""
    shape, how = LAYOUTS[layout]
    pixels, truth = pixels_of(rng, dtype, shape)
    if min(shape[-3:]) == 1 or len(shape) == 3:
        options = {key: value for key, value in options.items() if key not in ("tile", "predictor")}
    files = {key: options[key] for key in ("byteorder", "bigtiff") if key in options}
    pages = {key: value for key, value in (options | how).items() if key not in (*files, "ome")}
    with tifffile.TiffWriter(path, **files, ome=how.get("ome", False)) as tiff:
        tiff.write(pixels, **pages)
        if layout == "pyramid":
            tiff.write(pixels[::2, ::2], subfiletype=1)
    if shape[-1] in (3, 4):
        truth = np.moveaxis(truth, -1, 0)
    return truth.squeeze(0).astype(np.float32) if truth.shape[0] == 1 < truth.ndim - 1 else truth.astype(np.float32)


def sound_tiffs(rng):
    """Endless (dtype, layout, options), every type and layout early on."""
    kinds = list(product(LAYOUTS, OPTIONS))
    rng.shuffle(kinds)
    for dtype, (layout, options) in zip(cycle(TYPES), cycle(kinds), strict=False):
        if dtype == "bool" and (layout != "grey" or "predictor" in options):
            layout, options = "grey", {}  # bits are written plainly
        if layout == "OME" and dtype in ("uint64", "float16"):  # OME knows no such types
            layout = "pages"
        if np.dtype(dtype).kind == "f" or dtype.endswith("64"):  # a predictor for these needs another library
            options = {key: value for key, value in options.items() if key != "predictor"}
        yield dtype, layout, options


def tiff_sound(folder, rng, n):
    for i, (dtype, layout, options) in enumerate(islice(sound_tiffs(rng), n)):
        path = folder / f"sound {i}.tif"
        truth = write_tiff(path, rng, dtype, layout, options)
        yield sound("tiff_sound", f"{dtype} {layout} {options}", "read_tiff", path, truth)


def tiff_other_writer(folder, rng, n):
    """TIFFs by Pillow, with compressions that tifffile reads only with another library's help."""
    grey = (rng.random(SIDES) * 255).astype(np.uint8)
    kinds = {
        "LZW": (grey, {"compression": "tiff_lzw"}, None),
        "deflate": (grey, {"compression": "tiff_adobe_deflate"}, True),
        "PackBits": (grey, {"compression": "packbits"}, True),
        "JPEG": (grey, {"compression": "jpeg"}, None),
        "group 4": (grey > 99, {"compression": "group4"}, None),
        "1 bit": (grey > 99, {}, True),
        "16 bit": (grey.astype(np.uint16) * 257, {}, True),
        "float": ((grey / 255).astype(np.float32), {}, True),
    }
    for i, (kind, (pixels, options, readable)) in enumerate(islice(cycle(kinds.items()), n)):
        path = folder / f"other writer {i}.tif"
        Image.fromarray(pixels).save(path, **options)
        truth = (pixels / (np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1)).astype(np.float32)
        if kind == "JPEG":
            truth = None  # lossy
        yield Case("tiff_other_writer", kind, "read_tiff", path, truth, refused=not readable)


def set_tags(path, **values):
    """Overwrite tags of the first page."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in values.items():
            tiff.pages[0].tags[name].overwrite(value)


def looped(path):
    """An image whose page is followed by itself."""
    tifffile.imwrite(path, np.zeros(SIDES, np.uint8))
    with tifffile.TiffFile(path) as tiff:
        page, where = tiff.pages[0].offset, tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags)
    raw = bytearray(path.read_bytes())
    raw[where : where + 4] = struct.pack("<I", page)
    path.write_bytes(raw)


def palette(path):
    pixels = Image.fromarray((np.indices(SIDES).sum(0) * 5).astype(np.uint8)).convert("P")
    pixels.save(path)


def packed_zeros(start, zeros, kind):
    """`start` and so many zeros (a multiple of 1 MiB), packed by zlib (`kind` 15) or gzip (31)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, kind)
    start = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # the same again and again
    return start + block * (zeros // 2**20) + packer.flush()


def lies_of_tiff(grey):
    """{what is wrong: function that writes it to a path}; every one must be refused."""

    def saved(pixels, **options):
        return lambda path: tifffile.imwrite(path, pixels, **options)

    def changed(pixels=grey, options=None, **tags):
        return lambda path: (tifffile.imwrite(path, pixels, **(options or {})), set_tags(path, **tags))

    def nothing(path):
        path.write_bytes(b"")

    def deflate_bomb(path):
        """A strip that unpacks to 4 GiB."""
        tifffile.imwrite(path, grey, compression="zlib")
        bomb, size = packed_zeros(b"", 2**32, 15), path.stat().st_size
        path.write_bytes(path.read_bytes() + bomb)
        set_tags(path, StripOffsets=size, StripByteCounts=len(bomb))

    real, packed = (grey / 255).astype(np.float32), {"compression": "zlib"}
    tiles = {"tile": (16, 16)}
    return {
        "NaN": saved(np.where(grey > 200, np.nan, real).astype(np.float32)),
        "infinity": saved(np.where(grey > 200, np.inf, real).astype(np.float32)),
        "negative": saved(-real),
        "negative integers": saved(grey.astype(np.int16) - 100),
        "beyond one": saved(real * 300),
        "beyond float32": saved(real.astype(np.float64) * 1e300),
        "complex": saved(real.astype(np.complex64)),
        "four axes": saved(np.zeros((2, 3, 8, 8), np.uint8), photometric="minisblack"),
        "0 wide": changed(ImageWidth=0),
        "0 high": changed(ImageLength=0),
        "0 x 0": changed(ImageWidth=0, ImageLength=0),
        "100k x 100k": changed(ImageWidth=100_000, ImageLength=100_000),
        "100k x 100k packed": changed(options=packed, ImageWidth=100_000, ImageLength=100_000),
        "100k x 100k tiles": changed(options=tiles, ImageWidth=100_000, ImageLength=100_000),
        "2^32 wide": changed(ImageWidth=2**32 - 1),
        "8000 x 8000": changed(ImageWidth=8_000, ImageLength=8_000),
        "8000 x 8000 packed": changed(options=packed, ImageWidth=8_000, ImageLength=8_000),
        "huge tiles": changed(options=tiles, TileWidth=100_000 // 16 * 16, TileLength=100_000 // 16 * 16),
        "65535 samples": changed(SamplesPerPixel=65535),
        "64-bit pixels": changed(BitsPerSample=64),
        "3-bit pixels": changed(BitsPerSample=3),
        "unknown compression": changed(Compression=12345),
        "LZMA that is none": changed(Compression=34925),
        "pixels elsewhere": changed(StripOffsets=2**31),
        "no pixels": changed(options=packed, StripByteCounts=0),
        "too few pixels": changed(options=packed, StripByteCounts=9),
        "too many pixels": changed(options=packed, StripByteCounts=2**31),
        "deflate bomb": deflate_bomb,
        "pages in a circle": looped,
        "palette": palette,
        "empty": nothing,
        "text": lambda path: path.write_text("not an image"),
        "a header alone": lambda path: path.write_bytes(b"II*\0\x08\0\0\0"),
        "noise": lambda path: path.write_bytes(b"II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 40),
        "a PNG": lambda path: Image.fromarray(grey).save(path, "png"),
    }


def tiff_lies(folder, rng, n):
    """Well-formed files whose headers or pixels lie."""
    grey = (rng.random(SIDES) * 255).astype(np.uint8)
    for i, (what, write) in enumerate(islice(cycle(lies_of_tiff(grey).items()), n)):
        path = folder / f"lie {i}.tif"
        write(path)
        yield hopeless("tiff_lies", what, "read_tiff", path)


BAD_XML = {
    "no XML": lambda xml: "<OME not closed",
    "cut": lambda xml: xml[: len(xml) // 2],
    "more channels": lambda xml: xml.replace('SizeC="2"', 'SizeC="7"'),
    "a million channels": lambda xml: xml.replace('SizeC="2"', 'SizeC="1000000"'),
    "endless time": lambda xml: xml.replace('SizeT="1"', 'SizeT="99999999999"'),
    "no size": lambda xml: xml.replace('SizeX="', 'SizeQ="'),
    "negative size": lambda xml: xml.replace('SizeC="2"', 'SizeC="-2"'),
    "other order": lambda xml: xml.replace("XYCZT", "QQQQQ"),
    "another file": lambda xml: xml.replace(
        "<TiffData", '<TiffData FirstC="0"><UUID FileName="../x.tif"/></TiffData><TiffData'
    ),
    "entities": lambda xml: '<!DOCTYPE a [<!ENTITY b "' + "c" * 5000 + '"><!ENTITY d "' + "&b;" * 5000 + '">]>'
    + xml.replace("<Image ", "<Image Q='" + "&d;" * 200 + "' "),
}  # fmt: skip


def tiff_wrong_ome(folder, rng, n):
    """OME files whose XML does not fit; the pages are sound, so if they are read, then as they are."""
    for i, (what, change) in enumerate(islice(cycle(BAD_XML.items()), n)):
        path = folder / f"ome {i}.ome.tif"
        truth = write_tiff(path, rng, "uint16", "OME", {})
        with tifffile.TiffFile(path) as tiff:
            xml = tiff.ome_metadata
        set_tags(path, ImageDescription=change(xml).encode())
        yield Case("tiff_wrong_ome", what, "read_tiff", path, truth)


def tiff_truncated(folder, rng, n):
    """Cut anywhere: either what was cut does not matter, or it is noticed."""
    for i, (dtype, layout, options) in enumerate(islice(sound_tiffs(rng), n)):
        path = folder / f"cut {i}.tif"
        truth = write_tiff(path, rng, dtype, layout, options)
        raw = path.read_bytes()
        path.write_bytes(raw[: rng.integers(len(raw))])
        yield Case("tiff_truncated", f"{dtype} {layout} {options}", "read_tiff", path, truth)


def flip(raw, rng, count=1, start=0, stop=None):
    """The same bytes with some bits flipped."""
    raw = bytearray(raw)
    for place in rng.integers(start, min(stop or len(raw), len(raw)), count):
        raw[place] ^= 1 << int(rng.integers(8))
    return bytes(raw)


def tiff_flipped_pixels(folder, rng, n):
    """A bit of the pixels is flipped: packed ones have a checksum, plain ones are what they are now."""
    for i in range(n):
        path, packed = folder / f"pixel {i}.tif", i % 2
        grey = (rng.random(SIDES) * 255).astype(np.uint8)
        tifffile.imwrite(path, grey, compression="zlib" if packed else None)
        with tifffile.TiffFile(path) as tiff:
            (start,), (length,) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
        raw = flip(path.read_bytes(), rng, 1, start, start + length)
        path.write_bytes(raw)
        truth = grey if packed else np.frombuffer(raw[start : start + length], np.uint8).reshape(SIDES)
        yield Case("tiff_flipped_pixels", f"packed {packed}", "read_tiff", path, (truth / 255).astype(np.float32))


def tiff_flipped_headers(folder, rng, n):
    """Bits of everything but the pixels are flipped: the file may now be another image, never a broken array."""
    for i, (dtype, layout, options) in enumerate(islice(sound_tiffs(rng), n)):
        path = folder / f"header {i}.tif"
        write_tiff(path, rng, dtype, layout, options)
        path.write_bytes(flip(path.read_bytes(), rng, int(rng.integers(1, 6)), 0, 300))
        yield Case("tiff_flipped_headers", f"{dtype} {layout} {options}", "read_tiff", path)


def stain_folders(folder, rng, n):
    """Folders for `FluorescenceDataset` of which one file is bad."""
    grey = (rng.random(SIDES) * 255).astype(np.uint8)
    kinds = {
        "sound": lambda path: None,
        "constant": lambda path: tifffile.imwrite(path, grey * 0),
        "colour": lambda path: tifffile.imwrite(path, np.stack([grey, grey // 2, grey // 3], -1), photometric="rgb"),
        "another size": lambda path: tifffile.imwrite(path, grey[:16]),
        "one row": lambda path: tifffile.imwrite(path, grey[:1]),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    } | {what: write for what, write in lies_of_tiff(grey).items() if what in ("NaN", "100k x 100k", "palette", "text")}
    for i, (what, spoil) in enumerate(islice(cycle(kinds.items()), n)):
        root = folder / f"stains {i}"
        images = {}
        for channel in ("QD", "CD31", "DAPI"):
            (root / channel).mkdir(parents=True)
            images[channel] = (rng.random(SIDES) * 255).astype(np.uint8)
            tifffile.imwrite(root / channel / "a.tif", images[channel])
        bad = root / str(rng.choice(list(images))) / "a.tif"
        spoil(bad)
        truth = np.stack(list(images.values()))[:, :16, :16] / 127.5 - 1
        if what == "sound":
            yield sound("stain_folders", what, "stains", root, truth.astype(np.float32))
        else:
            yield hopeless("stain_folders", what, "stains", root, names=str(bad.parent.parent))


# --- NIfTI

VOXEL_TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64")
ORIENTATIONS = ("RAS", "LPS", "PIR", "ASL")


def volume_of(rng, dtype):
    """A random volume (X, Y, Z) of a type, in RAS."""
    top = 1000 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max // 2
    return (rng.random(VOXELS) * top).astype(dtype)


def write_volume(path, rng, dtype, codes="RAS", swapped=False, two=False, slope=None):
    """Write a volume; what it must be read as, in RAS."""
    volume = volume_of(rng, dtype)
    plain = nib.Nifti2Image if two else nib.Nifti1Image
    image = plain(volume, np.diag([8.0, 8.0, 9.0, 1.0]), dtype=dtype)
    image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
    header = image.header.as_byteswapped(">") if swapped else image.header
    stored = np.asarray(image.dataobj)
    image = plain(stored, image.affine, header)
    if slope:
        image.header.set_slope_inter(slope, -3)
        raw = image.to_bytes()  # nibabel would undo the slope in the voxels: put them in as they are
        start = int(image.header["vox_offset"]) or image.header.single_vox_offset
        raw = raw[:start] + stored.astype(image.header.get_data_dtype()).tobytes(order="F")
        volume = volume * np.float64(slope) - 3
    else:
        raw = image.to_bytes()
    path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)
    return volume


def sound_volumes(rng):
    """Endless (name, options of `write_volume`)."""
    kinds = list(product(VOXEL_TYPES, ORIENTATIONS, (False, True), (False, True), (".nii", ".nii.gz")))
    rng.shuffle(kinds)
    for dtype, codes, swapped, two, suffix in cycle(kinds):
        slope = 0.25 if dtype == "int16" else None
        yield suffix, dict(dtype=str(dtype), codes=codes, swapped=swapped, two=two, slope=slope)


def nifti_sound(folder, rng, n):
    for i, (suffix, options) in enumerate(islice(sound_volumes(rng), n)):
        path = folder / f"sound {i}{suffix}"
        truth = write_volume(path, rng, **options)
        yield sound("nifti_sound", f"{suffix} {options}", "read_nifti", path, truth)


def with_header(raw, **fields):
    """A NIfTI-1 file's bytes with other header fields, whatever they say."""
    header = nib.Nifti1Header(raw[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + raw[348:]


def lies_of_nifti():
    """{what is wrong: bytes}; every one must be refused, gzipped or not."""
    ramp = np.arange(np.prod(VOXELS), dtype=np.int16).reshape(VOXELS)

    def saved(volume):
        return nib.Nifti1Image(volume, np.diag([8.0, 8.0, 9.0, 1.0])).to_bytes()

    raw = saved(ramp)
    by_quaternion = with_header(raw, sform_code=0, qform_code=1)
    dim = np.array([3, *VOXELS, 1, 1, 1, 1], np.int16)
    colour = np.zeros(VOXELS, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nan = np.where(ramp > 900, np.nan, ramp).astype(np.float32)
    zooms = np.array([1, 8, 8, 9, 1, 1, 1, 1], np.float32)
    return {
        "4-D": saved(np.stack([ramp, ramp], -1)),
        "2-D": saved(ramp[0]),
        "NaN": saved(nan),
        "infinity": saved(np.where(ramp > 900, np.inf, ramp).astype(np.float32)),
        "complex": saved(ramp.astype(np.complex64)),
        "colour": saved(colour),
        "0 voxels": with_header(raw, dim=dim * [1, 0, 1, 1, 1, 1, 1, 1]),
        "negative size": with_header(raw, dim=dim * [1, -1, 1, 1, 1, 1, 1, 1]),
        "header bomb": with_header(raw, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
        "header bomb of 400 MB": with_header(raw, dim=[3, 600, 600, 600, 1, 1, 1, 1]),
        "seven axes": with_header(raw, dim=[7, *VOXELS, 2, 2, 2, 2]),
        "99 axes": with_header(raw, dim=[99, *VOXELS, 1, 1, 1, 1]),
        "unknown type": with_header(raw, datatype=77),
        "wider type": with_header(raw, datatype=64, bitpix=64),
        "voxels far away": with_header(raw, vox_offset=2.0**40),
        "voxels before": with_header(raw, vox_offset=-1e9),
        "voxels nowhere": with_header(raw, vox_offset=np.nan),
        "zoom 0": with_header(raw, srow_x=[0, 0, 0, 0]),
        "zoom of a nanometre": with_header(raw, srow_x=[1e-6, 0, 0, 0], srow_y=[0, 1e-6, 0, 0], srow_z=[0, 0, 1e-6, 0]),
        "zoom of a kilometre": with_header(raw, srow_x=[1e6, 0, 0, 0]),
        "NaN zoom": with_header(by_quaternion, pixdim=zooms * [1, np.nan, 1, 1, 1, 1, 1, 1]),
        "NaN affine": with_header(raw, srow_x=[np.nan] * 4),
        "infinite affine": with_header(raw, srow_x=[np.inf] * 4),
        "flat affine": with_header(raw, srow_x=[8, 0, 0, 0], srow_y=[8, 0, 0, 0]),
        "another magic": with_header(raw, magic=b"nope"),
        "negative extension": with_header(raw, vox_offset=512)[:348] + b"\1\0\0\0" + b"\xe0\xff\xff\xff" + raw[352:],
        "header alone": raw[:348],
        "half a header": raw[:170],
        "text": b"not a volume at all, but long enough to have a header" * 10,
        "nothing": b"",
    }  # fmt: skip


def nifti_odd(folder, rng, n):
    """Headers that break a rule which the voxels do not need: read as if they kept it, or refused."""
    volume = volume_of(rng, "int16")
    raw = nib.Nifti1Image(volume, np.diag([8.0, 8.0, 9.0, 1.0])).to_bytes()
    zooms = np.array([1, 8, 8, 9, 1, 1, 1, 1], np.float32)
    kinds = {
        "infinite slope": with_header(raw, scl_slope=np.inf),
        "NaN intercept": with_header(raw, scl_inter=np.nan),
        "negative zoom": with_header(raw, sform_code=0, qform_code=1, pixdim=zooms * [1, -1, 1, 1, 1, 1, 1, 1]),
        "negative zooms of no use": with_header(raw, pixdim=-zooms),
        "no extension where one should be": raw[:348] + b"\1\0\0\0" + raw[352:],
        "unknown codes": with_header(raw, qform_code=99, xyzt_units=255, intent_code=12345),
        "bytes behind": raw + b"more" * 99,
        "wrong bits": with_header(raw, bitpix=3),
    }
    for i, (what, content) in enumerate(islice(cycle(kinds.items()), n)):
        path = folder / f"odd {i}.nii"
        path.write_bytes(content)
        yield Case("nifti_odd", what, "read_nifti", path, volume)


def nifti_lies(folder, rng, n):
    """Well-formed files whose headers or voxels lie, and gzip bombs."""
    lies = list(lies_of_nifti().items())
    kinds = [(what, raw, ".nii") for what, raw in lies]
    kinds += [(what, gzip.compress(raw, 1), ".nii.gz") for what, raw in lies]
    whole = nib.Nifti1Image(np.zeros(VOXELS, np.int16), np.diag([8.0, 8, 9, 1])).to_bytes()
    far = with_header(whole, vox_offset=2.0**31)[:348] + b"\1\0\0\0" + struct.pack("<2i", 2**31 - 16, 6)
    kinds[5:5] = [
        ("gzip bomb", packed_zeros(whole, 2**32, 31), ".nii.gz"),
        ("extension bomb", packed_zeros(far, 2**31, 31), ".nii.gz"),
    ]
    for i, (what, raw, suffix) in enumerate(islice(cycle(kinds), n)):
        path = folder / f"lie {i}{suffix}"
        path.write_bytes(raw)
        yield hopeless("nifti_lies", f"{suffix} {what}", "read_nifti", path)


def nifti_truncated(folder, rng, n):
    for i, (suffix, options) in enumerate(islice(sound_volumes(rng), n)):
        path = folder / f"cut {i}{suffix}"
        truth = write_volume(path, rng, **options)
        raw = path.read_bytes()
        path.write_bytes(raw[: rng.integers(len(raw))])
        yield hopeless("nifti_truncated", f"{suffix} {options}", "read_nifti", path, truth)


def nifti_flipped_voxels(folder, rng, n):
    """A bit of the voxels is flipped: gzip has a checksum, plain ones are what they are now."""
    for i in range(n):
        path = folder / f"voxel {i}.nii{'.gz' if i % 2 else ''}"
        truth = write_volume(path, rng, "int32")
        raw = path.read_bytes()
        if i % 2:
            path.write_bytes(flip(raw, rng, 1, 10))
        else:
            raw = flip(raw, rng, 1, 352)
            path.write_bytes(raw)
            truth = np.frombuffer(raw[352:], np.int32).reshape(VOXELS, order="F")
        yield Case("nifti_flipped_voxels", path.suffix, "read_nifti", path, truth)


def nifti_flipped_headers(folder, rng, n):
    """Bits of the header are flipped: it may now be another volume, never a broken array."""
    for i, (_, options) in enumerate(islice(sound_volumes(rng), n)):
        path = folder / f"header {i}.nii"
        write_volume(path, rng, **options)
        path.write_bytes(flip(path.read_bytes(), rng, int(rng.integers(1, 6)), 0, 352))
        yield Case("nifti_flipped_headers", f"{options}", "read_nifti", path)


def brats_folders(folder, rng, n):
    """Folders for `BraTSSliceDataset` of which one file is bad."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, k) for k in VOXELS), indexing="ij")
    head = x**2 + y**2 + z**2 < 0.8
    kinds = [("sound", None), ("constant", nib.Nifti1Image(head.astype(np.int16), np.diag([8.0, 8, 9, 1])).to_bytes())]
    kinds += list(lies_of_nifti().items())
    for i, (what, raw) in enumerate(islice(cycle(kinds), n)):
        root = folder / f"case {i}"
        root.mkdir()
        for contrast in ("t1", "t2", "flair"):
            volume = (rng.random(VOXELS) * 1000 * head).astype(np.int16)
            path = root / f"a_{contrast}.nii.gz"
            path.write_bytes(gzip.compress(nib.Nifti1Image(volume, np.diag([8.0, 8.0, 9.0, 1.0])).to_bytes(), 1))
        bad = root / f"a_{rng.choice(['t1', 't2', 'flair'])}.nii.gz"
        if raw is None:
            yield sound("brats_folders", what, "brats", root)
        else:
            bad.write_bytes(gzip.compress(raw, 1))
            yield hopeless("brats_folders", what, "brats", root, names=bad.name)


# --- Checkpoints


def small_network(rng, seed=None):
    torch.manual_seed(int(rng.integers(2**31)) if seed is None else seed)
    return dl.DAMMNet(NETWORK, confidence=dl.QueryConfidence)


def numbers_of(model):
    """All weights of a network, one after the other."""
    return torch.cat([value.double().flatten() for value in model.state_dict().values()]).numpy()


def contents(path):
    """(tensors, description) of a file of safetensors."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, json.loads(file.metadata()["damm_lite"])


def change_description(**changes):
    return lambda tensors, description: description.update(changes)


def change_arguments(**changes):
    return lambda tensors, description: description["arguments"].update(changes)


def change_sizes(**changes):
    return lambda tensors, description: description["arguments"]["config"].update(changes)


DAMAGE = {
    "a tensor is missing": lambda t, d: t.pop("model.uafm.q.weight"),
    "a tensor more": lambda t, d: t.update({"model.extra": torch.zeros(3)}),
    "a tensor of no part": lambda t, d: t.update({"extra": torch.zeros(3)}),
    "another shape": lambda t, d: t.update({"model.uafm.q.bias": torch.zeros(3)}),
    "the same count, another shape": lambda t, d: t.update({"model.uafm.q.bias": torch.zeros(4, 4)}),
    "integers": lambda t, d: t.update({"model.uafm.q.bias": torch.zeros(16, dtype=torch.int32)}),
    "double precision": lambda t, d: t.update({"model.uafm.q.bias": torch.zeros(16, dtype=torch.float64)}),
    "half precision": lambda t, d: t.update({"model.uafm.q.bias": torch.zeros(16, dtype=torch.float16)}),
    "NaN": lambda t, d: t.update({"model.uafm.q.bias": torch.full((16,), torch.nan)}),
    "no schedule": lambda t, d: t.pop("schedule.alphas_cumprod"),
    "a schedule that rises": lambda t, d: t.update({"schedule.alphas_cumprod": torch.linspace(0.1, 0.9, 9)}),
    "a schedule of NaN": lambda t, d: t.update({"schedule.alphas_cumprod": torch.full((9,), torch.nan)}),
    "an empty schedule": lambda t, d: t.update({"schedule.alphas_cumprod": torch.zeros(0)}),
    "a schedule of integers": lambda t, d: t.update({"schedule.alphas_cumprod": torch.ones(1, dtype=torch.int64)}),
    "a double schedule": lambda t, d: t.update(
        {"schedule.alphas_cumprod": torch.linspace(0.9, 0.1, 9, dtype=torch.float64)}
    ),
    "no tensors": lambda t, d: t.clear(),
    "no network": lambda t, d: d.pop("network"),
    "unknown network": change_description(network="torch.nn:Linear"),
    "a network without a module": change_description(network="DAMMNet"),
    "a list for a network": change_description(network=["damm_lite.damm:DAMMNet"]),
    "a part for a network": change_description(network="damm_lite.fusion:MMFM"),
    "unknown entry": change_description(hook="os.system"),
    "no arguments": lambda t, d: d.pop("arguments"),
    "arguments are a list": change_description(arguments=[1, 2]),
    "unknown argument": change_arguments(hook=3),
    "unknown part": change_arguments(confidence={"part": "os:system"}),
    "a part that is text": change_arguments(confidence="damm_lite.fusion:QueryConfidence"),
    "a part without a name": change_arguments(fusion={"part": 3}),
    "a part that is a list": change_arguments(fusion={"part": ["damm_lite.fusion:MMFM"]}),
    "a part and more": change_arguments(fusion={"part": "damm_lite.fusion:MMFM", "hook": 3}),
    "a number for a part": change_arguments(fusion=3),
    "the wrong part": change_arguments(fusion={"part": "damm_lite.prediction_types:PredictsNoise"}),
    "no prediction": change_arguments(prediction=None),
    "another part for a prediction": change_arguments(prediction={"part": "damm_lite.fusion:MMFM"}),
    "a million channels": change_arguments(secondary_channels=10**6),
    "negative channels": change_arguments(secondary_channels=-1),
    "a list for channels": change_arguments(secondary_channels=[1]),
    "no config": lambda t, d: d["arguments"].pop("config"),
    "an empty config": change_arguments(config={}),
    "unknown size": change_sizes(depth=3),
    "huge widths": change_sizes(widths=[80_000] * 4),
    "endless widths": change_sizes(widths=[2**62] * 4),
    "a million widths": change_sizes(widths=[16] * 10**6),
    "text for widths": change_sizes(widths="many"),
    "real widths": change_sizes(widths=[16.0] * 4),
    "huge time": change_sizes(time_dim=8 * 10**6),
    "huge input": change_sizes(in_channels=10**9),
}


def checkpoint_sound(folder, rng, n):
    for i in range(n):
        path, model = folder / f"net {i}.safetensors", small_network(rng)
        save_checkpoint(path, model, dl.cosine_schedule(50), seed=i)
        yield sound("checkpoint_sound", "", "checkpoint", path, numbers_of(model))


def checkpoint_damaged(folder, rng, n):
    """The format is right, what is in it is not."""
    first = folder / "whole.safetensors"
    save_checkpoint(first, small_network(rng), dl.cosine_schedule(50))
    for i, (what, change) in enumerate(islice(cycle(DAMAGE.items()), n)):
        path = folder / f"damaged {i}.safetensors"
        tensors, description = contents(first)
        change(tensors, description)
        save_file(tensors, path, {"damm_lite": json.dumps(description)})
        yield hopeless("checkpoint_damaged", what, "checkpoint", path)


class Bomb:
    """What must never be unpickled: it leaves a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def broken_bytes(raw, trace):
    """{what is wrong: bytes} of a safetensors file; every one must be refused. `trace`: the file of a `Bomb`."""
    (length,) = struct.unpack("<Q", raw[:8])
    header, rest = raw[8 : 8 + length], raw[8 + length :]

    def framed(header):
        return struct.pack("<Q", len(header)) + header + rest

    def described(text):
        return save({"x": torch.zeros(3)}, {"damm_lite": text})

    def pickled(**options):
        buffer = io.BytesIO()
        torch.save({"x": Bomb(trace)}, buffer, **options)
        return buffer.getvalue()

    first = re.search(rb'"data_offsets":\[(\d+),(\d+)\]', header)
    return {
        "huge header length": struct.pack("<Q", 2**62) + raw[8:],
        "header of 90 MB": struct.pack("<Q", 90 * 2**20) + raw[8:],
        "negative header length": b"\xff" * 8 + raw[8:],
        "no header": struct.pack("<Q", 0) + rest,
        "header of text": framed(b"hello there"),
        "header is a list": framed(b"[1, 2, 3]"),
        "nested header": framed(b"[" * 100_000),
        "huge tensor": framed(header[: first.start(2)] + b"99999999999999" + header[first.end(2) :]),
        "negative tensor": framed(header[: first.start(1)] + b"-8" + header[first.end(1) :]),
        "huge shape": framed(re.sub(rb'"shape":\[16', b'"shape":[1600000000', header, count=1)),
        "unknown type": framed(header.replace(b'"F32"', b'"F99"', 1)),
        "nothing": b"",
        "pickle": pickle.dumps(Bomb(trace)),
        "pickle of torch": pickled(),
        "old pickle of torch": pickled(_use_new_zipfile_serialization=False),
        "no description": save({"x": torch.zeros(3)}),
        "description is no JSON": described("{"),
        "description is a list": described("[]"),
        "description is null": described("null"),
        "nested description": described("[" * 100_000),
        "description of 8 MB": described('{"network": "' + "a" * 2**23 + '"}'),
        "endless number": described('{"network": ' + "9" * 10_000 + "}"),
    }


def checkpoint_broken(folder, rng, n):
    """The format itself is wrong, or what is in it could run."""
    save_checkpoint(folder / "sound.safetensors", small_network(rng), dl.cosine_schedule(50))
    kinds = broken_bytes((folder / "sound.safetensors").read_bytes(), folder / "unpickled")
    for i, (what, raw) in enumerate(islice(cycle(kinds.items()), n)):
        path = folder / f"broken {i}.safetensors"
        path.write_bytes(raw)
        yield hopeless("checkpoint_broken", what, "checkpoint", path)


def checkpoint_truncated(folder, rng, n):
    for i in range(n):
        path = folder / f"cut {i}.safetensors"
        save_checkpoint(path, small_network(rng), dl.cosine_schedule(50))
        raw = path.read_bytes()
        path.write_bytes(raw[: rng.integers(len(raw))])
        yield hopeless("checkpoint_truncated", "", "checkpoint", path)


def checkpoint_flipped(folder, rng, n):
    """Bits of the header are flipped; if it can still be read, then as what was written."""
    for i in range(n):
        path, model = folder / f"flipped {i}.safetensors", small_network(rng)
        save_checkpoint(path, model, dl.cosine_schedule(50))
        raw = path.read_bytes()
        stop = 8 + struct.unpack("<Q", raw[:8])[0]
        path.write_bytes(flip(raw, rng, int(rng.integers(1, 4)), 0, stop))
        yield Case("checkpoint_flipped", "", "checkpoint", path, numbers_of(model))


def run_parts(model):
    """(average, optimiser) as in a run."""
    return torch.optim.swa_utils.AveragedModel(model), torch.optim.AdamW(model.parameters())


def write_state(path, rng):
    """Write the state of a run after a step; the numbers of its network and its average."""
    model = small_network(rng)
    ema, optimizer = run_parts(model)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    save_state(path, Step(1, 0.5, model, ema.module, optimizer, RUN, IDENTITY))
    return np.concatenate([numbers_of(model), numbers_of(ema.module)])


STATE_DAMAGE = {
    "a tensor is missing": lambda t, d: t.pop("model.uafm.q.weight"),
    "no average": lambda t, d: [t.pop(key) for key in list(t) if key.startswith("ema.")],
    "no moments": lambda t, d: t.pop("optimizer.0.exp_avg"),
    "a tensor more": lambda t, d: t.update({"optimizer.9999.exp_avg": torch.zeros(3)}),
    "a tensor of no part": lambda t, d: t.update({"extra": torch.zeros(3)}),
    "another shape": lambda t, d: t.update({"optimizer.0.exp_avg": torch.zeros(3)}),
    "integers": lambda t, d: t.update({"ema.uafm.q.bias": torch.zeros(16, dtype=torch.int32)}),
    "another run": lambda t, d: d["config"].update(seed=7),
    "unknown setting": lambda t, d: d["config"].update(hook="os.system"),
    "no setting": lambda t, d: d.pop("config"),
    "no step": lambda t, d: d.pop("step"),
    "a step that is text": change_description(step="3"),
    "a step that is none": change_description(step=True),
    "a step beyond the run": change_description(step=10**9),
    "a negative step": change_description(step=-3),
    "unknown entry": change_description(hook="os.system"),
}


def states(folder, rng, n):
    """What an unfinished run leaves: sound, damaged, broken, and cut."""
    whole = folder / "state.safetensors"
    truth = write_state(whole, rng)
    kinds = [("sound", None), *STATE_DAMAGE.items(), *broken_bytes(whole.read_bytes(), folder / "unpickled").items()]
    for i, (what, damage) in enumerate(islice(chain(kinds, repeat(("cut", None))), n)):
        path, raw = folder / f"state {i}.safetensors", whole.read_bytes()
        if callable(damage):
            tensors, description = contents(whole)
            damage(tensors, description)
            save_file(tensors, path, {"damm_lite": json.dumps(description)})
        else:
            path.write_bytes(damage if damage is not None else raw[: rng.integers(len(raw)) if what == "cut" else None])
        yield (
            sound("states", what, "state", path, truth) if what == "sound" else hopeless("states", what, "state", path)
        )


def released(folder, rng, n):
    """State dicts under the release's names, of which one tensor is wrong: the error must name it, there is no file."""
    spoils = {
        "sound": lambda x: x,
        "no axes": lambda x: x.sum(),
        "an axis more": lambda x: x[None].repeat(2, *[1] * x.ndim),
        "another width": lambda x: x.repeat(3, *[1] * (x.ndim - 1)),
        "nothing": lambda x: x[:0],
        "integers": lambda x: x.int(),
        "NaN": lambda x: x * torch.nan,
        "missing": None,
    }
    model = small_network(rng)
    names = released_names(model)
    whole = {names[key]: value for key, value in model.state_dict().items()}
    keys = ["in_conv.conv.weight", "time_embedder.time_emb.3.weight", "un_crs_attn.q.weight"]
    for i, ((what, spoil), key) in enumerate(islice(product(spoils.items(), keys), n)):
        path = folder / f"released {i}.safetensors"
        tensors = {name: spoil(x) if name == key and spoil else x for name, x in whole.items() if name != key or spoil}
        save_file(tensors, path)
        if what == "sound":
            yield sound("released", what, "released", path, numbers_of(model))
        else:
            yield hopeless("released", f"{what}: {key}", "released", path, names="")


SPEC = {"grids": [{"fusion": ["MMFM", "addition"], "head": ["joint"]}], "seeds": [0, 1], "budget": {"steps": 4}}


def alias_bomb(levels):
    """YAML of a list of lists of lists, each ten times the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD_SPECS = {
    "no YAML": "grids: [{",
    "nothing": "",
    "text": "hello",
    "a list": "[1, 2]",
    "null": "null",
    "a date": "2020-01-01",
    "unknown entry": "grids: [{fusion: all}]\nhook: 3",
    "entries that are no text": "{1: 2, grids: [{fusion: all}]}",
    "no grids": "seeds: [1]",
    "empty grids": "grids: []",
    "grids are text": "grids: all",
    "grids are a dict": "grids: {fusion: all}",
    "grids are a number": "grids: 3",
    "grid is text": "grids: [fusion]",
    "grid is null": "grids: [null]",
    "grid is empty": "grids: [{}]",
    "unknown factor": "grids: [{fusoin: all}]",
    "factor is a list": "grids: [{[fusion]: all}]",
    "unknown level": "grids: [{fusion: [MFMM]}]",
    "level is a dict": "grids: [{fusion: [{a: 1}]}]",
    "levels are a number": "grids: [{fusion: 3}]",
    "levels are null": "grids: [{fusion: null}]",
    "levels are one text": "grids: [{fusion: MMFM}]",
    "no levels": "grids: [{fusion: []}]",
    "the same level twice": "grids: [{fusion: [MMFM, MMFM]}]",
    "two factors of one thing": "grids: [{gate: all, regime: all}]",
    "seeds are a number": "grids: [{fusion: all}]\nseeds: 3",
    "seeds are text": "grids: [{fusion: all}]\nseeds: [a]",
    "seeds are real": "grids: [{fusion: all}]\nseeds: [0.5]",
    "seeds are true": "grids: [{fusion: all}]\nseeds: [true]",
    "a negative seed": "grids: [{fusion: all}]\nseeds: [-1]",
    "a huge seed": f"grids: [{{fusion: all}}]\nseeds: [{10**30}]",
    "no seeds": "grids: [{fusion: all}]\nseeds: []",
    "seeds are null": "grids: [{fusion: all}]\nseeds: null",
    "the same seed twice": "grids: [{fusion: all}]\nseeds: [1, 1]",
    "budget is a list": "grids: [{fusion: all}]\nbudget: [1]",
    "budget is null": "grids: [{fusion: all}]\nbudget: null",
    "unknown budget": "grids: [{fusion: all}]\nbudget: {stesp: 3}",
    "steps are text": "grids: [{fusion: all}]\nbudget: {steps: many}",
    "steps are real": "grids: [{fusion: all}]\nbudget: {steps: 1.5}",
    "steps are true": "grids: [{fusion: all}]\nbudget: {steps: true}",
    "no steps": "grids: [{fusion: all}]\nbudget: {steps: 0}",
    "negative patches": "grids: [{fusion: all}]\nbudget: {patches: -5}",
    "size is odd": "grids: [{fusion: all}]\nbudget: {size: 30}",
    "widths are a number": "grids: [{fusion: all}]\nbudget: {widths: 16}",
    "widths are text": "grids: [{fusion: all}]\nbudget: {widths: many}",
    "widths are wrong": "grids: [{fusion: all}]\nbudget: {widths: [1, 2]}",
    "widths are null": "grids: [{fusion: all}]\nbudget: {widths: null}",
    "python object": "grids: !!python/object/apply:os.system [touch {trace}]",
    "python name": "grids: !!python/name:os.system ''",
    "nested": "grids: " + "[" * 20_000,
    "nested and closed": "grids: " + "[" * 5_000 + "]" * 5_000,
    "aliases": alias_bomb(12) + "\ngrids: [{fusion: *a11}]",
    "aliases as a level": alias_bomb(9) + "\ngrids: [{fusion: [*a8]}]",
    "aliases as a grid": alias_bomb(9) + "\ngrids: *a8",
    "an anchor in itself": "grids: &a [*a]",
    "a level in itself": "grids: [{fusion: &a [*a]}]",
    "4 MB": "grids: [{fusion: all}]\nseeds: [" + "1, " * 2**20 + "1]",
    "a long number": "grids: [{fusion: all}]\nseeds: [" + "9" * 100_000 + "]",
}


def specs(folder, rng, n):
    """Specifications: sound, wrong, cut and flipped. A spec is read as its budget's numbers and its runs."""
    whole = yaml.safe_dump(SPEC)
    truth = np.array(["MMFM x joint 0", "addition x joint 0", "MMFM x joint 1", "addition x joint 1", "4 steps"])
    for i, (what, text) in enumerate(islice(chain([("sound", whole)], BAD_SPECS.items(), repeat(("bytes", ""))), n)):
        path = folder / f"spec {i}.yaml"
        if what == "bytes":
            path.write_bytes(flip(whole.encode(), rng, int(rng.integers(1, 9)))[: rng.integers(len(whole))])
            yield Case("specs", "flipped and cut", "spec", path)
        elif what == "sound":
            path.write_text(text)
            yield sound("specs", what, "spec", path, truth)
        else:
            path.write_text(text.replace("{trace}", str(folder / "unpickled")))
            yield hopeless("specs", what, "spec", path)


# --- What people reported: whole files that say something else than they seem to


def tiff_reported(folder, rng, n):
    """Images turned, inverted, counted, or written the other way round; each of its own pixels."""

    def grey(dtype=np.uint8, shape=SIDES):
        return pixels_of(rng, dtype, shape)

    def turned(value, *rest):
        return [(274, "H", 1, value, True), *rest]

    (below, below_truth), (side, side_truth) = grey(), grey(np.uint16, (*SIDES, 3))
    white, white_truth = grey(np.uint16)
    counts, hot, lost = (rng.integers(0, 400, SIDES) for _ in range(3))
    hot[0, 0] = 2**31 - 1
    mask, camera = rng.random(SIDES) > 0.7, rng.integers(0, 4096, SIDES)

    def two_ways(path):
        with tifffile.TiffWriter(path) as tiff:
            for value in (1, 3):
                tiff.write(grey()[0], extratags=turned(value), metadata=None)

    write = tifffile.imwrite
    camera_of = {"axes": "YX", "SignificantBits": 12, "UUID": OME["UUID"]}
    kinds = {
        "stored from below": (lambda p: write(p, below, extratags=turned(4)), below_truth[::-1]),
        "counts in 32 bits": (lambda p: write(p, counts.astype(np.uint32)), None),
        "colours on their side": (
            lambda p: write(p, side, photometric="rgb", tile=(16, 16), extratags=turned(6)),
            np.moveaxis(np.rot90(side_truth, -1), -1, 0),
        ),
        "no orientation": (lambda p: write(p, grey(np.float32)[0], extratags=turned(9)), None),
        "1 bit, white is 0": (lambda p: Image.fromarray(mask).save(p, tiffinfo={262: 0}), mask),
        "16 bits, white is 0": (lambda p: write(p, white, photometric="miniswhite", byteorder=">"), 1 - white_truth),
        "counts and a hot pixel": (lambda p: write(p, hot.astype(np.int32), compression="zlib"), None),
        "counts in 64 bits": (lambda p: write(p, lost.astype(np.uint64), bigtiff=True), None),
        "channels last": (lambda p: write(p, grey(shape=(40, 30, 2))[0], photometric="minisblack"), None),
        "pages of two orientations": (two_ways, None),
        "12 bits by OME": (lambda p: write(p, camera.astype(np.uint16), ome=True, metadata=camera_of), camera / 4095),
    }
    for i, (what, (make, truth)) in enumerate(islice(cycle(kinds.items()), n)):
        path = folder / f"reported {i}.tif"
        make(path)
        if truth is None:
            yield hopeless("tiff_reported", what, "read_tiff", path)
        else:
            yield sound("tiff_reported", what, "read_tiff", path, np.asarray(truth, np.float32))


def stains_reported(folder, rng, n):
    """Folders of stains in which two files could be meant, or one is not what it seems."""

    def stack():
        slices = (rng.random((2, *SIDES)) * 255).astype(np.uint8)
        return slices[[0, 0, 0, 1]], {"photometric": "minisblack", "imagej": True, "metadata": {"axes": "ZYX"}}

    kinds = {
        "two endings": ("a.ome.tif", lambda: (rng.random(SIDES).astype(np.float32), {"metadata": None})),
        "labels in 16 bits": ("a.tif", lambda: (rng.integers(0, 9, SIDES, dtype=np.uint16), {})),
        "slices for colours": ("a.tif", stack),
    }
    for i, (what, (name, make)) in enumerate(islice(cycle(kinds.items()), n)):
        root = folder / f"reported {i}"
        for channel in ("QD", "CD31", "DAPI"):
            (root / channel).mkdir(parents=True)
            tifffile.imwrite(root / channel / "a.tif", (rng.random(SIDES) * 255).astype(np.uint8))
        bad, (pixels, options) = root / "CD31" / name, make()
        tifffile.imwrite(bad, pixels, **options)
        yield hopeless("stains_reported", what, "stains", root, names=str(bad))


def brats_reported(folder, rng, n):
    """Cases whose background is not 0, whose labels are no labels, or of which two files differ."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, k) for k in VOXELS), indexing="ij")
    head, lesion = x**2 + y**2 + z**2 < 0.8, (x - 0.2) ** 2 + y**2 + z**2 < 0.1
    inner = np.pad(np.ones([k - 2 for k in VOXELS], bool), 1)

    def noise(scale):
        return rng.normal(0, scale, VOXELS)

    kinds = {
        "z-scored": ("t1", lambda v: (v - 500) / 250),
        "labels moved by a rounding": ("seg", lambda v: lesion * 4 + rng.uniform(-9e-4, 9e-4, VOXELS)),
        "noise with a rim of 0": ("t2", lambda v: (v + noise(1e-6)) * inner),
        "labels between others": ("seg", lambda v: (lesion + np.roll(lesion, 1, 0)) * 1.5),
        "labels from 1": ("seg", lambda v: 1.0 + lesion),
        "two files": ("flair", None),
    }
    for i, (what, (contrast, change)) in enumerate(islice(cycle(kinds.items()), n)):
        root = folder / f"reported {i}"
        root.mkdir()
        for each in ("t1", "t2", "flair", "seg"):
            volume = lesion * 4.0 if each == "seg" else rng.random(VOXELS) * 1000 * head
            volume = change(volume) if each == contrast and change else volume
            raw = nib.Nifti1Image(volume.astype(np.float32), np.diag([8.0, 8.0, 9.0, 1.0])).to_bytes()
            (root / f"a_{each}.nii.gz").write_bytes(gzip.compress(raw, 1))
        if change is None:
            other = nib.Nifti1Image((rng.random(VOXELS) * 900 * head).astype(np.int16), np.diag([8.0, 8.0, 9.0, 1.0]))
            (root / f"a_{contrast}.nii").write_bytes(other.to_bytes())
        if "rounding" in what:
            yield sound("brats_reported", what, "brats", root)
        else:
            yield hopeless("brats_reported", what, "brats", root, names=f"a_{contrast}.nii.gz")


# --- All of them


def _image(path):
    return read_tiff(path)


def _stains(root):
    item = dl.FluorescenceDataset(root, "QD", "CD31", "DAPI", size=16)[0]
    return torch.cat([item[key] for key in ("target", "primary", "secondary")]).numpy()


def _volume(path):
    return read_nifti(path)[0]


def _brats(root):
    data = dl.BraTSSliceDataset(root, "flair", "t1", "t2", size=16, slices_per_case=2)
    return torch.cat([data[1][key] for key in ("target", "primary", "secondary", "mask")]).numpy()


def _checkpoint(path):
    return numbers_of(load_checkpoint(path)[0])


def _state(path):
    model = small_network(np.random.default_rng(0))
    ema, optimizer = run_parts(model)
    load_state(path, model, ema, optimizer, RUN, IDENTITY)
    return np.concatenate([numbers_of(model), numbers_of(ema.module)])


def _released(path):
    with safe_open(path, "pt") as file:
        return numbers_of(load_released_state_dict({key: file.get_tensor(key) for key in file.keys()}))  # noqa: SIM118


def _spec(path):
    runs, budget = read_spec(path)
    return np.array([f"{run.names} {run.seed}" for run in runs] + [f"{budget.steps} steps"])


READERS = dict(
    read_tiff=_image, stains=_stains, read_nifti=_volume, brats=_brats, checkpoint=_checkpoint, state=_state,
    released=_released, spec=_spec,
)  # fmt: skip

FAMILIES = {
    tiff_sound: 110,
    tiff_other_writer: 8,
    tiff_lies: 35,
    tiff_wrong_ome: 10,
    tiff_truncated: 60,
    tiff_flipped_pixels: 20,
    tiff_flipped_headers: 80,
    stain_folders: 10,
    nifti_sound: 60,
    nifti_odd: 8,
    nifti_lies: 64,
    nifti_truncated: 40,
    nifti_flipped_voxels: 20,
    nifti_flipped_headers: 60,
    brats_folders: 34,
    checkpoint_sound: 4,
    checkpoint_damaged: 47,
    checkpoint_broken: 22,
    checkpoint_truncated: 12,
    checkpoint_flipped: 12,
    states: 44,
    released: 24,
    specs: 80,
    tiff_reported: 11,
    stains_reported: 3,
    brats_reported: 6,
}


def corpus(folder, share=1.0, seed=0):
    """Write the corpus below `folder`, or a share of every family (at least 2 files); a list of cases."""
    cases = []
    for number, (family, count) in enumerate(FAMILIES.items()):
        (folder / family.__name__).mkdir(parents=True)
        rng = np.random.default_rng([seed, number])
        cases += family(folder / family.__name__, rng, max(2, round(share * count)))
    return cases
