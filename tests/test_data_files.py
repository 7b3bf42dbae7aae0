"""What is shipped in data/: reproducible, listed with its sha256, found here and fetched elsewhere."""

import gzip
import http.server
import json
import re
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from safetensors import safe_open

import make_data
from damm_lite import download
from damm_lite.brains.brats import BraTSSliceDataset
from damm_lite.brains.cases import split_patients
from damm_lite.brains.nifti import read_nifti
from damm_lite.checkpoint import load_pretrained
from damm_lite.download import fetch
from damm_lite.experiments.elsewhere import weights_name
from damm_lite.experiments.methods import Budget

ROOT = Path(__file__).parents[1]
BRAINS = ROOT / "data" / "brain_sample"
WEIGHTS = sorted((ROOT / "data" / "weights").glob("*.safetensors"))


def test_manifest_lists_every_file_as_it_is():
    assert (ROOT / "damm_lite" / "manifest.txt").read_text() == make_data.manifest(ROOT / "data")


def test_sample_can_be_regenerated_to_the_bit(tmp_path):
    make_data.make_tumours(tmp_path)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.tif"))
    assert len(made) == 12
    for path in made:
        assert (tmp_path / path).read_bytes() == (ROOT / "data" / "tumour_sample" / path).read_bytes(), path


def test_sample_is_small():
    assert sum(p.stat().st_size for p in (ROOT / "data" / "tumour_sample").rglob("*.tif")) < 2e6


def test_brain_sample_can_be_regenerated_to_the_bit(tmp_path):
    make_data.make_brains(tmp_path)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.nii.gz"))
    assert made == sorted(p.relative_to(BRAINS) for p in BRAINS.rglob("*.nii.gz")) and len(made) == 20
    for path in made:
        shipped = (BRAINS / path).read_bytes()
        # Unpacked, as other versions of zlib pack otherwise; and no clock in the header (RFC 1952).
        assert gzip.decompress((tmp_path / path).read_bytes()) == gzip.decompress(shipped), path
        assert shipped[4:8] == bytes(4)


def test_brain_sample_is_small_and_reads_like_brats():
    assert sum(p.stat().st_size for p in BRAINS.rglob("*.nii.gz")) < 3e6
    data = BraTSSliceDataset(fetch("brain_sample"), "flair", "t1", ["t2", "t1ce"], size=64, slices_per_case=4)
    assert len(data) == 16 and not data.skipped
    assert sorted(len(part) for part in split_patients(data.cases, (0.5, 0.5))) in ([1, 3], [2, 2])
    for item in data:
        assert item["segmented"] and item["mask"].mean() > 0.1 and item["primary"].max() > 0.5
    volumes = {case: read_nifti(BRAINS / case / f"{case}_seg.nii.gz")[0] for case in data.cases}
    assert all(set(np.unique(volume)) == {0, 1, 2, 4} for volume in volumes.values())
    first, later = (np.isin(volumes[f"Phantom-00001-00{i}"], (1, 4)).sum() for i in (0, 1))
    assert later > 1.5 * first


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda p: p.stem)
def test_weights_are_small_and_say_how_they_were_made(path):
    assert path.stat().st_size < 12e6
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["damm_lite"])["about"]
    assert {"command", "seed", "steps", "device"} <= about.keys()
    scripts = {"brain": "train_brains", "vessels": "sampling", "study": "study", "latent": "latents"}
    script = scripts.get(re.match(r"[a-z]+", path.stem)[0], "train_tumours")
    assert f"damm_lite.experiments.{script}" in about["command"]
    if script == "study":
        training = re.search(r'--only "(.+?)" --seeds 0', about["command"])[1]
        assert weights_name(training) == path.stem and (about["seed"], about["steps"]) == (0, Budget.steps)
    else:
        assert "minutes" in about and path.name in about["command"]
    assert path.stem in (ROOT / "data" / "README.md").read_text()


def test_weights_load_by_name():
    model, schedule = load_pretrained("tumour-64")
    assert not model.training and len(schedule) == 1000


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="'tumor-64' is not among .*tumour_sample"):
        fetch("tumor-64")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """As on Colab: no checkout; the repository's files come from a server, here a local one."""
    site = tmp_path / "site"
    (site / "raw" / "main").mkdir(parents=True)
    (site / "raw" / "main" / "data").symlink_to(ROOT / "data")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=site)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(download, "REPOSITORY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    yield site
    server.shutdown()


def test_files_are_downloaded_where_there_is_no_checkout(elsewhere):
    folder = fetch("tumour_sample")
    assert len(list(folder.rglob("*.tif"))) == 12
    model, _ = load_pretrained("tumour-64")
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_file_that_was_tampered_with_never_reaches_the_cache(elsewhere, tmp_path):
    (elsewhere / "raw" / "main" / "data").unlink()
    fake = elsewhere / "raw" / "main" / "data" / "weights"
    fake.mkdir(parents=True)
    (fake / "tumour-64.safetensors").write_bytes(b"not the weights")
    with pytest.raises(ValueError, match="tumour-64.safetensors"):
        load_pretrained("tumour-64")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
