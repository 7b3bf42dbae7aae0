"""Marks in the forms of learning platforms, and a page for each student.

- Canvas takes its own form back (Grades > Import): Student, ID, SIS User ID, SIS Login ID, Section, a column for each
  assignment, and a first line with the points possible. It looks for a student by ID, which is its own number, then
  by SIS User ID, login and name; for an assignment by the number in brackets, then by title. It shows what will
  change before it does: a blank may take a mark away that is there.
- Moodle (Grades > Import > CSV) lets you say which column is what: map "ID number" or "Email address", and each
  assignment. It refuses the whole file for one student whom it does not know. "-" is no grade, and takes a grade away
  that is there; marks above 100 need unlimited grades.
- Gradescope grades by itself and imports no marks. A file for each assignment has the columns of its own "Download
  Grades", for whatever reads those.
"""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from course import Rules, Students
from submissions import unique

Marks = Mapping[str, Sequence]  # of each student, by ID, in the order of the rules' assignments


def shown(value: float | None, otherwise: str = "") -> str:
    """A number without zeros at its end, at most two places."""
    return otherwise if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def full_name(details: Mapping, student: str) -> str:
    """Last, First; the ID where neither is known."""
    return ", ".join(filter(None, (details["last"], details["first"]))) or student


def canvas(marks: Marks, rules: Rules, students: Students) -> pd.DataFrame:
    """The form that Canvas exports and imports."""
    known = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    every = rules.assignments.values()
    titles = [one.title if one.canvas is None else f"{one.title} ({one.canvas})" for one in every]
    rows = [["    Points Possible", "", "", "", "", *(shown(one.of) for one in every)]]
    for student, some in marks.items():
        details = students.details[student]
        who = [full_name(details, student), details["canvas_id"], student, details["login"], details["section"]]
        rows.append([*who, *(shown(one.final) for one in some)])
    return pd.DataFrame(rows, columns=known + titles)


def moodle(marks: Marks, rules: Rules, students: Students) -> pd.DataFrame:
    """The form that Moodle exports and imports."""
    known = ["First name", "Last name", "ID number", "Email address"]
    rows = []
    for student, some in marks.items():
        details = students.details[student]
        who = [details["first"], details["last"], student, details["email"]]
        rows.append([*who, *(shown(one.final, "-") for one in some)])
    return pd.DataFrame(rows, columns=known + [one.title for one in rules.assignments.values()])


def gradescope(marks: Marks, rules: Rules, students: Students) -> dict[str, pd.DataFrame]:
    """The form that Gradescope exports, for each assignment, by the name of its file."""
    rows = {name: [] for name in rules.assignments}
    for student, some in marks.items():
        details = students.details[student]
        for one in some:
            status = "Missing" if one.points is None else "Ungraded" if one.final is None else "Graded"
            row = {"First Name": details["first"], "Last Name": details["last"], "SID": student}
            row |= {"Email": details["email"], "Sections": details["section"], "Total Score": shown(one.final)}
            row |= {"Max Points": shown(one.of), "Status": status, "Submission ID": "", "Submission Time": ""}
            row |= {"Lateness (H:M:S)": f"{24 * one.late_days:02d}:00:00", "View Count": "", "Submission Count": ""}
            rows[one.assignment].append(row)
    return {f"gradescope/{name}.csv": pd.DataFrame(table) for name, table in rows.items()}


def feedback(marks: Marks, totals: Mapping, rules: Rules, students: Students) -> dict[str, str]:
    """A page for each student, in Markdown, by the name of its file."""
    pages, taken = {}, set()
    for student, some in marks.items():
        percent, weight = totals[student]
        lines = [f"# {full_name(students.details[student], student)}", ""]
        lines += ["| assignment | points | of | late days | mark |", "|---|---|---|---|---|"]
        for one in some:
            numbers = [shown(one.points, "-"), shown(one.of), str(one.late_days), shown(one.final, "-")]
            lines.append(f"| {' | '.join([rules.assignments[one.assignment].title, *numbers])} |")
        if percent is not None:
            every = sum(one.weight for one in rules.assignments.values())
            lines += ["", f"So far {shown(percent)} %, from {shown(100 * weight / every)} % of the course."]
        for one in some:
            lines += section(one, rules)
        name = unique(re.sub(r"[^\w.-]+", "-", student)[:50].strip(".-") or "student", taken)
        pages[f"feedback/{name}.md"] = "\n".join(lines) + "\n"
    return pages


def section(mark, rules: Rules) -> list[str]:
    """The lines on one assignment: its questions, what was said on the written ones, and the rules that applied."""
    if mark.attempt is None:
        return []
    lines = ["", f"## {rules.assignments[mark.assignment].title}", ""]
    if mark.attempt.reason:
        lines += [f"No points for what is tested: {mark.attempt.reason}.", ""]
    lines += ["| question | points |", "|---|---|"]
    lines += [f"| {question} | {points} |" for question, points in mark.attempt.questions]
    lines += [f"| {part} | {shown(points, 'not yet')} of {shown(of)} |" for part, points, _, of in mark.written]
    lines += [line for part, _, comment, _ in mark.written if comment for line in ("", f"**{part}**: {comment}")]
    if mark.final is not None and mark.final != round(mark.points, 2):
        after = f"attempt {mark.attempt.number}, {mark.late_days} days late"
        lines += ["", f"{shown(mark.points)} points become {shown(mark.final)} by the rules of the course ({after})."]
    return lines
