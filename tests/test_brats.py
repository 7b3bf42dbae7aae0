"""BraTS folders: both generations of names, every way a case can be bad, laziness, patients kept apart, and back."""

import gzip
import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from damm_lite.brains import brats
from damm_lite.brains.brats import BraTSSliceDataset
from damm_lite.brains.cases import check_contrasts, find_cases, hold_out, patient_of, split_patients
from damm_lite.brains.nifti import write_nifti
from damm_lite.brains.stored import StoredSlices
from damm_lite.brains.volumes import IntensityScale
from damm_lite.data import stack

OLD = {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair", "seg": "_seg"}
NEW = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}
SHAPE = (24, 28, 16)
ZOOMS = np.array([8.0, 8.0, 9.0, 1.0])  # 24 x 8 mm = 192 mm


def brain(shape=SHAPE):
    """An ellipsoid (X, Y, Z), bool, that is no mirror image of itself."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (x * 1.2 + 0.1 * y) ** 2 + (y * 1.1 - 0.1) ** 2 + (z * 1.2) ** 2 < 0.8


def write_case(folder, case, names=OLD, suffix=".nii.gz", skip=(), affine=None, shape=SHAPE, seed=0):
    """Write a case with the contrasts of `names`, int16, some voxels negative."""
    rng, mask = np.random.default_rng(seed), brain(shape)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (contrast, end) in enumerate(names.items()):
        if contrast in skip:
            continue
        if contrast == "seg":
            volume = np.zeros(shape, np.int16)
            volume[8:12, 10:15, 6:9] = 4
        else:
            ramp = np.tensordot((20, 10, 5), np.indices(shape), 1)
            volume = ((ramp * (i + 1) + rng.normal(0, 10, shape) - 30) * mask).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, np.diag(ZOOMS) if affine is None else affine), folder / f"{case}{end}{suffix}")


def open_folder(root, **options):
    return BraTSSliceDataset(root, **({"target": "flair", "primary": "t1", "secondary": "t2", "size": 24} | options))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("names", [OLD, NEW], ids=["2021", "2023"])
@pytest.mark.parametrize("nested", ["", "HGG/site 3/a"])
def test_both_generations_at_any_depth(tmp_path, names, suffix, nested):
    for case in ("BraTS-GLI-00001-000", "BraTS2021_00002"):
        write_case(tmp_path / nested / case, case, names, suffix)
    (tmp_path / "README.txt").write_text("not a case")
    for left in ("._BraTS2021_00002_t1.nii.gz", "__MACOSX/BraTS2021_00003_t1.nii", ".trash/BraTS2021_00002_t1.nii"):
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).write_text("what some systems leave behind")
    data = open_folder(tmp_path, secondary=["t2", "t1ce"], slices_per_case=5)
    assert data.cases == ["BraTS-GLI-00001-000", "BraTS2021_00002"] and len(data) == 10
    item = data[7]
    assert item["case"] == "BraTS2021_00002" and item["segmented"] and item["secondary"].shape == (2, 24, 24)
    for key in ("target", "primary", "mask", "lesion"):
        assert item[key].shape == (1, 24, 24) and item[key].dtype == torch.float32
    assert list(find_cases(tmp_path)["BraTS2021_00002"]) == sorted(OLD, key=lambda c: names[c])


def test_a_case_is_one_however_its_accents_are_written(tmp_path):
    for case, contrast in (("Ren\u00e9", "t1"), ("Rene\u0301", "t2"), ("Ren\u00e9", "flair")):
        (tmp_path / f"{case}_{contrast}.nii").touch()
    assert {case: set(files) for case, files in find_cases(tmp_path).items()} == {"Ren\u00e9": {"flair", "t1", "t2"}}


@pytest.mark.parametrize(
    "names, case",
    [
        ({"t1": "T1", "t1ce": "T1GD", "t2": "T2", "flair": "FLAIR"}, "UPENN-GBM-00001_11"),
        ({"t1": "T1", "t1ce": "T1c", "flair": "FLAIR", "seg": "tumor_segmentation"}, "UCSF-PDGM-0004"),
        ({"t1": "t1", "t1ce": "t1Gd", "t2": "t2", "flair": "flair"}, "TCGA-02-0003_1997.06.08"),
        ({"t1": "T1", "t1ce": "CT1", "t2": "T2", "flair": "FLAIR"}, "Patient-001_week-044"),
        ({"t1": "T1w", "t1ce": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}, "sub-07_ses-02"),
        ({"t1": "t1", "t1ce": "t1ce", "flair": "flair", "seg": "lesion"}, "openms_patient07"),
    ],
)
def test_contrasts_are_known_by_the_names_of_other_collections(tmp_path, names, case):
    for name in names.values():
        (tmp_path / f"{case}_{name}.nii.gz").touch()
    ((found, files),) = find_cases(tmp_path).items()
    assert found == case and {contrast: path.name for contrast, path in files.items()} == {
        contrast: f"{case}_{name}.nii.gz" for contrast, name in names.items()
    }


def test_items_hold_what_the_files_do(tmp_path):
    """At one pixel a voxel nothing is resized, so every value can be recomputed from the file."""
    write_case(tmp_path, "a")
    data = open_folder(tmp_path, slices_per_case=6)
    mask = brain()
    areas = mask.sum(axis=(0, 1))
    for item in list(data):
        k = item["slice"]
        assert areas[k] >= 0.4 * areas.max()
        for key, contrast in (("target", "flair"), ("primary", "t1"), ("secondary", "t2")):
            volume = nib.load(tmp_path / f"a_{contrast}.nii.gz").get_fdata()
            low, less, more, high = np.percentile(volume[mask], [0.5, 5, 95, 99.5])
            pieces = [volume < less, volume <= more]
            lines = -1 + 0.2 * (volume - low) / (less - low), -0.8 + 1.6 * (volume - less) / (more - less)
            scaled = np.select(pieces, lines, 0.8 + 0.2 * (volume - more) / (high - more))
            expected = np.where(mask, scaled.clip(-1, 1), -1)[::-1, ::-1, k].T
            x = item[key][0].numpy()
            np.testing.assert_array_equal((x > -1).sum(), (expected > -1).sum())
            rows = data.whole("a").frame.rows
            window = np.pad(expected, [(24, 24), (24, 24)], constant_values=-1)[rows[0] + 24 : rows[1] + 24]
            columns = data.whole("a").frame.columns
            np.testing.assert_allclose(x, window[:, columns[0] + 24 : columns[1] + 24], atol=1e-4)
        assert (item["target"][item["mask"] == 0] == -1).all()
        assert (item["lesion"].sum() > 0) == (k in (6, 7, 8))
    assert data[0]["slice"] < data[5]["slice"]


def test_no_segmentation_no_lesion(tmp_path):
    write_case(tmp_path, "a", skip=["seg"])
    item = open_folder(tmp_path)[5]
    assert item["lesion"].sum() == 0 and not item["segmented"]
    batch = stack(open_folder(tmp_path)[i] for i in range(4))
    assert batch["segmented"].dtype == torch.bool and batch["case"] == ["a"] * 4


@pytest.mark.parametrize("codes", ["LAS", "LPS", "PIR"])
def test_orientation_on_disk_does_not_matter(tmp_path, codes):
    write_case(tmp_path / "ras", "a")
    for path in (tmp_path / "ras").iterdir():
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        )
        (tmp_path / "other").mkdir(exist_ok=True)
        nib.save(image.as_reoriented(turn), tmp_path / "other" / path.name)
    for a, b in zip(open_folder(tmp_path / "ras"), open_folder(tmp_path / "other"), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("target", "primary", "secondary", "mask", "lesion"))
        assert a["slice"] == b["slice"]


def spoil_shape(folder):
    write_case(folder, "b", {"t2": "_t2"}, shape=(24, 28, 12))


def spoil_affine(folder):
    write_case(folder, "b", {"t2": "_t2"}, affine=np.diag([8.0, 8.0, 10.0, 1.0]))


def spoil_4d(folder):
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 2), np.int16), np.diag(ZOOMS)), folder / "b_t2.nii.gz")


def spoil_gzip(folder):
    raw = (folder / "b_t2.nii.gz").read_bytes()
    (folder / "b_t2.nii.gz").write_bytes(raw[: len(raw) // 2])


def spoil_last_byte(folder):
    raw = (folder / "b_t2.nii.gz").read_bytes()
    (folder / "b_t2.nii.gz").write_bytes(raw[:-1])


def spoil_plain(folder):
    image = nib.load(folder / "b_t2.nii.gz")
    nib.save(image, folder / "b_t2.nii")
    (folder / "b_t2.nii").write_bytes((folder / "b_t2.nii").read_bytes()[:-9])


def empty(folder, suffix=".nii.gz"):
    for contrast in ("t1", "t1ce", "t2", "flair"):
        (folder / f"b_{contrast}.nii.gz").unlink()
        image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag(ZOOMS))
        nib.save(image, folder / f"b_{contrast}{suffix}")


BAD = {
    "missing": (lambda f: (f / "b_t2.nii.gz").unlink(), "no t2; it has flair, seg, t1, t1ce"),
    "broken link": (
        lambda f: ((f / "b_t2.nii.gz").unlink(), (f / "b_t2.nii.gz").symlink_to(f / "gone.nii.gz")),
        "b_t2.nii.gz: no such file",
    ),
    "shape": (spoil_shape, r"b_t2.nii.gz has the shape \(24, 28, 12\), flair has \(24, 28, 16\)"),
    "affine": (spoil_affine, r"b_t2.nii.gz lies elsewhere than flair.*10\.0"),
    "4-D": (spoil_4d, r"3-D volume.*\(24, 28, 16, 2\)"),
    "truncated gzip": (spoil_gzip, "b_t2.nii.gz: expected a whole NIfTI file"),
    "cut by a byte": (spoil_last_byte, "b_t2.nii.gz: expected a whole NIfTI file"),
    "truncated": (spoil_plain, "b_t2.nii: expected a whole NIfTI file"),
    "empty": (empty, "expected a brain, got voxels that are all 0"),
    "empty, plain": (lambda f: empty(f, ".nii"), "expected a brain, got voxels that are all 0"),
    "segmentation elsewhere": (
        lambda f: write_case(f, "b", {"seg": "_seg"}, affine=np.eye(4)),
        "b_seg.nii.gz lies elsewhere",
    ),
    "no image": (lambda f: (f / "b_t2.nii.gz").write_bytes(gzip.compress(b"no")), "b_t2.nii.gz: expected a NIfTI"),
}


@pytest.mark.parametrize("spoil, message", BAD.values(), ids=BAD)
def test_bad_cases_are_named_and_can_be_skipped(tmp_path, spoil, message):
    for case in ("a", "b", "c"):
        write_case(tmp_path / case, case)
    spoil(tmp_path / "b")
    with pytest.raises(ValueError, match=f"case b: .*{message}"):
        open_folder(tmp_path)
    data = open_folder(tmp_path, skip_bad=True, slices_per_case=3)
    assert data.cases == ["a", "c"] and list(data.skipped) == ["b"] and "case b: " in data.skipped["b"]
    assert [item["case"] for item in data] == ["a"] * 3 + ["c"] * 3
    assert open_folder(tmp_path, cases=["a"]).skipped == {}


def test_damage_inside_a_file_is_found_when_it_is_read(tmp_path):
    write_case(tmp_path, "a")
    raw = bytearray((tmp_path / "a_t2.nii.gz").read_bytes())
    raw[-200] ^= 1
    (tmp_path / "a_t2.nii.gz").write_bytes(raw)
    data = open_folder(tmp_path)
    with pytest.raises(ValueError, match=r"case a: .*a_t2.nii.gz: expected a whole NIfTI file"):
        data[0]


def test_what_else_can_be_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no BraTS case; expected files such as CASE_t1.nii.gz.*got no files"):
        open_folder(tmp_path)
    (tmp_path / "scan.dcm").write_text("DICOM")
    with pytest.raises(ValueError, match=r"no BraTS case.*scan.dcm"):
        open_folder(tmp_path)
    write_case(tmp_path / "a", "a")
    with pytest.raises(ValueError, match="unknown contrast 'T2'; expected one of t1, t1ce, t2, flair"):
        open_folder(tmp_path, secondary="T2")
    with pytest.raises(ValueError, match="unknown contrast 'seg'"):
        open_folder(tmp_path, target="seg")
    with pytest.raises(ValueError, match="no case z; it has a"):
        open_folder(tmp_path, cases=["a", "z"])
    with pytest.raises(ValueError, match="multiple of 4 pixels, got 30"):
        open_folder(tmp_path, size=30)
    with pytest.raises(ValueError, match="slices_per_case: expected at least 1"):
        open_folder(tmp_path, slices_per_case=0)
    write_case(tmp_path / "copy", "a")
    with pytest.raises(ValueError, match="case a: two files for"):
        open_folder(tmp_path)


def test_a_plain_file_goes_before_its_gzipped_twin(tmp_path):
    write_case(tmp_path, "a", suffix=".nii")
    write_case(tmp_path, "a", suffix=".nii.gz", seed=1)
    assert {path.suffix for path in find_cases(tmp_path)["a"].values()} == {".nii"}


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_case(tmp_path / "store" / "a", "a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    assert open_folder(tmp_path / "data").cases == ["a"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    write_case(root / "first", "first")
    for i in range(200):
        folder = root / f"BraTS-GLI-{i:05d}-000"
        folder.mkdir()
        for contrast in ("t1", "t2", "flair"):
            name = f"{folder.name}{NEW[contrast]}.nii.gz"
            (folder / name).hardlink_to(root / "first" / f"first_{contrast}.nii.gz")
    return root


def test_opening_reads_no_volume_and_memory_stays_small(many, monkeypatch):
    loads = []
    read = brats.read_nifti
    monkeypatch.setattr(brats, "read_nifti", lambda path: loads.append(path) or read(path))
    data = open_folder(many, slices_per_case=2)
    assert len(data.cases) == 201 and loads == []
    assert len([data[0], data[1], data[0]]) == 3 and len(loads) == 3  # one case, three contrasts
    volume_bytes = 4 * np.prod(SHAPE)
    for i in range(20):
        data[i]
    tracemalloc.start()
    for i in range(120):
        data[i]
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data._kept) == brats.CACHED_CASES
    assert kept < 30 * volume_bytes and peak < 60 * volume_bytes  # 60 cases have 180 volumes
    assert len(loads) <= 4 * (60 + 10)  # in order, each case is read once


def test_workers_see_the_same(tmp_path):
    write_case(tmp_path, "a")
    data = open_folder(tmp_path, slices_per_case=4)
    loaded = next(iter(DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="spawn")))
    assert torch.equal(loaded["target"], stack(data)["target"])


def test_follow_up_scans_are_one_patient():
    assert patient_of("BraTS-GLI-00001-000") == patient_of("BraTS-GLI-00001-001") == "BraTS-GLI-00001"
    alone = (
        "BraTS2021_00001",
        "BraTS20_Training_001",
        "TCGA-DU-7294",
        "Brats18_TCIA01_131_1",
        "p-001",
        "001",
        "sub-0_1",
    )
    for case in alone:
        assert patient_of(case) == case


@pytest.mark.parametrize(
    "first, later",
    [
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"),
        ("UCSF-PDGM-0541", "UCSF-PDGM-0541_FU016d"),
        ("TCGA-02-0006_1996.08.23", "TCGA-02-0006_1997.01.02"),
        ("sub-007_ses-01", "sub-007_ses-02"),
        ("Patient-042_week-000-1", "Patient-042_week-044"),
        ("BraTS-GLI-00003-000", "BraTS-GLI-00003-1001"),
        ("BraTS-MET-00003-000", "BraTS-MET-00003-001"),
        ("BraTS-MEN-RT-0003-1", "BraTS-MEN-RT-0003-2"),
        ("UCSF-PDGM-041", "UCSF-PDGM-041_FU003d"),
        ("TCGA-02-0006-1996-08-23", "TCGA-02-0006-1997-11-12"),
        ("RHUH-0001_0", "RHUH-0001_2"),
        ("PatientID_0003_Timepoint_1", "PatientID_0003_Timepoint_2"),
        ("10118_time1", "10118_time2"),
        ("OAS30001_MR_d1129", "OAS30001_MR_d1757"),
        ("sub-007_ses-01_acq-mprage_run-1", "sub-007_ses-02_run-2"),
        ("sub-007_run-1", "sub-007_run-2"),
        ("sub-007_ses-pre_space-MNI152", "sub-007"),
        ("p-07_visit-1", "p-07_visit-2"),
    ],
)
def test_follow_up_scans_of_other_collections_too(first, later):
    assert patient_of(first) == patient_of(later) != patient_of(first.replace("0", "9"))
    cases = [name.replace("0", digit) for digit in "0123456" for name in (first, later)]
    fit, held = ({patient_of(case) for case in part} for part in hold_out(cases, 0.4))
    assert not fit & held and len(fit | held) == 7


def test_patients_may_be_told_by_a_table():
    table = {f"scan {i}": f"patient {i // 3}" for i in range(12)}
    fit, held = hold_out(table, 0.25, patient_of=table.get)
    assert len(held) == 3 and not {table[case] for case in fit} & {table[case] for case in held}


def rewritten(path, change, dtype=np.float32):
    """The volume in this file changed; saved anew."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(image.get_fdata()).astype(dtype), image.affine), path)


