"""Marks for a learning platform, from grades.csv, written points and the rules of the course.

    python tools/gradebook.py GRADES.csv [LATER.csv ...] --rules course.yaml --students students.csv
        [--written written.csv] [--late late.csv] [--out FOLDER]

Each GRADES.csv is a table of tools/grade.py: the first holds the first attempts at all assignments, the next the second
ones, and so on. A later table with an assignment that no earlier one has is refused: it would turn first attempts
into second ones. What each table counts as is printed. The rules are data:

    assignments:
      a1_noising_and_sampling:    # as in grades.csv
        title: A1                 # as on the platform
        weight: 20                # in the course, relative to the others
        automatic: 21             # points of what is tested, as in grades.csv
        written: {q7: 4}          # most points of each written part
        canvas: 4711              # may be left out: its number on Canvas
      talk: {title: Talk, weight: 10, automatic: 0, written: {talk: 10}}
    late: {free_days: 2, per_day: 10, most: 50}   # percent of the points reached, for each day after the free ones
    regrade: {most: 90}           # percent of all points that a second or later attempt can reach
    attempts: best                # or last: which one counts
    missing: blank                # or zero: the mark where nothing was handed in

students.csv has the columns name (a folder, file or e-mail under which somebody hands in) and id, and perhaps first,
last, email, login, section, canvas_id; a name without id is passed over. written.csv: student, assignment, question,
points, and perhaps comment. late.csv: student, assignment, attempt, days. A student without late days was in time.

Below FOLDER (default: _build/gradebook) come gradebook.csv (student_id, assignment, points, of, late_days, final),
totals.csv, canvas.csv, moodle.csv, gradescope/, a page for each student in feedback/, and passed_over.csv with what
was handed in and counts for nothing. A mark stays blank until all its written points are there. Nothing is written
where anything does not fit.
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import platforms
from course import Rules, Students, number, read_rules, read_students, read_table
from damm_lite.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("student", "file", "assignment", "points", "possible", "score", "reason", "report")  # of grades.csv


@dataclass(frozen=True)
class Attempt:
    """What a student handed in for an assignment, once."""

    number: int  # 1 for the first
    points: float  # of what is tested
    file: str = ""
    reason: str = ""  # why there are no points
    questions: tuple = ()  # (name, points) of each


@dataclass(frozen=True)
class Mark:
    """A student's mark for an assignment, with how it came about."""

    student_id: str
    assignment: str
    points: float | None  # None: nothing handed in
    of: float
    late_days: int
    final: float | None  # None: not yet
    attempt: Attempt | None = None
    written: tuple = ()  # (question, points or None, comment, of) of each written part

    def row(self) -> dict:
        keys = ("student_id", "assignment", "points", "of", "late_days", "final")
        return {key: getattr(self, key) for key in keys}


def read_attempts(paths: Sequence[str | Path], rules: Rules, students: Students) -> tuple[dict, list]:
    """({(student ID, assignment): [Attempt, ...]}, [(attempt, file, why it counts for nothing), ...]).

    Raises ValueError that names file and line of what does not fit the rules, or belongs to nobody who is known.
    """
    attempts, passed_over, strangers = {}, [], []
    for attempt, path in enumerate(paths, 1):
        earlier = {name for _, name in attempts}
        for line, row in read_table(path, COLUMNS, None):
            where, file, name = f"{path}, line {line}", row["file"], row["assignment"]
            student = students.handed_in(file)
            if not name or student == "":
                passed_over.append((attempt, file, row["reason"] if student != "" else "nobody's"))
            elif name not in rules.assignments:
                raise ValueError(f"{where}: expected an assignment of the rules, got {name!r}")
            elif attempt > 1 and name not in earlier:
                expected = f"all first attempts in {paths[0]}, as this table is of attempt {attempt}"
                raise ValueError(f"{where}: expected {expected}; got {name}, which no earlier table has")
            elif student is None:
                strangers.append(f"{where}: {file}")
            else:
                found = read_attempt(row, attempt, rules.assignments[name].automatic, where)
                attempts.setdefault((student, name), []).append(found)
    if strangers:
        raise ValueError(f"{students.path}: expected a name for these, or one with an empty id: {'; '.join(strangers)}")
    return attempts, passed_over


