"""Which submissions resemble each other: python tools/similarity.py SUBMISSIONS [--out FOLDER]

SUBMISSIONS is what tools/grade.py takes. The code cells of each notebook are compared by copydetect: names, comments,
strings and the order of cells do not count, and neither does what stands in the notebook that was handed out. The
solution, which may be public, is compared as well. No code is run.

Written, below FOLDER (default: _build/similarity): similarity.csv, a row for each pair, the most similar first;
left_out.csv, what could not be compared, with the reason; and for each assignment NAME.html with the most similar
pairs side by side. Those of an earlier run are replaced.

With --students and --rules (see tools/gradebook.py) the files of one student are not compared with each other.

The table is no verdict. A short task has few solutions, so look at how the whole class is spread, and then read.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from copydetect import CopyDetector

from course import Students, read_rules, read_students
from damm_lite.atomic import atomic_write
from notebooks import read
from submissions import Submission, find

ROOT = Path(__file__).resolve().parents[1]
CODE = 200_000  # most letters of one notebook's code
LEAST = 200  # tokens of one's own, below which everything resembles everything
COLUMNS = ["assignment", "first", "second", "similarity", "in_first", "in_second", "tokens"]
SOLUTION = "(the solution)"


def code_of(notebook: Path) -> str:
    """All code cells of a notebook, as one text."""
    cells = read(notebook).cells
    return "\n\n".join(str(cell.get("source") or "") for cell in cells if cell.get("cell_type") == "code")


def extracted(code: str, path: Path) -> str:
    """Write code to a file in a folder, which it may make; the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8", errors="backslashreplace")
    return str(path)


def detector(files: Sequence[str], solution: Path, work: Path) -> tuple[CopyDetector, set[str]]:
    """(copydetect, after it compared the files with each other and with a solution; those too short to compare)."""
    made = CopyDetector(
        boilerplate_dirs=[str(work / "handed-out")], extensions=["py"], ignore_leaf=True, silent=True, autoopen=False
    )
    for file in files:
        made.add_file(file)
    others = [extracted(code_of(solution), work / "solution" / "solution.py")] if solution.is_file() else []
    made.ref_files += others
    made.run()
    short = {file for file in files if made.file_data[file].token_coverage < LEAST}
    made.test_files = [file for file in files if file not in short]
    made.ref_files = made.test_files + others
    if short and made.test_files:
        made.run()
    return made, short


def pairs(made: CopyDetector, names: dict[str, str], assignment: str) -> pd.DataFrame:
    """A row for each pair that was compared, the most similar first: the share of either's own code that is in both,
    the larger of the two shares, and how many tokens the first shares."""
    rows = []
    for i, first in enumerate(made.test_files):
        for j, second in enumerate(made.ref_files[i + 1 :], i + 1):
            shares, tokens = made.similarity_matrix[i, j], made.token_overlap_matrix[i, j]
            if tokens >= 0:  # not of one student
                rows.append([assignment, names[first], names.get(second, SOLUTION), shares.max(), *shares, tokens])
    return most_similar_first(pd.DataFrame(rows, columns=COLUMNS))


def most_similar_first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in that order; equal ones as they come."""
    return table.sort_values("similarity", ascending=False, kind="stable")


def page(made: CopyDetector, table: pd.DataFrame, shown: int, work: Path) -> str:
    """copydetect's page with about so many of the most similar pairs side by side."""
    least = table["similarity"].head(shown).min()
    made.conf.display_t = float(max(0, np.nextafter(least, 0)))
    plt.close("all")  # it draws into whatever figure is open
    return made.generate_html_report("return").replace(f"{work}/", "")


def written(submissions: Sequence[Submission], students: Students | None, work: Path) -> dict[str, Submission]:
    """The code of each submission in a file below the folder `work`, with those of one student side by side."""
    by_file, folders = {}, {}
    for one in submissions:
        stem = Path(one.page).stem
        whose = folders.setdefault((students and students.handed_in(one.file)) or one.file, stem)
        by_file[extracted(code_of(one.notebook), work / "students" / whose / f"{stem}.py")] = one
    return by_file


