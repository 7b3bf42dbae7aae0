"""Public images: from the named commit, verified, credited, and put together with their values unchanged."""

import csv
import hashlib
import io
import re
import time

import numpy as np
import pooch
import pytest
import requests
import tifffile
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from damm_lite import download
from damm_lite.download import fetch
from damm_lite.tumours.fluorescence import FluorescenceDataset

RAW = "https://raw.githubusercontent.com/"
STAINS = {"CD31": "vessel_7IV-4X_Ch3", "Syto16": "tumor_7IV-4X_Ch2", "virus": "virus_7IV-4X_Ch1"}


def listed(path):
    with open(path, encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


TABLE = listed(download.__file__.replace("download.py", "public.tsv"))


class Site(BaseAdapter):
    """Answers with `files`, by address; no connection where `files` is None."""

    def __init__(self):
        super().__init__()
        self.files, self.asked = {}, []

    def send(self, request, **options):
        self.asked.append(request.url)
        if self.files is None:
            raise requests.ConnectionError("no route to host")
        response = requests.Response()
        response.request, response.url = request, request.url
        response.status_code = 200 if request.url in self.files else 404
        response.raw = HTTPResponse(io.BytesIO(self.files.get(request.url, b"")), preload_content=False)
        return response

    def close(self):
        pass


@pytest.fixture
def site(monkeypatch, tmp_path):
    """In place of GitHub, with an empty cache."""
    site, start = Site(), requests.Session.__init__

    def mount(session):
        start(session)
        session.mount(RAW, site)

    monkeypatch.setattr(requests.Session, "__init__", mount)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    download._print_once.cache_clear()
    return site


def saved(array):
    """The bytes of an array's file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def serve(site, monkeypatch, tmp_path, name, contents):
    """Let the table of public files be those of `contents`, {file: bytes}, with their true sha256."""
    rows = {row["file"]: row | {"sha256": hashlib.sha256(contents[row["file"]]).hexdigest()}
            for row in TABLE if row["name"] == name and row["file"] in contents}  # fmt: skip
    assert rows.keys() == contents.keys()
    with open(tmp_path / "public.tsv", "w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, TABLE[0].keys(), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows.values())
    (tmp_path / "manifest.txt").write_text("")
    monkeypatch.setattr(download, "files", lambda package: tmp_path)
    site.files = {f"{RAW}{row['repository']}/{row['commit']}/{row['path']}": contents[f] for f, row in rows.items()}
    return rows


@pytest.fixture
def planes():
    """Two depths of three stains, by the names of their files."""
    rng = np.random.default_rng(0)
    return {
        f"planes/{stain}_z070{depth}.npy": rng.integers(0, 5000, (20, 30), np.uint16)
        for stain in STAINS.values() for depth in (1, 2)
    }  # fmt: skip


def test_the_table_says_everything_of_every_file():
    assert len({(row["name"], row["file"]) for row in TABLE}) == len(TABLE) == 43
    for row in TABLE:
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"]) and re.fullmatch("[0-9a-f]{40}", row["commit"])
        assert row["licence"] and row["citation"], row["file"]


def test_the_table_lists_what_may_be_fetched(shared):
    key = ("repository", "commit", "path", "sha256")
    theirs = listed(shared / "data" / "fetchable.tsv")
    assert {tuple(row[k] for k in key) for row in TABLE} == {tuple(row[k] for k in key) for row in theirs}


def test_volumes_come_from_the_named_commit_and_once(site, monkeypatch, tmp_path, capsys):
    files = [f"openms_patient07/openms_patient07_{contrast}.nii.gz" for contrast in ("t1", "flair", "lesion")]
    contents = {file: file.encode() * 9 for file in files}
    rows = serve(site, monkeypatch, tmp_path, "open-ms", contents)
    folder = fetch("open-ms")
    assert {f"{p.parent.name}/{p.name}": p.read_bytes() for p in folder.rglob("*.gz")} == contents
    assert len(site.asked) == 3 and all(rows[files[0]]["commit"] in url for url in site.asked)
    said = capsys.readouterr().out
    assert said.count("Lesjak") == 1 and "CC BY" in said and "10.1007/s12021-017-9348-7" in said
    assert fetch("open-ms") == folder and len(site.asked) == 3 and not capsys.readouterr().out


def test_a_wrong_hash_never_lands(site, monkeypatch, tmp_path):
    file = "openms_patient07/openms_patient07_t1.nii.gz"
    serve(site, monkeypatch, tmp_path, "open-ms", {file: b"right"})
    site.files = dict.fromkeys(site.files, b"wrong")
    with pytest.raises(ValueError, match="openms_patient07_t1.nii.gz"):
        fetch("open-ms")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize("broken", ["no network", "not there"])
def test_what_is_not_downloaded_is_named_with_what_to_do(broken, site, monkeypatch, tmp_path):
    file = "openms_patient07/openms_patient07_t1.nii.gz"
    serve(site, monkeypatch, tmp_path, "open-ms", {file: b"right"})
    (url,) = site.files
    site.files = None if broken == "no network" else {}
    with pytest.raises(OSError, match="save this file as") as caught:
        fetch("open-ms")
    place = tmp_path / "cache" / "open-ms" / file
    assert url in str(caught.value) and str(place) in str(caught.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"right")  # what the message says to do
    assert fetch("open-ms") == tmp_path / "cache" / "open-ms"


def test_planes_become_files_of_three_named_channels(site, monkeypatch, tmp_path, planes, capsys):
    serve(site, monkeypatch, tmp_path, "lightsheet", {file: saved(plane) for file, plane in planes.items()})
    folder = fetch("lightsheet")
    assert "MIT" in capsys.readouterr().out
    assert sorted(p.name for p in folder.glob("*.tif")) == ["7IV_z0701.ome.tif", "7IV_z0702.ome.tif"]
    for depth in ("z0701", "z0702"):
        pixels = tifffile.imread(folder / f"7IV_{depth}.ome.tif")
        for channel, stain in zip(pixels, STAINS.values(), strict=True):
            assert channel.dtype == np.uint16 and (channel == planes[f"planes/{stain}_{depth}.npy"]).all()
    data = FluorescenceDataset(folder, target="virus", primary="CD31", secondary="Syto16", size=20)
    assert [item["field"] for item in data] == ["7IV_z0701", "7IV_z0702"]
    before = (folder / "7IV_z0701.ome.tif").stat()
    time.sleep(0.01)
    fetch("lightsheet")
    assert (folder / "7IV_z0701.ome.tif").stat().st_mtime_ns == before.st_mtime_ns


def test_an_end_in_the_middle_leaves_no_half_file(site, monkeypatch, tmp_path, planes):
    serve(site, monkeypatch, tmp_path, "lightsheet", {file: saved(plane) for file, plane in planes.items()})

    def interrupted(path, *arguments, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(tifffile, "imwrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("lightsheet")
    assert not list((tmp_path / "cache" / "lightsheet").glob("*.tif"))
    assert len(list(fetch("lightsheet").glob("*.tif"))) == 2


def test_the_real_planes_have_the_listed_hashes_and_give_the_real_files(site, monkeypatch, tmp_path, shared):
    """What the table lists of one depth is what the shared file was put together from."""
    theirs = shared / "data" / "lightsheet" / "7IV_z0705.ome.tif"
    stored = zip(STAINS.values(), tifffile.imread(theirs), strict=True)
    contents = {f"planes/{stain}_z0705.npy": saved(plane) for stain, plane in stored}
    for row in serve(site, monkeypatch, tmp_path, "lightsheet", contents).values():
        assert row in TABLE, row["file"]  # with the sha256 of the table
    with tifffile.TiffFile(fetch("lightsheet") / theirs.name) as ours, tifffile.TiffFile(theirs) as other:
        assert (ours.asarray() == other.asarray()).all() and ours.series[0].axes == other.series[0].axes
        assert (ours.pages[0].compression, ours.pages[0].photometric) == (8, 1)
        strip = re.compile(r' (UUID|Creator)="[^"]*"')
        assert strip.sub("", ours.ome_metadata) == strip.sub("", other.ome_metadata)