def attempts_by_table(paths: Sequence[str | Path], attempts: dict) -> list[str]:
    """For each table, as which attempt it counts, and of how many students at each assignment."""
    lines = []
    for attempt, path in enumerate(paths, 1):
        students = Counter(name for (_, name), some in attempts.items() if attempt in {one.number for one in some})
        each = ", ".join(f"{name} ({count})" for name, count in students.items())
        lines.append(f"{path}: attempt {attempt} at {each or 'nothing'}")
    return lines


def read_attempt(row: dict, attempt: int, automatic: float, where: str) -> Attempt:
    """One line of grades.csv."""
    if row["possible"] and not math.isclose(number(row["possible"], math.inf, where), automatic):
        raise ValueError(f"{where}: {row['possible']} points possible, but {automatic:g} in the rules")
    points = number(row["points"], automatic, where)
    questions = tuple((name, row[name]) for name in row if name not in COLUMNS and row[name])
    return Attempt(attempt, points, row["file"], row["reason"], questions)


def read_written(path: str | Path, rules: Rules, students: Students) -> dict:
    """{(student ID, assignment, question): (points, comment)}. Raises ValueError for what does not fit the rules."""
    written = {}
    for line, row in read_table(path, ("student", "assignment", "question", "points"), ("comment",)):
        where, question = f"{path}, line {line}", row["question"]
        parts = assignment_in(rules, row["assignment"], where)[1].written
        if question not in parts:
            raise ValueError(f"{where}: expected a written part, {' or '.join(parts)}, got {question!r}")
        key = (students.of(row["student"], where), row["assignment"], question)
        if key in written:
            raise ValueError(f"{where}: {row['student']} has points for {row['assignment']} {question} already")
        written[key] = (number(row["points"], parts[question], where), row.get("comment", ""))
    return written


def read_late(path: str | Path, rules: Rules, students: Students, attempts: dict) -> dict:
    """{(student ID, assignment, attempt): days}. Raises ValueError for what fits no rule and no attempt."""
    late = {}
    for line, row in read_table(path, ("student", "assignment", "attempt", "days")):
        where = f"{path}, line {line}"
        name, assignment = assignment_in(rules, row["assignment"], where)
        student = students.of(row["student"], where)
        attempt = int(number(row["attempt"], 100, f"{where}, attempt", whole=True))
        handed_in = {one.number for one in attempts.get((student, name), [])}
        if not assignment.automatic:
            handed_in.add(1)  # a talk
        key = (student, name, attempt)
        if attempt not in handed_in or key in late:
            raise ValueError(f"{where}: expected one line for an attempt that was handed in, got {attempt}")
        late[key] = int(number(row["days"], 10_000, f"{where}, days", whole=True))
    return late


def assignment_in(rules: Rules, name: str, where: str) -> tuple:
    """(name, `Assignment`) of the rules; else ValueError that says where."""
    if name not in rules.assignments:
        raise ValueError(f"{where}: expected an assignment, {' or '.join(rules.assignments)}, got {name!r}")
    return name, rules.assignments[name]


def reached(points: float, of: float, attempt: int, late_days: int, rules: Rules) -> float:
    """What is left of an attempt's points after the rules for late and later ones."""
    most = of * rules.regrade.most / 100 if attempt > 1 else of
    lost = min(rules.late.most, rules.late.per_day * max(0, late_days - rules.late.free_days))
    return round(min(points, most) * (1 - lost / 100), 2)


