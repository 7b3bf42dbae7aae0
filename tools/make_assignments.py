"""Make from each master notebook what students get and what the instructor keeps.

    python tools/make_assignments.py [MASTERS] [--out FOLDER] [--students students.csv]

MASTERS (default: book/assignments) is a folder of notebooks in the format of `otter assign`. Below
FOLDER (default: _build/assignments) this writes, for each NAME.ipynb,

    students/NAME/NAME.ipynb        no solutions, no hidden tests
    students/NAME/colab/            the same to be opened on Colab, with its public tests in tests.zip
    instructor/NAME/NAME.ipynb      with solutions and all tests
    instructor/NAME/autograder.zip  what grades a submission

A master may have a key, MASTERS/keys/NAME.py: what its hidden tests ask for by `judge`, in a process of its own (see
tools/judge.py). Both files go into the autograder and nowhere else.

With students (a table with the columns name and id, see tools/gradebook.py), there comes for each of them and for
each master with a line `VARIANT = 0` a copy with data of their own, below variants/ID/NAME/ as below students/NAME/.

Every master has to pass all of its tests, or nothing is written of it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import nbformat
import yaml

from course import DETAILS, read_table, variant
from damm_lite.experiments.jobs import usable_cores

ROOT, HERE = Path(__file__).resolve().parents[1], Path(__file__).parent
MASTERS, OUT = ROOT / "book" / "assignments", ROOT / "_build" / "assignments"
PINNED = "install -q otter-grader", f"install -q otter-grader=={version('otter-grader')}"  # as the tests were made
JUDGING = "judge.py", "measures.py"
HEADING = "# ASSIGNMENT CONFIG\n"
# What all assignments share; a master can set otherwise.
SETTINGS = {"check_all_cell": True, "export_cell": False, "show_question_points": True}
SETTINGS |= {"generate": {"pdf": False, "show_stdout": True}}


def assign(master, folder, **settings):
    """Run `otter assign` on a copy of a master with these settings; the folder with the results.

    Raises ValueError where its first cell is no configuration, and RuntimeError, with what otter said,
    where it fails its own tests.
    """
    notebook = nbformat.read(master, as_version=4)
    cell = notebook.cells[0]
    if cell.cell_type != "raw" or not cell.source.startswith(HEADING):
        raise ValueError(f"{master}: expected a first cell, raw, that starts with {HEADING.strip()!r}")
    folder.mkdir()
    if (key := master.parent / "keys" / f"{master.stem}.py").is_file():
        shutil.copy(key, folder / "key.py")
        for name in JUDGING:
            shutil.copy(HERE / name, folder)
        settings["autograder_files"] = [*JUDGING, "key.py"]
    cell.source = HEADING + yaml.safe_dump(SETTINGS | yaml.safe_load(cell.source) | settings)
    nbformat.write(notebook, folder / master.name)
    command = [Path(sys.executable).parent / "otter", "assign", folder / master.name, folder / "made"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{master}: otter assign failed:\n{done.stdout}\n{done.stderr}")
    return folder / "made"


def make(master, out):
    """Make one assignment below the folder `out`, in place of an earlier one of its name."""
    name = master.stem
    with tempfile.TemporaryDirectory() as folder:
        plain = assign(master, Path(folder) / "plain", run_tests=True)
        colab = assign(master, Path(folder) / "colab", run_tests=False, runs_on="colab", tests={"files": True})

        students, instructor = out / "students" / name, out / "instructor" / name
        for old in (students, instructor):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(plain / "student", students)
        (students / "colab").mkdir()
        text = (colab / "student" / master.name).read_text(encoding="utf-8")
        (students / "colab" / master.name).write_text(text.replace(*PINNED), encoding="utf-8")
        shutil.make_archive(students / "colab" / "tests", "zip", colab / "student" / "tests")
        instructor.mkdir(parents=True)
        shutil.copy(plain / "autograder" / master.name, instructor)
        (archive,) = (plain / "autograder").glob("*.zip")
        shutil.copy(archive, instructor / "autograder.zip")


def student_ids(path):
    """The IDs in a table of students. Raises ValueError for one that is no name for a folder."""
    ids = {row["id"]: line for line, row in read_table(path, ("name", "id"), DETAILS) if row["id"]}
    for student, line in ids.items():
        if not re.fullmatch(r"\w[\w.@+-]*", student):
            raise ValueError(f"{path}, line {line}: expected letters, digits and .@+-_ in an id, got {student!r}")
    return list(ids)


def make_variant(name, student, out):
    """Copy what students get of an assignment for one of them, stamped with the number that makes their data.

    Nothing is written where the assignment has no variants.
    """
    source, target = out / "students" / name, out / "variants" / student / name
    own = f"VARIANT = {variant(student, name)}"
    stamped = {}
    for path in source.rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            before, cell.source = cell.source, re.sub(r"^VARIANT = 0$", own, cell.source, flags=re.M)
            if cell.source != before:
                stamped[path.relative_to(source)] = notebook
    if stamped:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    for path, notebook in stamped.items():
        nbformat.write(notebook, target / path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masters", type=Path, nargs="?", default=MASTERS)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--students", type=Path, help="for whom to make variants")
    arguments = parser.parse_args()
    try:
        students = student_ids(arguments.students) if arguments.students else []
    except (OSError, ValueError) as error:
        parser.error(str(error))
    masters = sorted(arguments.masters.glob("*.ipynb"))
    if not masters:
        parser.error(f"{arguments.masters}: expected a folder with master notebooks, found none")
    with ThreadPoolExecutor(usable_cores()) as pool:  # the work is that of otter's processes
        made = pool.map(partial(make, out=arguments.out), masters)
        for master, _ in zip(masters, made, strict=True):
            print(master.name, flush=True)
            for student in students:
                make_variant(master.stem, student, arguments.out)
    print(f"For students: {arguments.out / 'students'}. Keep to yourself: {arguments.out / 'instructor'}.")


if __name__ == "__main__":
    main()