@pytest.mark.parametrize(
    "change",
    [lambda x: (x - 100) / 50, lambda x: x + np.random.default_rng(0).normal(0, 1e-6, x.shape)],
    ids=["z-scored", "noise"],
)
def test_a_background_that_is_not_zero_is_named(tmp_path, change):
    write_case(tmp_path, "a")
    (path,) = tmp_path.rglob("*flair*")
    rewritten(path, change)
    with pytest.raises(ValueError, match=r"case a: .*flair.*expected 0 around the brain, got values such as"):
        open_folder(tmp_path)[0]


def within(margin):
    """All but a margin of a volume, in which it is 0."""
    inside = np.zeros(SHAPE, bool)
    inside[tuple(slice(each, each and -each) if each else slice(None) for each in margin)] = True
    return inside


@pytest.mark.parametrize("margin", [(1, 1, 1), (3, 2, 2), (0, 0, 2)], ids=str)
@pytest.mark.parametrize(
    "change",
    [lambda x: (x - 100) / 50, lambda x: x + np.random.default_rng(0).normal(0, 1e-6, x.shape)],
    ids=["z-scored", "noise"],
)
def test_a_rim_of_zeros_does_not_hide_such_a_background(tmp_path, change, margin):
    write_case(tmp_path, "a")
    for path in tmp_path.rglob("*t1.nii*"):
        rewritten(path, lambda x: change(x) * within(margin))
    with pytest.raises(ValueError, match=r"case a: .*_t1\..*expected 0 around the brain, got values such as"):
        open_folder(tmp_path)[0]