def mark(student: str, name: str, attempts: list[Attempt], written: dict, late: dict, rules: Rules) -> Mark:
    """A student's mark for an assignment. Raises ValueError where it is open which attempt was the last."""
    assignment = rules.assignments[name]
    entered = {part: written.get((student, name, part)) for part in assignment.written}
    parts = tuple((part, *(got or (None, "")), assignment.written[part]) for part, got in entered.items())
    if not attempts and any(entered.values()):
        reason = "no notebook handed in" if assignment.automatic else ""
        attempts = [Attempt(1, 0, reason=reason)]
    if not attempts:
        return Mark(student, name, None, assignment.of, 0, 0 if rules.missing == "zero" else None, None, parts)
    by_hand = sum(got[0] for got in entered.values() if got)

    def final(one):
        days = late.get((student, name, one.number), 0)
        return reached(one.points + by_hand, assignment.of, one.number, days, rules)

    if rules.attempts == "last":
        latest = max(one.number for one in attempts)
        attempts = [one for one in attempts if one.number == latest]
        if len(attempts) > 1:
            files = " or ".join(one.file for one in attempts)
            raise ValueError(f"{name} of {student}: which is the last, {files}? Give the others an empty id")
    best = max(attempts, key=final)
    whole = all(entered.values())
    days = late.get((student, name, best.number), 0)
    points = best.points + by_hand
    return Mark(student, name, points, assignment.of, days, final(best) if whole else None, best, parts)


def total(marks: Sequence[Mark], rules: Rules) -> tuple[float | None, float]:
    """(percent, weight) of a student in those assignments that have a mark."""
    parts = [(rules.assignments[one.assignment].weight, one.final / one.of) for one in marks if one.final is not None]
    weight = sum(weight for weight, _ in parts)
    return (round(100 * sum(a * b for a, b in parts) / weight, 2) if weight else None), weight


def write(marks: list[Mark], passed_over: list, rules: Rules, students: Students, out: Path) -> None:
    """Write every table and page below the folder `out`."""
    by_student = {student: [one for one in marks if one.student_id == student] for student in students.details}
    totals = {student: total(some, rules) for student, some in by_student.items()}
    tables = {
        "gradebook.csv": pd.DataFrame([one.row() for one in marks]),
        "totals.csv": pd.DataFrame([(k, *v) for k, v in totals.items()], columns=["student_id", "percent", "weight"]),
        "passed_over.csv": pd.DataFrame(passed_over, columns=["attempt", "file", "reason"]),
        "canvas.csv": platforms.canvas(by_student, rules, students),
        "moodle.csv": platforms.moodle(by_student, rules, students),
    }
    tables |= platforms.gradescope(by_student, rules, students)
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    texts |= platforms.feedback(by_student, totals, rules, students)
    for name, text in texts.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out / name) as whole:
            whole.write_text(text, encoding="utf-8", newline="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grades", type=Path, nargs="+")
    parser.add_argument("--rules", type=Path, required=True)
    parser.add_argument("--students", type=Path, required=True)
    parser.add_argument("--written", type=Path)
    parser.add_argument("--late", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "gradebook")
    arguments = parser.parse_args()
    try:
        rules = read_rules(arguments.rules)
        students = read_students(arguments.students, rules)
        attempts, passed_over = read_attempts(arguments.grades, rules, students)
        written = read_written(arguments.written, rules, students) if arguments.written else {}
        late = read_late(arguments.late, rules, students, attempts) if arguments.late else {}
        marks = [
            mark(student, name, attempts.get((student, name), []), written, late, rules)
            for student in students.details
            for name in rules.assignments
        ]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write(marks, passed_over, rules, students, arguments.out)
    waiting = sum(one.points is not None and one.final is None for one in marks)
    print("\n".join(attempts_by_table(arguments.grades, attempts)))
    print(f"{arguments.out}: {len(students.details)} students, {len(rules.assignments)} assignments")
    print(f"{waiting} marks wait for written points; {len(passed_over)} rows count for nothing: passed_over.csv")


if __name__ == "__main__":
    main()
