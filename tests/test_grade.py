"""Grading: a row for all that was handed in, right marks for the honest, a zero with its reason for the rest."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import grade as command
import make_assignments
from court import archived
from submissions import Submission
from test_assignments import write_toy
from test_sandbox import programs_in
from test_submissions import DAMAGED, OTTER, notebook, pack

ROOT = Path(__file__).parents[1]
FOREIGN = {"name": "conda-env-course-py", "display_name": "course", "language": "python"}
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
needs_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap; install the package bubblewrap")


def marked(points, **more):
    """The archive with so many of 2 points for one question."""
    question = {"name": "q1", "score": points, "max_score": 2, "visibility": "hidden", "output": "the secret"}
    public = {"name": "Public Tests", "visibility": "visible", "output": "q1 results: \ud83d all passed"}
    return archived(results_json=json.dumps({"tests": [public, question]}), **more)


def submissions(count):
    return [Submission((f"s{n}.ipynb",), "toy", Path(f"{n}"), "", f"s{n}", f"s{n}.md") for n in range(count)]


def graded(out, some, runner, workers=2):
    command.grade_all(some, Path("autograders"), runner, out, workers)
    return pd.read_csv(out / "grades.csv", keep_default_na=False).set_index("student")


def test_the_table_has_the_order_of_names_whatever_ends_first(tmp_path):
    together, most, lock = 0, 0, threading.Lock()

    def runner(path, _):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.02 * (8 - int(path.name)))
        with lock:
            together -= 1
        return marked(int(path.name) % 3), ""

    table = graded(tmp_path, submissions(8), runner, workers=4)
    assert list(table.index) == [f"s{n}" for n in range(8)] and most == 4
    assert list(table.points) == list(table.q1) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert list(table.columns) == ["file", "assignment", "points", "possible", "score", "reason", "report", "q1"]


OUTPUTS = {
    "garbage": b"not an archive",
    "nothing": b"",
    "no results": archived(other="x"),
    "no json": archived(results_json="{"),
    "no tests": archived(results_json="{}"),
    "no list": archived(results_json='{"tests": 3}'),
    "empty list": archived(results_json='{"tests": []}'),
    "no output": archived(results_json='{"tests": [{"name": "q1", "max_score": 2}]}'),
    "a score in words": marked(2, score="infinite luck"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_whatever_comes_out_of_the_sandbox_ends_nothing(tmp_path, name):
    table = graded(tmp_path, submissions(3), lambda path, _: (OUTPUTS[name] if path.name == "1" else marked(2), ""))
    assert list(table.points) == [2, 0, 2] and list(table.reason == "") == [True, False, True]
    assert table.reason["s1"].startswith("graded without results that can be read")


def test_a_runner_that_fails_ends_nothing(tmp_path):
    def runner(path, _):
        if path.name == "0":
            raise OSError("no such program")
        return (b"", "not finished\x1b") if path.name == "1" else (marked(1, score="0.5"), "")

    table = graded(tmp_path, submissions(3), runner)
    assert "no such program" in table.reason["s0"] and table.reason["s1"] == "not finished?"
    assert table.score["s2"] == "0.5" and table.reason["s2"] == ""


def test_after_an_interrupt_no_other_is_begun(tmp_path):
    begun = []

    def runner(path, _):
        begun.append(path.name)
        if path.name == "1":
            raise KeyboardInterrupt
        time.sleep(0.05)
        return marked(2), ""

    with pytest.raises(KeyboardInterrupt):
        graded(tmp_path, submissions(50), runner, workers=1)
    assert len(begun) < 10
    assert list(pd.read_csv(tmp_path / "grades.csv").student) == ["s0"]


def test_a_page_shows_points_and_public_tests_alone(tmp_path):
    graded(tmp_path, submissions(1), lambda *_: (marked(1), ""))
    page = (tmp_path / "reports" / "s0.md").read_text()
    assert "| q1 | 1 | 2 |" in page and "all passed" in page and "secret" not in page


FAKE = """case "$*" in *submission.ipynb*) ;; *) exit 0;; esac
exec {python} {script} "$@"
"""
FAKE_SCRIPT = """
import json, sys, time
before = sys.argv[1:sys.argv.index("/submission.ipynb")]
made = json.load(open(before[-1]))
assert made["metadata"]["kernelspec"]["name"] == "python3", made["metadata"]
sys.stdout.buffer.write(open({archives!r} + made["cells"][0]["source"][0], "rb").read())
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder, and a bubblewrap that runs nothing, but gives a notebook as many points as stand in its only cell."""
    programs = programs_in(tmp_path / "programs", monkeypatch)
    (tmp_path / "fake.py").write_text(FAKE_SCRIPT.format(archives=f"{tmp_path}/points-"))
    for points in (0, 1, 2):
        (tmp_path / f"points-{points}").write_bytes(marked(points))
    programs("bwrap", FAKE.format(python=sys.executable, script=tmp_path / "fake.py"))
    (tmp_path / "keys" / "a1_noising").mkdir(parents=True)
    (tmp_path / "keys" / "a1_noising" / "autograder.zip").write_bytes(pack({}))
    return tmp_path


def run(monkeypatch, folder, *arguments, source="in"):
    """The command, in this process; the table by file."""
    where = ["--out", str(folder / "out"), "--autograders", str(folder / "keys")]
    monkeypatch.setattr(sys, "argv", ["grade.py", str(folder / source), *where, *arguments])
    command.main()
    return pd.read_csv(folder / "out" / "grades.csv", keep_default_na=False).set_index("file")


def test_forty_submissions_of_which_half_are_damaged(fake, monkeypatch, capsys):
    (fake / "in").mkdir()
    for name, (content, _) in list(DAMAGED.items())[-20:]:
        with open(os.fsencode(fake / "in") + b"/" + name, "wb") as file:
            file.write(content)
    right = {f"s{n}/{'a1.ipynb' if n % 2 else 'mine.IPYNB'}": n % 3 for n in range(18)}
    right |= {"kim/lee-A1.ipynb": 1, "kim-lee/A1.ipynb": 2}
    for name, points in right.items():
        (fake / "in" / name).parent.mkdir(exist_ok=True)
        (fake / "in" / name).write_bytes(notebook(f"{points}", otter=OTTER, kernelspec=FOREIGN))
    table = run(monkeypatch, fake, "--workers", "2")
    assert len(table) == 40 and (table.reason != "").sum() == 20
    assert table.points[list(right)].to_dict() == right
    assert table.student.is_unique and table.report.is_unique
    for name, points in right.items():
        assert f"| q1 | {points} | 2 |" in (fake / "out" / "reports" / table.report[name]).read_text()
    assert len(list((fake / "out" / "reports").iterdir())) == 40
    said = capsys.readouterr()
    assert "at a time\n40 rows, 20 of them without points" in said.out
    assert "40/40 [" in said.err and "<00:00" in said.err
    timed = r"20 submissions, workers: 2. It took ([\d.]+) seconds; those of each add up to ([\d.]+): ([\d.]+) at"
    took, together, at_a_time = map(float, re.search(timed, said.out).groups())
    assert 1.2 < at_a_time <= 2 and at_a_time == pytest.approx(together / took, rel=0.1)


def test_the_archive_of_a_platform_may_be_given_itself(fake, monkeypatch):
    lee = pack({"a1.ipynb": notebook("1")})
    (fake / "bulk.zip").write_bytes(pack({"Kim_1/a1.ipynb": notebook("2"), "Lee_2/mine.zip": lee}))
    table = run(monkeypatch, fake, source="bulk.zip")
    assert table.points.to_dict() == {"bulk.zip/Kim_1/a1.ipynb": 2, "bulk.zip/Lee_2/mine.zip/a1.ipynb": 1}


@pytest.mark.parametrize(
    "handed_in, keys, arguments, expected",
    [
        (None, True, [], "in: expected a folder with notebooks: No such file"),
        ([], True, [], "in: expected a folder with notebooks, found none"),
        (["a1.ipynb"], False, [], "keys: expected NAME/autograder.zip, found none; run `make assignments`"),
        (["a1.ipynb"], True, ["--workers", "0"], "--workers: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_graded_at_all_is_named(fake, monkeypatch, capsys, handed_in, keys, arguments, expected):
    if handed_in is not None:
        (fake / "in").mkdir()
        for name in handed_in:
            (fake / "in" / name).write_bytes(notebook("1"))
    if not keys:
        shutil.rmtree(fake / "keys")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, fake, *arguments)
    assert expected in capsys.readouterr().err and not (fake / "out").exists()


def test_without_both_the_reason_is_given_before_anything_is_graded(fake, monkeypatch, capsys):
    (fake / "in").mkdir()
    (fake / "in" / "a1.ipynb").write_bytes(notebook("1"))
    (fake / "programs" / "bwrap").unlink()
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, fake)
    assert "bubblewrap: not installed\n  docker: not installed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a small assignment, made, and one to put submissions into."""
    folder = tmp_path_factory.mktemp("grade")
    write_toy(folder / "toy.ipynb", solution="return x + 2")
    make_assignments.make(folder / "toy.ipynb", folder / "made")
    return folder