def test_brains_that_are_cut_off_or_fill_the_volume_are_read(tmp_path):
    write_case(tmp_path, "a")
    there = [np.flatnonzero(brain().any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    tight = [slice(side[0], side[-1] + 1) for side in there]
    for name, cut in {"tight": tight, "half": [*tight[:2], slice(tight[2].start, 8)], "side": [slice(0, 12)]}.items():
        (tmp_path / name).mkdir()
        for path in tmp_path.glob("a_*"):
            image = nib.load(path)
            part = image.get_fdata()[tuple(cut)].astype(np.int16)
            nib.save(nib.Nifti1Image(part, image.affine), tmp_path / name / path.name)
        whole = open_folder(tmp_path / name).whole("a")
        assert whole.brain.sum() == pytest.approx(brain()[tuple(cut)].sum(), rel=0.01)


@pytest.mark.parametrize(
    "change", [lambda x: x + 1, lambda x: np.where(x > 0, 1, 255), lambda x: x == 0, lambda x: x + 2 * brain()]
)
def test_labels_of_everything_are_no_tumour(tmp_path, change):
    write_case(tmp_path, "a")
    (path,) = tmp_path.rglob("*seg*")
    rewritten(path, change, np.int16)
    with pytest.raises(ValueError, match=r"case a: .*seg.*expected labels of a tumour, and 0 elsewhere, got them in"):
        open_folder(tmp_path)[0]


def test_a_gzipped_twin_must_hold_the_same(tmp_path):
    write_case(tmp_path, "a")
    twin = tmp_path / "a_t2.nii.gz"
    plain = tmp_path / "a_t2.nii"
    plain.write_bytes(gzip.decompress(twin.read_bytes()))
    expected = open_folder(tmp_path)[0]["secondary"]
    twin.unlink()
    assert torch.equal(open_folder(tmp_path)[0]["secondary"], expected)
    for content, message in (
        (gzip.compress(plain.read_bytes() + b"0"), "hold different volumes; remove one"),
        (gzip.compress(plain.read_bytes()[:-2] + b"00"), "hold different volumes; remove one"),
        (gzip.compress(plain.read_bytes())[:-9], "Compressed file ended"),
        (gzip.compress(plain.read_bytes())[:10] + bytes(99), "Error -3"),
    ):
        twin.write_bytes(content)
        with pytest.raises(ValueError, match=f"case a: .*a_t2.nii.gz.*{message}"):
            open_folder(tmp_path)


def test_labels_are_whole_numbers(tmp_path):
    write_case(tmp_path, "a")
    (path,) = tmp_path.rglob("*seg*")
    expected = torch.stack([item["lesion"] for item in open_folder(tmp_path)])
    assert expected.any()
    rewritten(path, lambda x: x + 1e-6)
    assert torch.equal(torch.stack([item["lesion"] for item in open_folder(tmp_path)]), expected)
    rewritten(path, lambda x: (x + np.roll(x, 1, 0)) / 3)
    with pytest.raises(ValueError, match=r"case a: .*seg.*expected labels that are whole numbers, got"):
        open_folder(tmp_path)[0]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), unique=True, min_size=1, max_size=60),
    st.integers(0, 5),
    st.sampled_from([(0.8, 0.2), (0.7, 0.1, 0.2), (1.0,), (0.5, 0.5), (0.0, 1.0)]),
    st.randoms(use_true_random=False),
)
def test_no_patient_is_on_both_sides(scans, seed, fractions, shuffle):
    cases = [f"BraTS-GLI-{patient:05d}-{visit:03d}" for patient, visit in scans]
    parts = split_patients(cases, fractions, seed)
    assert sorted(sum(parts, [])) == sorted(cases)
    patients = [{patient_of(case) for case in part} for part in parts]
    assert sum(len(p) for p in patients) == len(set().union(*patients))
    for p, fraction in zip(patients, fractions, strict=True):
        assert abs(len(p) - fraction * len(set().union(*patients))) <= 1
    shuffled = list(cases)
    shuffle.shuffle(shuffled)
    assert split_patients(shuffled, fractions, seed) == parts