def compare_one(
    name: str, by_file: dict[str, Submission], assignments: Path, shown: int, page_file: Path, work: Path
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """(`pairs` of one assignment, [(file, why it was left out), ...]); the page is written if there is a pair."""
    for number, given in enumerate(sorted((assignments / "students" / name).rglob("*.ipynb"))):
        extracted(code_of(given), work / "handed-out" / f"{number}.py")
    made, short = detector(list(by_file), assignments / "instructor" / name / f"{name}.ipynb", work)
    tokens = {by_file[file].file: int(made.file_data[file].token_coverage) for file in short}
    left_out = [(file, f"{n} tokens beside what was handed out, {LEAST} are needed") for file, n in tokens.items()]
    table = pairs(made, {file: one.student for file, one in by_file.items()}, name)
    if len(table):
        with atomic_write(page_file) as whole:
            whole.write_text(page(made, table, shown, work), encoding="utf-8")
    return table, left_out


def compare(
    submissions: Sequence[Submission], assignments: Path, students: Students | None, shown: int, out: Path
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Compare the submissions of each assignment, and write a page for each below `out`.

    Returns (`pairs` of all assignments, [(file, why it was left out), ...]).
    """
    reasons = {one.file: one.reason for one in submissions if not one.notebook}
    letters = {one.file: len(code_of(one.notebook)) for one in submissions if one.notebook}
    reasons |= {file: f"expected at most {CODE} letters of code, got {n}" for file, n in letters.items() if n > CODE}
    left_out, tables = list(reasons.items()), [pd.DataFrame(columns=COLUMNS)]
    sound = [one for one in submissions if one.file not in reasons]
    for name in sorted({one.assignment for one in sound}):
        with tempfile.TemporaryDirectory() as folder:
            by_file = written([one for one in sound if one.assignment == name], students, Path(folder))
            found = compare_one(name, by_file, assignments, shown, out / f"{name}.html", Path(folder))
        tables.append(found[0])
        left_out += found[1]
    return most_similar_first(pd.concat([table for table in tables if len(table)] or tables)), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "similarity")
    parser.add_argument("--assignments", type=Path, default=ROOT / "_build" / "assignments")
    parser.add_argument("--students", type=Path, help="who is in the course")
    parser.add_argument("--rules", type=Path, help="of the course")
    parser.add_argument("--shown", type=int, default=30, help="pairs side by side, of each assignment")
    arguments = parser.parse_args()
    if arguments.shown < 1:
        parser.error(f"--shown: expected at least 1, got {arguments.shown}")
    if (arguments.students is None) != (arguments.rules is None):
        parser.error("--students and --rules: expected both or neither")
    names = [path.parent.name for path in arguments.assignments.glob("students/*/*.ipynb")]
    if not names:
        expected = "expected students/NAME/NAME.ipynb, found none; run `make assignments`"
        parser.error(f"{arguments.assignments}: {expected}")
    with tempfile.TemporaryDirectory() as work:
        try:
            students = read_students(arguments.students, read_rules(arguments.rules)) if arguments.students else None
            submissions = find(arguments.submissions, Path(work).resolve(), names)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        if not submissions:
            parser.error(f"{arguments.submissions}: expected a folder with notebooks, found none")
        arguments.out.mkdir(parents=True, exist_ok=True)
        table, left_out = compare(submissions, arguments.assignments, students, arguments.shown, arguments.out)
    reasons = pd.DataFrame(left_out, columns=["file", "reason"])
    for name, rows in (("similarity.csv", table.round(3)), ("left_out.csv", reasons)):
        with atomic_write(arguments.out / name) as whole:
            rows.to_csv(whole, index=False, errors="backslashreplace")
    for file, reason in left_out:
        print(f"left out: {file}: {reason}")
    print(table.head(10).round(2).to_string(index=False))
    print(f"{len(table)} pairs, {len(left_out)} files left out: {arguments.out / 'similarity.csv'}")


if __name__ == "__main__":
    main()
