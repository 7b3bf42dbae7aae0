"""The tables of what was survived, and of what the tests notice, are read off right."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

import mutants
import noxfile
import torture

TEST = """
import pytest

@pytest.mark.torture
def test_says_what_it_tried(record_property):
    record_property("tried", "three things")
    record_property("result", "all <fine> & well")

def test_says_nothing():
    pass
"""
PRINTED = """
    damm_lite.damm.xǁDAMMNetǁ__init____mutmut_12: survived
    damm_lite.samplers.x__steps__mutmut_1: killed
    damm_lite.samplers.x_timestep_grid__mutmut_7: no tests
"""


def test_a_report_is_what_the_tests_said(tmp_path):
    (tmp_path / "test_it.py").write_text(TEST)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "test_it.py", f"--junitxml={report}", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    (row,) = torture.read_report(report).to_dict("records")
    assert row["seconds"] >= 0 and row["test"] == "test_says_what_it_tried"
    assert (row["tried"], row["result"]) == ("three things", "all <fine> & well")


def test_versions_are_compared_whatever_their_spelling():
    locked = noxfile.versions("Some_Package==1.0\nsame==2.0\ntorch==2.13.0\ngone==1\n")
    found = noxfile.versions("some-package==1.1\nsame==2.0\ntorch==2.13.0+cpu\n-e /somewhere\nnew==3\n")
    assert noxfile.differences(locked, found) == [("some-package", "1.0", "1.1")]
    assert len(noxfile.versions(noxfile.LOCK.read_text())) > 150


def test_the_outcome_counts_tests_and_lines(tmp_path):
    (tmp_path / "test_it.py").write_text("import half\n\ndef test_a(): half.f(1)\n\ndef test_b(): assert 0\n")
    (tmp_path / "half.py").write_text("def f(x):\n    if x:\n        return 1\n    return 0\n")
    options = ["--junitxml=report.xml", "--cov=half", "--cov-report=json:coverage.json", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *options], cwd=tmp_path, stdout=subprocess.DEVNULL)
    rows = noxfile.outcome(tmp_path / "report.xml", tmp_path / "coverage.json")
    assert [row[-1] for row in rows] == ["1", "1", "0", "75.0"]


def test_mutants_are_counted_by_their_function():
    rows = mutants.read_results(PRINTED).to_numpy().tolist()
    assert rows == [
        ["damm.py", "DAMMNet.__init__", 12, "survived"],
        ["samplers.py", "_steps", 1, "killed"],
        ["samplers.py", "timestep_grid", 7, "no tests"],
    ]


def test_every_survivor_is_of_a_function_that_exists():
    known = pd.read_csv(mutants.REASONS)
    assert list(known) == ["file", "function", "reason"] and not known.duplicated(["file", "function"]).any()
    for row in known.itertuples():
        source = (Path(mutants.ROOT) / "damm_lite" / row.file).read_text()
        assert f"def {row.function.rpartition('.')[2]}(" in source and len(row.reason) > 20