def test_splits_differ_with_the_seed_and_are_checked():
    cases = [f"BraTS-GLI-{i:05d}-000" for i in range(20)]
    assert split_patients(cases, seed=0) != split_patients(cases, seed=1)
    assert [len(part) for part in split_patients(cases)] == [16, 4]
    with pytest.raises(ValueError, match="add up to 1"):
        split_patients(cases, (0.8, 0.8))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "AIL"])
def test_a_predicted_volume_lies_on_the_sources_grid(tmp_path, codes):
    tilt = nib.eulerangles.euler2mat(0.1, 0.05, -0.2)
    affine = np.eye(4)
    affine[:3] = np.c_[tilt @ np.diag(ZOOMS[:3]), (5, 6, -70)]
    write_case(tmp_path / "in", "a", affine=affine)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    for path in (tmp_path / "in").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image.from_bytes(image.to_bytes()).as_reoriented(turn), path)
    data = open_folder(tmp_path / "in")
    slices = data.whole("a")
    volume = slices.restore(slices.batch()["target"])  # as if the prediction were perfect
    write_nifti(tmp_path / "out" / "a_flair.nii.gz", volume, slices.source)
    made, truth = nib.load(tmp_path / "out" / "a_flair.nii.gz"), nib.load(slices.source)
    np.testing.assert_array_equal(made.affine, truth.affine)
    assert made.shape == truth.shape and made.header.get_zooms() == truth.header.get_zooms()
    low, *_, high = slices.scales[0].intensities
    outside = np.logical_and.reduce([nib.load(p).get_fdata() == 0 for p in slices.source.parent.glob("a_[tf]*")])
    assert (made.get_fdata()[outside] == 0).all() and np.isfinite(made.get_fdata()).all()
    np.testing.assert_allclose(
        made.get_fdata()[~outside], np.clip(truth.get_fdata()[~outside], low, high), atol=(high - low) * 1e-5
    )