def plain(toy):
    return toy / "made" / "students" / "toy" / "toy.ipynb"


def answered(path, answer):
    """The student's notebook with this answer."""
    made = nbformat.read(path, as_version=4)
    code = [c for c in made.cells if c.cell_type == "code"]
    (cell,) = (c for c in code if "otter_answer_cell" in c.metadata.get("tags", []))
    cell.source = answer
    return made


def submit(toy, folder, **answers):
    """Put a notebook for each student, who answered this, into toy/`folder`."""
    (toy / folder).mkdir()
    for student, answer in answers.items():
        nbformat.write(answered(plain(toy), answer), toy / folder / f"{student}.ipynb")


def grade(toy, folder, seconds, memory=1):
    """The table of the command, by student, and the seconds that it took."""
    out, start = toy / f"grades-{folder}", time.monotonic()
    where = ["--out", out, "--autograders", toy / "made" / "instructor"]
    limits = ["--seconds", str(seconds), "--memory", str(memory)]
    arguments = [sys.executable, ROOT / "tools" / "grade.py", toy / folder, *where, *limits]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(out / "grades.csv", keep_default_na=False).set_index("student"), time.monotonic() - start


def deleted():
    """The files of the repository that are missing in its folder."""
    return subprocess.check_output(["git", "ls-files", "--deleted"], cwd=ROOT)


