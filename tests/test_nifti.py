"""NIfTI files: every orientation comes in the same way and goes back on its own grid; nothing is overwritten."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

from damm_lite.brains.nifti import read_nifti, write_nifti

SHAPE = (6, 7, 8)
ZOOMS = (1.0, 1.5, 2.0)


@pytest.fixture
def volume():
    """A volume in RAS whose voxels are all different."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 100


def turned(volume, codes, tilt=0.0):
    """The same volume stored with axes `codes`, and its affine, tilted by `tilt` rad about z and x."""
    c, s = np.cos(tilt), np.sin(tilt)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ np.diag(ZOOMS), (10, -20, 30)
    image = nib.Nifti1Image(volume, affine)
    return image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))


@pytest.mark.parametrize("tilt", [0.0, 0.2])
@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "ASL", "SPL"])
def test_every_orientation(tmp_path, volume, codes, tilt):
    image = turned(volume, codes, tilt)
    image.header.set_sform(image.affine, code=4)
    image.header.set_qform(image.affine, code=2)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "in.nii.gz")
    read, source = read_nifti(tmp_path / "in.nii.gz")
    np.testing.assert_array_equal(read, volume)
    write_nifti(tmp_path / "new" / "out.nii.gz", read * 2.5, tmp_path / "in.nii.gz")
    back = nib.load(tmp_path / "new" / "out.nii.gz")
    np.testing.assert_array_equal(back.get_fdata(), image.get_fdata() * 2.5)
    np.testing.assert_array_equal(back.affine, source.affine)
    assert back.shape == source.shape and back.header.get_zooms() == source.header.get_zooms()
    assert back.header.get_xyzt_units() == ("mm", "sec")
    changed = {key for key in back.header if back.header[key].tobytes() != source.header[key].tobytes()}
    assert changed <= {"datatype", "bitpix", "scl_slope", "scl_inter", "descrip"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("more", [(1,), (1, 1)])
def test_axes_of_length_one_are_left_out(tmp_path, volume, more, suffix):
    image = turned(volume, "LPS", 0.2)
    longer = nib.Nifti1Image(np.asarray(image.dataobj).reshape(*image.shape, *more), image.affine)
    nib.save(longer, tmp_path / f"in{suffix}")
    read, source = read_nifti(tmp_path / f"in{suffix}")
    np.testing.assert_array_equal(read, volume)
    np.testing.assert_allclose(source.affine, image.affine, atol=1e-6)
    write_nifti(tmp_path / "out.nii.gz", read, tmp_path / f"in{suffix}")
    back = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(back.get_fdata(), image.get_fdata())
    np.testing.assert_array_equal(back.affine, source.affine)
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), np.eye(4)), tmp_path / "two.nii")
    with pytest.raises(ValueError, match=r"two.nii: expected a 3-D volume .*got shape \(6, 7, 8, 2\)"):
        read_nifti(tmp_path / "two.nii")


@pytest.mark.parametrize("dtype, slope", [("uint8", 1), ("int16", 1), ("int16", 0.5), ("float32", 1), ("float64", 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_type(tmp_path, volume, dtype, slope, suffix):
    stored = (volume % 200).astype(dtype)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, 0)
    nib.save(image, tmp_path / f"in{suffix}")
    with open(tmp_path / f"in{suffix}", "rb") as file:
        before = file.read()
    read, _ = read_nifti(tmp_path / f"in{suffix}")
    np.testing.assert_allclose(read, nib.load(tmp_path / f"in{suffix}").get_fdata())
    write_nifti(tmp_path / "out.nii", read, tmp_path / f"in{suffix}")
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").get_fdata(), read)
    assert (tmp_path / f"in{suffix}").read_bytes() == before


def test_nothing_but_predictions_is_overwritten(tmp_path, volume):
    source, out = tmp_path / "a_flair.nii.gz", tmp_path / "pred.nii.gz"
    nib.save(nib.Nifti1Image(volume, np.eye(4)), source)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a_t1.nii.gz")
    (tmp_path / "notes.nii").write_text("not NIfTI at all")
    (tmp_path / "link.nii.gz").symlink_to(source)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("a_flair.nii.gz", "a_t1.nii.gz", "notes.nii", "link.nii.gz"):
        with pytest.raises(FileExistsError, match=name):
            write_nifti(tmp_path / name, volume, source)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_nifti(out, volume, source)
    write_nifti(out, volume + 1, source)  # our own may be replaced
    np.testing.assert_array_equal(nib.load(out).get_fdata(), volume + 1)
    with pytest.raises(FileExistsError):  # unless it is itself the source
        write_nifti(out, volume, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(p.name for p in before), out.name])


def test_what_cannot_be_written(tmp_path, volume):
    source = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(volume, np.eye(4)), source)
    with pytest.raises(ValueError, match=r"expected the shape \(6, 7, 8\).*got \(7, 6, 8\)"):
        write_nifti(tmp_path / "b.nii", volume.transpose(1, 0, 2), source)
    with pytest.raises(ValueError, match="finite"):
        write_nifti(tmp_path / "b.nii", np.full(SHAPE, np.nan), source)
    with pytest.raises(ValueError, match="ends in .nii or .nii.gz"):
        write_nifti(tmp_path / "b.png", volume, source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]


def saved(path, volume):
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    return path.read_bytes()


BAD = {
    "4-D": ("a.nii.gz", lambda p, v: saved(p, np.stack([v, v], -1)), r"3-D volume.* got shape \(6, 7, 8, 2\)"),
    "2-D": ("a.nii.gz", lambda p, v: saved(p, v[0]), "3-D volume"),
    "truncated gzip": ("a.nii.gz", lambda p, v: p.write_bytes(saved(p, v)[:-100]), "NIfTI file"),
    "cut by a byte": ("a.nii.gz", lambda p, v: p.write_bytes(saved(p, v)[:-1]), "whole NIfTI"),
    "truncated": ("a.nii", lambda p, v: p.write_bytes(saved(p, v)[:-100]), "whole NIfTI"),
    "flipped bit": (
        "a.nii.gz",
        lambda p, v: p.write_bytes((raw := bytearray(saved(p, v))) and raw[:-30] + bytes([raw[-30] ^ 1]) + raw[-29:]),
        "whole NIfTI",
    ),
    "empty": ("a.nii.gz", lambda p, v: p.write_bytes(b""), "NIfTI file"),
    "text": ("a.nii", lambda p, v: p.write_text("hello"), "NIfTI file"),
    "gzipped text": ("a.nii.gz", lambda p, v: p.write_bytes(gzip.compress(b"hello")), "NIfTI file"),
    "NaN": ("a.nii.gz", lambda p, v: saved(p, np.where(v > 0, np.nan, v).astype(np.float32)), "finite"),
}


@pytest.mark.parametrize("name, make, message", BAD.values(), ids=BAD)
def test_bad_files_are_named(tmp_path, volume, name, make, message):
    make(tmp_path / name, volume)
    with pytest.raises(ValueError, match=message) as caught:
        read_nifti(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere.nii"):
        read_nifti(tmp_path / "nowhere.nii")


def test_orientation_is_nibabels(volume):
    """The fixture itself: `turned` really stores other axes."""
    image = turned(volume, "PIR")
    assert nib.aff2axcodes(image.affine) == ("P", "I", "R")
    np.testing.assert_array_equal(
        apply_orientation(np.asarray(image.dataobj), ornt_transform(axcodes2ornt("PIR"), axcodes2ornt("RAS"))), volume
    )