def test_predictions_can_take_another_scale_and_some_slices(tmp_path):
    write_case(tmp_path, "a")
    slices = open_folder(tmp_path, size=16).whole("a")
    x0 = torch.zeros(len(slices.slices), 1, 16, 16)
    volume = slices.restore(x0, IntensityScale((100, 300)))
    assert set(np.unique(volume)) == {0, 200} and (volume != 0).sum() == brain().sum()
    few = slices._replace(**{key: getattr(slices, key)[3:5] for key in ("images", "mask", "lesion", "slices")})
    volume = few.restore(x0[3:5], IntensityScale((100, 300)))
    assert np.flatnonzero(volume.any(axis=(0, 1))).tolist() == slices.slices[3:5].tolist()
    with pytest.raises(ValueError, match=r"case a: expected predictions \(\d+, 1, 16, 16\), got \(2, 1, 16, 16\)"):
        slices.restore(x0[:2])


def test_the_real_cases(shared, tmp_path):
    root = shared / "data" / "brats"
    cases = ["TCGA-DU-7294", "TCGA-FG-6692"]
    data = open_folder(root, size=64, secondary=["t2", "t1ce"], cases=cases, slices_per_case=8)
    assert data.cases == cases and len(data) == 16
    assert split_patients(data.cases, (0.5, 0.5)) != [data.cases, []]
    for item in (data[3], data[12]):
        assert item["secondary"].shape == (2, 64, 64) and not item["segmented"]
        inside = item["mask"] == 1
        assert 0.15 < inside.float().mean() < 0.8 and item["target"][inside].std() > 0.1
        assert torch.corrcoef(torch.stack([item["primary"][inside], item["secondary"][1:][inside]]))[0, 1] > 0.5
    slices = open_folder(root, cases=cases, size=192).whole("TCGA-FG-6692")  # 1 mm a pixel: nothing is resized
    volume = slices.restore(slices.batch()["target"])
    write_nifti(tmp_path / "pred.nii.gz", volume, slices.source)
    made, truth = nib.load(tmp_path / "pred.nii.gz"), nib.load(slices.source)
    np.testing.assert_array_equal(made.affine, truth.affine)
    assert made.header.get_zooms() == truth.header.get_zooms()
    inside = truth.get_fdata() != 0
    assert (truth.get_fdata() < 0).any()
    expected = np.clip(truth.get_fdata()[inside], *slices.scales[0].intensities[::3])
    np.testing.assert_allclose(made.get_fdata()[inside], expected, atol=1e-2)


