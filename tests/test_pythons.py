"""`make versions`: a row says how far a Python came, an installation is not made twice, and no row is lost."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from nox.command import CommandFailed

import noxfile

TESTS = "def test_a(): pass\n\ndef test_b(): pass\n\ndef test_c(): assert {}\n"


class Session:
    """What the function uses of nox's session: code and pytest run in this Python, and nothing is installed."""

    def __init__(self, place, tests="", broken=None):
        self.virtualenv, self.posargs, self.broken = SimpleNamespace(location=place), [tests], broken
        self.installed = []
        place.mkdir(exist_ok=True)

    def chdir(self, place):
        pass

    def install(self, *args):
        self.installed.append(args)
        if self.broken:
            raise self.broken

    def run(self, _, *args, silent=False, success_codes=(0,)):
        aside = ["-p", "no:cacheprovider"] if "pytest" in args else []
        result = subprocess.run([sys.executable, *args, *aside], cwd=self.virtualenv.location, capture_output=True)
        if result.returncode not in success_codes:
            raise CommandFailed(return_code=result.returncode)
        return result.stdout.decode()

    def error(self, said):
        raise SystemExit(said)


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(noxfile, "PYTHONS", tmp_path / "pythons.csv")
    return noxfile.PYTHONS


@pytest.mark.parametrize("holds, failed", [(True, 0), (False, 1)])
def test_a_row_counts_what_pytest_does(tmp_path, table, holds, failed):
    tests = tmp_path / "test_it.py"
    tests.write_text(TESTS.format(holds))
    session = Session(tmp_path / "place", str(tests))
    (session.virtualenv.location / "large").write_bytes(bytes(10**8))
    if failed:
        with pytest.raises(SystemExit, match=platform.python_version()):
            noxfile.every_python(session)
    else:
        noxfile.every_python(session)
    (row,) = pd.read_csv(table).to_dict("records")
    assert row["python"] == platform.python_version() and row["torch"].startswith("2.")
    assert (row["passed"], row["failed"], row["gigabytes"]) == (3 - failed, failed, 0.1)


@pytest.mark.parametrize("broken, reached", [(CommandFailed(), 0), (None, 3)])
def test_a_row_ends_where_its_python_ends(tmp_path, table, broken, reached):
    with pytest.raises(SystemExit, match="not everything passes"):
        noxfile.every_python(Session(tmp_path / "place", "no_such_file.py", broken))
    row = pd.read_csv(table).loc[0, ["seconds", "gigabytes", "torch", "passed", "failed"]]
    assert row.notna().tolist() == [True] * reached + [False] * (5 - reached)


def test_an_interruption_leaves_the_table_as_it_was(tmp_path, table):
    with pytest.raises(KeyboardInterrupt):
        noxfile.every_python(Session(tmp_path / "place", broken=KeyboardInterrupt()))
    assert not table.exists()


def test_an_installation_is_made_once_for_a_lock(tmp_path, monkeypatch):
    for name in ("constraints.txt", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(noxfile, "ROOT", tmp_path)
    monkeypatch.setenv("TORCH_INDEX", "https://wheels")
    session, done = Session(tmp_path / "place"), tmp_path / "done.json"
    assert noxfile.install(session, done) == 0 and noxfile.install(session, done) == 0
    (only,) = session.installed
    assert only[only.index("-c") + 1] == "constraints.txt"
    assert only[only.index("--extra-index-url") + 1] == "https://wheels"
    (tmp_path / "constraints.txt").write_text("2")
    assert noxfile.install(session, done) is None  # not from nothing, so its seconds say little
    assert len(session.installed) == 2


def test_an_interrupted_installation_goes_on_without_a_time(tmp_path):
    done = tmp_path / "done.json"
    with pytest.raises(KeyboardInterrupt):
        noxfile.install(Session(tmp_path / "place", broken=KeyboardInterrupt()), done)
    again = Session(tmp_path / "place")
    assert noxfile.install(again, done) is None and len(again.installed) == 1
    assert noxfile.install(again, done) is None and len(again.installed) == 1


def test_a_row_takes_the_place_of_its_minor_version_alone(table):
    for python, passed in (("3.13.0", 5), ("3.11.7", 4), ("3.14.0", None), ("3.13.2", 6)):
        noxfile.store(table, [{"python": python, "torch": None, "passed": passed}], "python", noxfile.minor)
    assert table.read_text() == "python,torch,passed\n3.11.7,,4\n3.13.2,,6\n3.14.0,,\n"


@pytest.mark.skipif(sys.version_info[:2] == (3, 14), reason="needs a Python that is not here")
def test_a_python_that_is_not_here_is_skipped_and_named(tmp_path):
    nox = [sys.executable, "-m", "nox", "-f", noxfile.__file__, "--envdir", tmp_path, "-s", "versions-3.14"]
    nowhere = os.environ | {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYENV_VERSION": "", "CI": "true"}
    result = subprocess.run(nox, capture_output=True, text=True, cwd=tmp_path, env=nowhere)
    assert result.returncode == 0 and "3.14 not found" in result.stderr, result.stderr


def test_a_row_for_each_chapter_and_for_no_other_test(tmp_path):
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase name="test_a_chapter_runs_it[01_a]" time="2.6"/>'
        '<testcase name="test_a_chapter_runs_it[02_b]" time="1"><failure/></testcase>'
        '<testcase name="test_a_chapter_runs_it[03_c]" time="0"><error/></testcase>'
        '<testcase name="test_a_chapter_stops" time="9"/></testsuite></testsuites>'
    )
    rows = noxfile.chapters(tmp_path / "report.xml")
    assert [tuple(row.values()) for row in rows] == [("01_a", 3, True), ("02_b", 1, False), ("03_c", 0, False)]
    table = tmp_path / "colab.csv"
    noxfile.store(table, rows, "chapter")
    noxfile.store(table, [dict(chapter="02_b", seconds=7, passed=True)], "chapter")
    assert table.read_text() == "chapter,seconds,passed\n01_a,3,True\n02_b,7,True\n03_c,0,False\n"


def test_sphinx_alone_gets_the_settings_of_jupyter_book_without_its_extensions():
    settings = noxfile.sphinx_settings()
    assert {"myst_nb", "fresh_outputs", "sphinx_external_toc"} <= set(settings["extensions"])
    assert not [name for name in settings["extensions"] if "jupyter" in name]
    places = [settings["external_toc_path"], settings["html_favicon"]]
    for name in ("templates_path", "html_static_path", "html_extra_path", "bibtex_bibfiles"):
        places += settings[name]
    assert len(places) == 6 and all(Path(place).exists() and Path(place).is_absolute() for place in places)
