"""Grade a folder of submitted notebooks, each in a sandbox: python tools/grade.py SUBMISSIONS [--out FOLDER]

SUBMISSIONS is a folder, or the .zip of a learning platform, with notebooks, archives of them and cloned repositories
in it, at any depth. Which assignment a notebook belongs to stands in its metadata, or else in its name, and what
grades it is what `make assignments` left in _build/assignments/instructor. Every notebook runs under bubblewrap, or
in Docker where that is missing, with no network, no file of the machine but the Python environment (read-only), and
limits of time and memory.

With --students and --rules (see tools/gradebook.py) every student is graded by the data of his or her own variant, as
`python tools/make_assignments.py --students` handed them out.

Written, below FOLDER (default: _build/grades): grades.csv, one row for every file and folder handed in, with the
reason where it got no points, and reports/, a page for each row that shows no hidden test. Those of an earlier run are
replaced.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import sandbox
from course import Students, read_rules, read_students, variant
from damm_lite.atomic import atomic_write
from damm_lite.experiments.jobs import usable_cores
from notebooks import in_print, said
from sandbox import Limits
from submissions import Submission, find

ROOT = Path(__file__).resolve().parents[1]
# Takes a notebook and what grades it; (an archive with results.json and perhaps score, "") or (b"", why there is none).
Runner = Callable[[Path, Path], tuple[bytes, str]]


@dataclass
class Grade:
    """What one submission got, and why it got nothing where it did."""

    submission: Submission
    questions: list = field(default_factory=list)  # dicts: name, score, max_score
    public: str = ""  # what the public tests said
    score: float | None = None  # of a competition
    reason: str = ""
    seconds: float = 0  # that grading took; not in the table, which is the same each time

    def row(self) -> dict:
        """The submission's line of the table, with the points of each question."""
        one = self.submission
        points = sum(question["score"] for question in self.questions)
        possible = sum(question["max_score"] for question in self.questions) or None  # unknown where nothing was graded
        start = dict(student=one.student, file=one.file, assignment=one.assignment, points=points, possible=possible)
        by_question = {question["name"]: question["score"] for question in self.questions}
        return start | dict(score=self.score, reason=self.reason, report=one.page) | by_question


def grade(submission: Submission, autograders: Path, runner: Runner) -> Grade:
    """Grade one submission; whatever it does, a `Grade` comes back."""
    if submission.reason:
        return Grade(submission, reason=submission.reason)
    start = time.monotonic()
    try:
        output, reason = runner(submission.notebook, autograders / submission.assignment / "autograder.zip")
        done = Grade(submission, reason=in_print(reason)) if reason else results(submission, output)
    except Exception as error:  # what comes out of the sandbox may be anything
        done = Grade(submission, reason=f"graded without results that can be read: {said(error)}")
    done.seconds = time.monotonic() - start
    return done


def results(submission: Submission, output: bytes) -> Grade:
    """The grade in an archive from the sandbox. Raises whatever reading it may raise."""
    with tarfile.open(fileobj=io.BytesIO(output)) as archive:
        tests = json.load(archive.extractfile("./results.json"))["tests"]
        score = float(archive.extractfile("./score").read()) if "./score" in archive.getnames() else None
    keys = ("name", "score", "max_score")
    questions = [{key: test[key] for key in keys} for test in tests if "max_score" in test]
    public = "\n".join(test["output"] for test in tests if test["visibility"] == "visible")
    reason = "" if questions else in_print(tests[-1]["output"].strip().split("\n")[-1][:200])
    return Grade(submission, questions, public, score, reason)


def report(grade: Grade) -> str:
    """The page for a student, in Markdown: the points of each question, and what the public tests said."""
    one = grade.submission
    lines = [f"# {one.assignment or 'No assignment'}: {one.student}", ""]
    if grade.reason:
        lines += [f"**0 points**: {grade.reason}.", ""]
    lines += ["| question | points | of |", "|---|---|---|"]
    lines += [f"| {q['name']} | {q['score']:g} | {q['max_score']:g} |" for q in grade.questions]
    lines += ["", "The public tests:", "", "```", grade.public.strip(), "```"]
    return "\n".join(lines) + "\n"