@given(st.integers(2, 400), st.sampled_from([0.0, 0.1, 0.2, 0.5]), st.integers(0, 3))
def test_at_least_one_patient_is_held_out_and_one_is_not(n, share, seed):
    fit, held = hold_out([f"p{i}-001" for i in range(n)], share, seed)
    assert len(fit) + len(held) == n and fit and held
    assert abs(len(held) - max(1, share * n)) < 1


def test_holding_out_takes_two_patients():
    with pytest.raises(ValueError, match="at least 2 patients.*got BraTS-GLI-00001"):
        hold_out(["BraTS-GLI-00001-000", "BraTS-GLI-00001-001"])
    with pytest.raises(ValueError, match="got none"):
        hold_out([])


def test_contrasts_by_name():
    assert check_contrasts("flair", "t1", "t2") == ["flair", "t1", "t2"]
    assert check_contrasts("flair", "t1", "t2, t1ce") == check_contrasts("flair", "t1", ["t2", "t1ce"])
    for secondary, wrong in (("T2", "T2"), ("", ""), ("t2,", ""), (["seg"], "seg")):
        with pytest.raises(ValueError, match=f"unknown contrast '{wrong}'; expected one of t1, t1ce, t2, flair"):
            check_contrasts("flair", "t1", secondary)
    for wrong in (("t2", "t1", "t2"), ("flair", "t1", "t1"), ("flair", "t1", "t2,t2")):
        with pytest.raises(ValueError, match="named twice"):
            check_contrasts(*wrong)


