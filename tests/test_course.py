"""An instructor's walk: a fork, variants, what three students hand in, points, copies, marks, the platforms' files."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from course import read_rules, variant
from damm_lite.experiments.statistics import paired_t
from test_assignments import MASTERS, needs_masters
from test_cheats import write_judged
from test_grade import RIGHT, answered, needs_bubblewrap
from test_gradebook import table
from test_similarity import KIM, LEE, disguised
from test_similarity import answered as work

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "book" / "14_ablation_assignments.ipynb"
RULES = """assignments:
  a1_toy: {title: A1, weight: 1, automatic: 2, written: {q2: 4}}
late: {per_day: 10}
"""
STUDENTS = """name,id,first,last,email
kim,0042,Kim,Lee,kim@uni.edu
lee,0043,Lee,Ode,lee@uni.edu
max,0044,Max,Ray,max@uni.edu
"""
WRITTEN = """student,assignment,question,points,comment
kim,a1_toy,q2,3.5,No units
lee,a1_toy,q2,2,
max,a1_toy,q2,4,
"""
QUESTION = "# BEGIN QUESTION\nname: q2\npoints: 4\nmanual: true"


@pytest.fixture
def fork(tmp_path):
    """A copy of the book without its data, masters apart from it, and a function that runs `make` in the copy."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("data/"):
            (tmp_path / "fork" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / "fork" / name)
    shutil.rmtree(tmp_path / "fork" / "book" / "assignments", ignore_errors=True)
    (tmp_path / "private").mkdir()
    write_judged(tmp_path / "private" / "a1_toy.ipynb")
    master = nbformat.read(tmp_path / "private" / "a1_toy.ipynb", as_version=4)
    marks = (QUESTION, "# BEGIN SOLUTION", "# END SOLUTION", "# END QUESTION")
    begin, solution, *ends = map(nbformat.v4.new_raw_cell, marks)
    task, model = map(nbformat.v4.new_markdown_cell, ("**Question 2.** In words.", "Two and two."))
    master.cells += [begin, task, solution, model, *ends]
    nbformat.write(master, tmp_path / "private" / "a1_toy.ipynb")
    for name, text in (("course.yaml", RULES), ("students.csv", STUDENTS), ("written.csv", WRITTEN)):
        (tmp_path / "private" / name).write_text(text)
    (tmp_path / "private" / "late.csv").write_text("student,assignment,attempt,days\nmax,a1_toy,1,1\n")
    ours = ["make", "-o", ".venv/installed", f"RUN=OMP_NUM_THREADS=1 {Path(sys.executable).parent}/"]

    def make(*words):
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "fork")}
        done = subprocess.run([*ours, *words], cwd=tmp_path / "fork", env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return tmp_path, make


def hand_in(folder):
    """Kim's honest notebook, Lee's that was cut in half, and Max's, which is Kim's in other words."""
    made = folder / "fork" / "_build" / "assignments"
    for student in ("0042", "0043", "0044"):
        given = (made / "variants" / student / "a1_toy" / "a1_toy.ipynb").read_text()
        assert f"VARIANT = {variant(student, 'a1_toy')}" in given and "return x + 2" not in given
    own = made / "variants" / "0042" / "a1_toy" / "a1_toy.ipynb"
    first, *functions = work(KIM)
    honest = answered(own, RIGHT + "\n\n".join([first, *functions]))
    copied = answered(own, RIGHT + "\n\n".join(disguised([first, *functions], LEE, "each of them")))
    (folder / "in" / "kim").mkdir(parents=True)
    nbformat.write(honest, folder / "in" / "kim" / "a1_toy.ipynb")
    text = nbformat.writes(honest)
    (folder / "in" / "lee_a1_toy.ipynb").write_text(text[: len(text) // 2])
    nbformat.write(copied, folder / "in" / "max_a1_toy.ipynb")


@needs_bubblewrap
@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_from_the_fork_to_the_gradebook(fork):
    folder, make = fork
    subprocess.run("git init -q . && git add .", shell=True, cwd=folder / "fork", check=True)
    stamp = [sys.executable, "tools/fork.py", "https://github.com/prof/course"]
    stamped = subprocess.run(stamp, cwd=folder / "fork", check=True, capture_output=True, text=True).stdout
    assert f"book/{CHAPTER.name}" in stamped and "github.com/prof/course" in (folder / "fork/_config.yml").read_text()

    code, said = make("assignments")  # the solutions are not in the fork
    assert code and "expected a folder with master notebooks, found none" in said
    known = ["STUDENTS=../private/students.csv", "RULES=../private/course.yaml"]
    code, said = make("assignments", "MASTERS=../private", known[0])
    assert code == 0, said
    hand_in(folder)

    code, said = make("grade", "SUBMISSIONS=../in", *known)
    assert code == 0 and "2 submissions, workers: " in said, said
    graded = pd.read_csv(folder / "fork/_build/grades/grades.csv", keep_default_na=False).set_index("file")
    assert graded.points.to_dict() == {"kim/a1_toy.ipynb": 2, "lee_a1_toy.ipynb": 0, "max_a1_toy.ipynb": 1}
    assert "JSONDecodeError" in graded.reason["lee_a1_toy.ipynb"]

    code, said = make("similarity", "SUBMISSIONS=../in", *known)
    assert code == 0 and "left out: lee_a1_toy.ipynb: not a notebook of an assignment: JSONDecodeError" in said, said
    pair = pd.read_csv(folder / "fork/_build/similarity/similarity.csv").iloc[0]
    assert {pair["first"], pair["second"]} == {"kim/a1_toy", "max_a1_toy"} and pair["similarity"] > 0.75

    hand = ["WRITTEN=../private/written.csv", "LATE=../private/late.csv"]
    code, said = make("gradebook", "GRADES=_build/grades/grades.csv", *known, *hand)
    assert code == 0 and "0 marks wait" in said, said
    out = folder / "fork/_build/gradebook"
    assert table(out / "gradebook.csv")[1:] == [
        ["0042", "a1_toy", "5.5", "6.0", "0", "5.5"],  # 2 + 3.5
        ["0043", "a1_toy", "2.0", "6.0", "0", "2.0"],  # 0 + 2
        ["0044", "a1_toy", "5.0", "6.0", "1", "4.5"],  # 1 + 4, and a day late
    ]
    assert [row[-1] for row in table(out / "canvas.csv")] == ["A1", "6", "5.5", "2", "4.5"]
    assert [row[-1] for row in table(out / "moodle.csv")] == ["A1", "5.5", "2", "4.5"]
    assert [row[5] for row in table(out / "gradescope/a1_toy.csv")] == ["Total Score", "5.5", "2", "4.5"]
    assert "**q2**: No units" in (out / "feedback/0042.md").read_text()


def chapter():
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"])


@needs_masters
def test_the_chapters_rules_are_those_of_the_assignments(tmp_path):
    """Its course.yaml is valid, names every assignment, and has the points of each."""
    (text,) = re.findall(r"```yaml\n# course.yaml\n(.*?)```", chapter(), re.S)
    (tmp_path / "course.yaml").write_text(text)
    assignments = read_rules(tmp_path / "course.yaml").assignments
    assert list(assignments) == [*(path.stem for path in MASTERS), "talk"]
    assert sum(one.weight for one in assignments.values()) == 100
    for path in MASTERS:
        raw = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "raw"]
        asked = [re.findall(r"^(\w+): (.+)$", text, re.M) for text in raw if text.startswith("# BEGIN QUESTION")]
        by_hand = {q["name"]: int(q["points"]) for q in map(dict, asked) if "manual" in q}
        tested = sum(int(q["points"]) for q in map(dict, asked) if "manual" not in q)
        assert assignments[path.stem].written == by_hand and assignments[path.stem].automatic == tested


def test_the_chapters_interval_is_that_of_the_study():
    """Half the width, by its exercise's solution, beside `paired_t`, which gives the intervals of the protocol."""
    namespace = {}
    exec("import numpy as np\nfrom scipy.stats import t as student_t\nimport damm_lite as dl", namespace)
    for name in ("check-width", "solution-width"):
        (source,) = ("".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"] if cell["id"] == name)
        exec(source, namespace)
    for seeds in range(2, 9):
        differences = np.random.default_rng(seeds).normal(size=seeds)
        found = paired_t(differences)
        assert namespace["half_width"](differences) == pytest.approx((found.high - found.low) / 2)
        assert (found.low + found.high) / 2 == pytest.approx(differences.mean())