@needs_bubblewrap
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
        forking=RIGHT + "import subprocess\nfor _ in range(400):\n    subprocess.Popen(['sleep', '100'])",
    )
    (toy / "submitted" / "scribble.ipynb").write_text("not a notebook")
    colab = toy / "made" / "students" / "toy" / "colab" / "toy.ipynb"
    nbformat.write(answered(colab, RIGHT), toy / "submitted" / "colab.ipynb")
    foreign = answered(plain(toy), RIGHT)
    foreign.metadata = {"kernelspec": FOREIGN}
    nbformat.write(foreign, toy / "submitted" / "toy (1).ipynb")
    (toy / "submitted" / "ben.zip").write_bytes(pack({"own/ben.IPYNB": nbformat.writes(answered(plain(toy), RIGHT))}))
    table, _ = grade(toy, "submitted", seconds=400)
    right = {"perfect": 2, "half": 1, "toy (1)": 2, "ben/own/ben": 2, "colab": 2}
    wrong = dict.fromkeys(("crashing", "hungry", "deleting", "forking", "scribble"), 0)
    assert table.points.to_dict() == right | wrong and list(table.index) == sorted(right | wrong)
    assert [table.possible[student] for student in ("perfect", "half", "crashing")] == ["2.0", "2.0", ""]
    reasons = table.reason.to_dict()
    assert all(reasons[student] == "" for student in right)
    assert "Kernel died" in reasons["crashing"]
    assert reasons["hungry"] == "took more than 1 GiB of memory"
    assert "grading stopped" in reasons["deleting"] and "No such file" in reasons["deleting"]
    # Whichever comes first: 256 of them take about a gigabyte.
    assert reasons["forking"] in ("started more than 256 processes", "took more than 1 GiB of memory")
    assert reasons["scribble"].startswith("not a notebook of an assignment")

    assert (outside / "precious").read_text() == "kept" and len(list(outside.iterdir())) == 1
    assert deleted() == before
    report = (toy / "grades-submitted" / "reports" / "half.md").read_text()
    assert "| q1 | 1 | 2 |" in report and "add_two(5)" not in report  # the hidden test stays hidden


@needs_bubblewrap
def test_an_endless_loop_is_ended(toy):
    submit(toy, "endless", looping=RIGHT + "while True:\n    pass")
    table, seconds = grade(toy, "endless", seconds=15)
    assert table.points["looping"] == 0 and table.reason["looping"] == "not finished after 15 seconds"
    assert seconds < 60