def test_pictures_are_placed_where_they_were_cut(tmp_path):
    affine = np.diag([8.0, 6.0, 9.0, 1.0])
    write_case(tmp_path, "a", affine=affine)
    slices = open_folder(tmp_path, size=24).whole("a")
    assert slices.zooms == (8, 6, 9)
    volume = slices.place(np.ones((len(slices.slices), 1, 24, 24)), outside=-3.0)
    np.testing.assert_array_equal(volume, np.where(brain(), 1, -3))
    few = slices._replace(**{key: getattr(slices, key)[3:5] for key in ("images", "mask", "lesion", "slices")})
    volume = few.place(np.ones((2, 1, 24, 24)))
    assert np.flatnonzero(volume.any(axis=(0, 1))).tolist() == slices.slices[3:5].tolist()


def test_stored_slices_are_those_of_the_dataset_in_any_order(tmp_path, monkeypatch):
    for case in "abc":
        write_case(tmp_path / case, case, seed=ord(case))
    data = open_folder(tmp_path, secondary="t2,t1ce", slices_per_case=4)
    stored = StoredSlices(data, tmp_path / "slices.npy")
    monkeypatch.setattr(brats, "read_nifti", None)  # no volume is read any more
    data._kept.clear()
    assert len(stored) == 12
    on_disk = np.load(tmp_path / "slices.npy")
    assert on_disk.shape == (12, 6, 24, 24) and on_disk.dtype == np.float16
    drawn = [stored[i] for i in (11, 0, 7)]
    monkeypatch.undo()
    for i, item in zip((11, 0, 7), drawn, strict=True):
        assert set(item) == set(data[i]) and item["secondary"].shape == (2, 24, 24)
        for key, value in data[i].items():
            if torch.is_tensor(value):
                assert item[key].dtype == torch.float32
                torch.testing.assert_close(item[key], value, atol=5e-4, rtol=0)
                assert (item[key][value == -1] == -1).all()
            else:
                assert item[key] == value
    with pytest.raises(IndexError):
        stored[12]


