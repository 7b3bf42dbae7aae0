"""Grading in a sandbox: right marks for the honest, a zero with its reason for the rest, nothing outside touched."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import make_assignments
from test_assignments import write_toy

if not shutil.which("bwrap"):
    pytest.skip("no bubblewrap; install the package bubblewrap", allow_module_level=True)

ROOT = Path(__file__).parents[1]
RIGHT = "def add_two(x):\n    return x + 2\n\n"
DELETE = """
import shutil
from pathlib import Path
for folder in ({outside!r}, {root!r}, "/home", "/root", "/etc", "/usr", "/tmp", "/"):
    shutil.rmtree(folder, ignore_errors=True)
try:
    (Path({outside!r}) / "precious").write_text("gone")
except OSError:
    print("there is no such folder here")
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a small assignment, made, and one to put submissions into."""
    folder = tmp_path_factory.mktemp("grade")
    write_toy(folder / "toy.ipynb", solution="return x + 2")
    make_assignments.make(folder / "toy.ipynb", folder / "made")
    return folder


def submit(toy, folder, **answers):
    """Put a notebook for each student, who answered this, into toy/`folder`."""
    (toy / folder).mkdir()
    for student, answer in answers.items():
        notebook = nbformat.read(toy / "made" / "students" / "toy" / "toy.ipynb", as_version=4)
        (cell,) = (c for c in notebook.cells if "otter_answer_cell" in c.metadata.get("tags", []))
        cell.source = answer
        nbformat.write(notebook, toy / folder / f"{student}.ipynb")


def grade(toy, folder, seconds, memory=1):
    """The table of the command, by student, and the seconds that it took."""
    out, start = toy / f"grades-{folder}", time.monotonic()
    where = ["--out", out, "--autograders", toy / "made" / "instructor"]
    limits = ["--seconds", str(seconds), "--memory", str(memory)]
    command = [sys.executable, ROOT / "tools" / "grade.py", toy / folder, *where, *limits]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(out / "grades.csv", keep_default_na=False).set_index("student"), time.monotonic() - start


def deleted():
    """The files of the repository that are missing in its folder."""
    return subprocess.check_output(["git", "ls-files", "--deleted"], cwd=ROOT)


def test_marks_and_reasons(toy):
    before = deleted()
    outside = toy / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    submit(
        toy,
        "submitted",
        perfect=RIGHT,
        half="def add_two(x):\n    return 3",  # enough for the public test
        crashing=RIGHT + "import os\nos._exit(1)",
        hungry=RIGHT + "hoard = []\nwhile True:\n    hoard.append(bytearray(2**24))",
        deleting=RIGHT + DELETE.format(outside=str(outside), root=str(ROOT)),
    )
    (toy / "submitted" / "scribble.ipynb").write_text("not a notebook")
    table, _ = grade(toy, "submitted", seconds=400)
    assert table.points.to_dict() == dict(perfect=2, half=1, crashing=0, hungry=0, deleting=0, scribble=0)
    assert [table.possible[student] for student in ("perfect", "half", "crashing")] == ["2.0", "2.0", ""]
    reasons = table.reason.to_dict()
    assert reasons["perfect"] == reasons["half"] == ""
    assert "Kernel died" in reasons["crashing"]
    assert reasons["hungry"] == "took more than 1 GiB of memory"
    assert "grading stopped" in reasons["deleting"] and "No such file" in reasons["deleting"]
    assert reasons["scribble"].startswith("not a notebook of an assignment")

    assert (outside / "precious").read_text() == "kept" and len(list(outside.iterdir())) == 1
    assert deleted() == before
    report = (toy / "grades-submitted" / "reports" / "half.md").read_text()
    assert "| q1 | 1 | 2 |" in report and "add_two(5)" not in report  # the hidden test stays hidden


def test_an_endless_loop_is_ended(toy):
    submit(toy, "endless", looping=RIGHT + "while True:\n    pass")
    table, seconds = grade(toy, "endless", seconds=15)
    assert table.points["looping"] == 0 and table.reason["looping"] == "not finished after 15 seconds"
    assert seconds < 60


def test_an_empty_folder_is_named(tmp_path):
    command = [sys.executable, ROOT / "tools" / "grade.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"{tmp_path}: expected a folder with notebooks" in done.stderr