def grade_all(submissions: list[Submission], autograders: Path, runner: Runner, out: Path, workers: int) -> list[Grade]:
    """Grade submissions, `workers` at a time, and write table and pages below `out` as they come; grades in order."""
    reports = out / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    grades = [None] * len(submissions)
    with ThreadPoolExecutor(workers) as pool:  # the work is that of the sandbox's processes
        futures = {pool.submit(grade, one, autograders, runner): place for place, one in enumerate(submissions)}
        try:
            for future in tqdm(as_completed(futures), "grading", len(futures)):
                place = futures[future]
                grades[place] = future.result()
                text = report(grades[place]).encode(errors="backslashreplace")
                (reports / submissions[place].page).write_bytes(text)
                with atomic_write(out / "grades.csv") as whole:
                    table = pd.DataFrame([one.row() for one in grades if one])
                    table.to_csv(whole, index=False, errors="backslashreplace")
        finally:
            pool.shutdown(cancel_futures=True)
    return grades


def variants(submissions: list[Submission], students: Students) -> tuple[list[Submission], dict[Path, int]]:
    """(the submissions, the variant of each notebook); one that is nobody's gets the reason instead of a variant."""
    checked, numbers = [], {}
    for one in submissions:
        student = students.handed_in(one.file)
        if one.notebook and not student:
            one = replace(one, notebook=None, reason=f"nobody in {students.path.name} hands in as this")
        if one.notebook:
            numbers[one.notebook] = variant(student, one.assignment)
        checked.append(one)
    return checked, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "grades")
    parser.add_argument("--autograders", type=Path, default=ROOT / "_build" / "assignments" / "instructor")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="of one submission")
    parser.add_argument("--memory", type=float, default=Limits.memory, help="GiB, of each that is graded")
    parser.add_argument("--students", type=Path, help="who is in the course, where each has a variant")
    parser.add_argument("--rules", type=Path, help="of the course")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="how many are graded at a time")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers: expected at least 1, got {arguments.workers}")
    if (arguments.students is None) != (arguments.rules is None):
        parser.error("--students and --rules: expected both or neither")
    assignments = [path.parent.name for path in arguments.autograders.resolve().glob("*/autograder.zip")]
    with tempfile.TemporaryDirectory() as work:
        try:
            submissions = find(arguments.submissions, Path(work).resolve(), assignments)
        except OSError as error:
            parser.error(f"{arguments.submissions}: expected a folder with notebooks: {error.strerror}")
        if not submissions:
            parser.error(f"{arguments.submissions}: expected a folder with notebooks, found none")
        if not assignments:
            parser.error(f"{arguments.autograders}: expected NAME/autograder.zip, found none; run `make assignments`")
        numbers = {}
        try:
            if arguments.students:
                students = read_students(arguments.students, read_rules(arguments.rules))
                submissions, numbers = variants(submissions, students)
            command = sandbox.working()
        except (OSError, ValueError, RuntimeError) as error:
            parser.error(str(error))
        limits, start = Limits(arguments.seconds, arguments.memory), time.monotonic()
        grades = grade_all(
            submissions,
            arguments.autograders.resolve(),
            lambda notebook, tests: sandbox.grade(command, notebook, tests, limits, numbers.get(notebook, 0)),
            arguments.out,
            arguments.workers,
        )
    took, each = time.monotonic() - start, [one.seconds for one in grades if one.submission.notebook]
    without = sum(bool(one.reason) for one in grades)
    together = f"those of each add up to {sum(each):.1f}: {sum(each) / took:.2f} at a time"
    print(f"{len(each)} submissions, workers: {arguments.workers}. It took {took:.1f} seconds; {together}")
    print(f"{len(grades)} rows, {without} of them without points and with the reason: {arguments.out / 'grades.csv'}")
    print(f"A page for each: {arguments.out / 'reports'}")


if __name__ == "__main__":
    main()