def test_stored_items_keep_what_is_no_image(tmp_path):
    def item(i):
        image = torch.full((1, 4, 8), i / 8)
        return {
            "kind": "shift",
            "target": image,
            "number": torch.tensor(1e6 + i),
            "divergent": i > 0,
            "mask": 1 - image,
        }

    stored = StoredSlices([item(i) for i in range(3)], tmp_path / "slices.npy")
    for i in range(3):
        for key, value in item(i).items():
            assert torch.equal(stored[i][key], value) if torch.is_tensor(value) else stored[i][key] == value


def test_what_cannot_be_stored(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        StoredSlices([], tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"slices: expected a name that ends in \.npy"):
        StoredSlices([{"target": torch.zeros(1, 4, 4)}], tmp_path / "slices")
    assert not list(tmp_path.iterdir())


def stored_peak(root, cases, path):
    """Peak of the memory, in bytes, that storing the slices of so many cases takes, and then reading some of them."""
    tracemalloc.start()
    data = open_folder(root, cases=open_folder(root).cases[:cases], size=64, slices_per_case=4)
    stored = StoredSlices(data, path)
    for i in np.random.default_rng(0).integers(len(stored), size=100):
        stored[i]
    return tracemalloc.get_traced_memory()[1]


def test_memory_does_not_grow_with_stored_slices(many, tmp_path):
    processes = multiprocessing.get_context("spawn")  # where no other test has left anything
    with ProcessPoolExecutor(1, processes, max_tasks_per_child=1) as pool:
        few, lots = (pool.submit(stored_peak, many, cases, tmp_path / f"{cases}.npy").result() for cases in (5, 50))
    assert lots < 1.2 * few
