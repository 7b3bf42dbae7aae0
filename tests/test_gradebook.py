"""Marks: points, rules and names merged as computed by hand here, and the forms that the platforms take."""

import csv
import io
import re
import sys

import pytest

import gradebook
from course import read_rules, read_students, read_table

RULES = """
assignments:
  a1_noising: {title: A1, weight: 30, automatic: 20, written: {q7: 4, q8: 1}, canvas: 4711}
  a2_fusion: {title: A2, weight: 50, automatic: 10}
  talk: {title: Talk, weight: 20, automatic: 0, written: {talk: 8}}
late: {free_days: 1, per_day: 10, most: 50}
regrade: {most: 80}
"""
STUDENTS = """name,id,first,last,email,login,section,canvas_id
Kim Lee,0042,Kim,Lee,kim@uni.edu,kl42,S1,9001
kim-extra,0042,,,,,,
müller,0043,Änne,"Müller, Dr.",am@uni.edu,am43,S1,9002
ben,b-7,Ben,Ode,Ben@uni.edu,,S2,
nobody,,,,,,,
"""
HEADER = "student,file,assignment,points,possible,score,reason,report,q1,q2\n"
FIRST = HEADER + (
    "x,Kim Lee_123_assignsubmission_file/a1.ipynb,a1_noising,18,20,,,x.md,10,8\n"
    "x,bulk.zip/mu\u0308ller_LATE_55_66_a1.ipynb,a1_noising,12.5,20,,,x.md,10,2.5\n"
    "x,bulk.zip/mu\u0308ller_LATE_55_66_a1.ipynb,a2_fusion,10,10,,,x.md,10,\n"
    "x,ben_a2.ipynb,a2_fusion,0,,,Kernel died,x.md,,\n"
    "x,ben/kim-extra.ipynb,a1_noising,7,20,,,x.md,7,0\n"
    'x,readme.txt,,0,,,"expected a notebook, got a .txt",x.md,,\n'
    "x,nobody/a1.ipynb,a1_noising,20,20,,,x.md,,\n"
)
SECOND = HEADER + "x,BEN@uni.edu/a2 (1).ipynb,a2_fusion,9,10,,,x.md,9,\n"
WRITTEN = """student,assignment,question,points,comment
0042,a1_noising,q7,3.5,"A good figure, | no units"
kim@UNI.edu,a1_noising,q8,1,
müller,a1_noising,q7,4,
müller,a1_noising,q8,0,
ben,a1_noising,q7,1,
b-7,talk,talk,6,Too fast
"""
LATE = """student,assignment,attempt,days
0043,a1_noising,1,4
0043,a2_fusion,1,9
ben,talk,1,2
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that runs the command with some files changed, and gives the folder that it wrote."""

    def run(grades=(FIRST, SECOND), **changed):
        files = dict(rules=RULES, students=STUDENTS, written=WRITTEN, late=LATE) | changed
        arguments = ["gradebook.py"]
        for number, text in enumerate(grades, 1):
            (tmp_path / f"grades{number}.csv").write_text(text, encoding="utf-8")
            arguments.append(str(tmp_path / f"grades{number}.csv"))
        for name, text in files.items():
            path = tmp_path / f"{name}.{'yaml' if name == 'rules' else 'csv'}"
            path.write_text(text, encoding="utf-8")
            arguments += [f"--{name}", str(path)]
        monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "out")])
        gradebook.main()
        return tmp_path / "out"

    return run


def table(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_one_table_with_every_student_and_assignment(course, capsys):
    out = course()
    assert table(out / "gradebook.csv") == [
        ["student_id", "assignment", "points", "of", "late_days", "final"],
        ["0042", "a1_noising", "22.5", "25.0", "0", "22.5"],  # 18 + 3.5 + 1
        ["0042", "a2_fusion", "", "10.0", "0", ""],  # nothing handed in
        ["0042", "talk", "", "8.0", "0", ""],
        ["0043", "a1_noising", "16.5", "25.0", "4", "11.55"],  # 12.5 + 4; three days more than the free one: - 30 %
        ["0043", "a2_fusion", "10.0", "10.0", "9", "5.0"],  # eight days: at most - 50 %
        ["0043", "talk", "", "8.0", "0", ""],
        ["b-7", "a1_noising", "8.0", "25.0", "0", ""],  # 7 + 1, and q8 is not yet entered
        ["b-7", "a2_fusion", "9.0", "10.0", "0", "8.0"],  # a second attempt: at most 80 % of 10
        ["b-7", "talk", "6.0", "8.0", "2", "5.4"],
    ]
    totals = table(out / "totals.csv")[1:]
    percent = [100 * 22.5 / 25, 100 * (30 * 11.55 / 25 + 50 * 0.5) / 80, 100 * (50 * 0.8 + 20 * 5.4 / 8) / 70]
    assert [float(row[1]) for row in totals] == pytest.approx(percent, abs=0.005)
    assert [float(row[2]) for row in totals] == [30, 80, 70]
    assert table(out / "passed_over.csv")[1:] == [
        ["1", "readme.txt", "expected a notebook, got a .txt"],
        ["1", "nobody/a1.ipynb", "nobody's"],
    ]
    assert "1 marks wait for written points; 2 rows count for nothing" in capsys.readouterr().out


def test_the_best_or_the_last_attempt_counts(course):
    again = HEADER + "x,ben.ipynb,a2_fusion,3,10,,,x.md,3,\nx,Kim Lee/a1.ipynb,a1_noising,20,20,,,x.md,10,10\n"
    best = table(course(grades=(FIRST, SECOND, again)) / "gradebook.csv")
    assert [row[-1] for row in best if row[1] == "a2_fusion"] == ["", "5.0", "8.0"]
    assert best[1][-1] == "22.5"  # 24.5, of which a second attempt reaches 20: the first is better
    last = table(course(grades=(FIRST, SECOND, again), rules=RULES + "attempts: last\n") / "gradebook.csv")
    assert [row[-1] for row in last if row[1] == "a2_fusion"] == ["", "5.0", "3.0"] and last[1][-1] == "20.0"


def test_what_each_table_counts_as_is_printed(course, capsys):
    course()
    first, second, *_ = capsys.readouterr().out.split("\n")
    assert first.endswith("grades1.csv: attempt 1 at a1_noising (3), a2_fusion (2)")
    assert second.endswith("grades2.csv: attempt 2 at a2_fusion (1)")


def test_a_table_for_each_assignment_is_refused(course, capsys, tmp_path):
    """A2 graded after A1, each in a table of its own: nobody's first attempt may become a second one."""
    a1, a2 = (HEADER + f"x,ben.ipynb,{name},9,,,,x.md,9,\n" for name in ("a1_noising", "a2_fusion"))
    with pytest.raises(SystemExit, match="2"):
        course(grades=(a1, a2), late="student,assignment,attempt,days\n")
    said = capsys.readouterr().err
    assert "grades2.csv, line 2: expected all first attempts in" in said and "grades1.csv, as this" in said
    assert "of attempt 2; got a2_fusion, which no earlier table has" in said and not (tmp_path / "out").exists()
    both = table(
        course(grades=(a1 + a2.removeprefix(HEADER),), late="student,assignment,attempt,days\n") / "gradebook.csv"
    )
    assert [row[-1] for row in both if row[:2] == ["b-7", "a2_fusion"]] == ["9.0"]


def test_nothing_handed_in_may_count_as_zero(course):
    rows = table(course(rules=RULES + "missing: zero\n") / "gradebook.csv")
    assert [row[-1] for row in rows if row[2] == ""] == ["0.0", "0.0", "0.0"]


def test_canvas_takes_its_form(course):
    """By the rules of its own importer, lib/gradebook_importer.rb: header?, process_pp and process_student."""
    header, points, *students = table(course() / "canvas.csv")
    assert len(header) > 4 and "Student" in header[0] and "ID" in header[1]
    assert re.match(r"SIS\s+User\s+ID", header[2]) and re.match(r"SIS\s+Login\s+ID", header[3])
    assert "Section" in header[4] and header[5:] == ["A1 (4711)", "A2", "Talk"]
    assert not [title for title in header[5:] if re.search("(Current|Final|Override) (Score|Points|Grade)", title)]
    assert "Points Possible" in points[0] and points[5:] == ["25", "10", "8"]
    assert students == [
        ["Lee, Kim", "9001", "0042", "kl42", "S1", "22.5", "", ""],
        ["Müller, Dr., Änne", "9002", "0043", "am43", "S1", "11.55", "5", ""],
        ["Ode, Ben", "", "b-7", "", "S2", "", "8", "5.4"],
    ]


def test_moodle_takes_its_form(course):
    """One line a student, known by ID number or e-mail as it was written; a minus is no grade."""
    assert table(course() / "moodle.csv") == [
        ["First name", "Last name", "ID number", "Email address", "A1", "A2", "Talk"],
        ["Kim", "Lee", "0042", "kim@uni.edu", "22.5", "-", "-"],
        ["Änne", "Müller, Dr.", "0043", "am@uni.edu", "11.55", "5", "-"],
        ["Ben", "Ode", "b-7", "Ben@uni.edu", "-", "8", "5.4"],
    ]


def test_gradescope_has_its_columns(course):
    """Those of "Download Grades" of one assignment."""
    out = course() / "gradescope"
    assert sorted(path.name for path in out.iterdir()) == ["a1_noising.csv", "a2_fusion.csv", "talk.csv"]
    header, *rows = table(out / "a1_noising.csv")
    assert header[:5] == ["First Name", "Last Name", "SID", "Email", "Sections"]
    assert header[5:10] == ["Total Score", "Max Points", "Status", "Submission ID", "Submission Time"]
    assert header[10:] == ["Lateness (H:M:S)", "View Count", "Submission Count"]
    assert [[row[2], *row[5:8], row[10]] for row in rows] == [
        ["0042", "22.5", "25", "Graded", "00:00:00"],
        ["0043", "11.55", "25", "Graded", "96:00:00"],
        ["b-7", "", "25", "Ungraded", "00:00:00"],
    ]
    assert [row[7] for row in table(out / "a2_fusion.csv")[1:]] == ["Missing", "Graded", "Graded"]


def test_a_page_for_each_student(course):
    out = course() / "feedback"
    assert sorted(path.name for path in out.iterdir()) == ["0042.md", "0043.md", "b-7.md"]
    kim, anne, ben = ((out / f"{name}.md").read_text(encoding="utf-8") for name in ("0042", "0043", "b-7"))
    assert "# Lee, Kim" in kim and "| A1 | 22.5 | 25 | 0 | 22.5 |" in kim and "| A2 | - | 10 | 0 | - |" in kim
    assert "| q7 | 3.5 of 4 |" in kim and "**q7**: A good figure, | no units" in kim
    assert "So far 90 %, from 30 % of the course." in kim and "Müller" not in kim and "become" not in kim
    assert "16.5 points become 11.55 by the rules of the course (attempt 1, 4 days late)" in anne
    assert "| q8 | not yet of 1 |" in ben and "9 points become 8 by the rules of the course (attempt 2" in ben


def test_pages_never_overwrite_each_other(course):
    students = STUDENTS + "x,a/b,,,,,,\ny,a-b,,,,,,\nz,A b,,,,,,\n"
    names = sorted(path.name for path in (course(students=students) / "feedback").iterdir())
    assert len(names) == 6 and len({name.casefold() for name in names}) == 6


@pytest.mark.parametrize(
    "file, expected",
    [
        ("Kim Lee/a1.ipynb", "0042"),
        ("KIM LEE.ipynb", "0042"),
        ("kim lee_123_assignsubmission_file/x/y.ipynb", "0042"),
        ("A1.zip/ben_LATE_12_34_mine.ipynb", "b-7"),
        ("ben_a2.ipynb", "b-7"),
        ("ben@uni.edu/a1.ipynb", "b-7"),
        ("a1/0043.ipynb", "0043"),
        ("ben/Kim Lee.ipynb", "b-7"),  # the outer name is the platform's, the inner one the student's choice
        ("nobody.ipynb", ""),
        ("ben_jonson.ipynb", None),
        ("benjamin.ipynb", None),
        ("..", None),
        ("kim/a1.ipynb", None),
    ],
)
def test_whose_a_file_is(tmp_path, file, expected):
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "students.csv").write_text(STUDENTS, encoding="utf-8")
    students = read_students(tmp_path / "students.csv", read_rules(tmp_path / "rules.yaml"))
    assert students.handed_in(file) == expected


def test_the_longest_name_that_fits_counts(tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "students.csv").write_text("name,id\nben,1\nben_7,2\n")
    students = read_students(tmp_path / "students.csv", read_rules(tmp_path / "rules.yaml"))
    found = [students.handed_in(f"ben{number}_a1.ipynb") for number in ("", "_7", "_8")]
    assert found == ["1", "2", "1"]


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


WRONG = {
    "unknown key": (dict(rules=RULES + "curve: 3\n"), "rules.yaml: expected assignments, and perhaps late"),
    "unknown key inside": (dict(rules=changed(RULES, "per_day: 10", "per_week: 10")), "late.per_week: Extra inputs"),
    "unknown key of an assignment": (dict(rules=changed(RULES, "weight: 50", "wieght: 50")), "wieght"),
    "text for a number": (
        dict(rules=changed(RULES, "weight: 50", "weight: '50'")),
        "a2_fusion.weight: Input should be",
    ),
    "yes for a number": (dict(rules=changed(RULES, "weight: 50", "weight: yes")), "a2_fusion.weight: Input should be"),
    "a negative weight": (dict(rules=changed(RULES, "weight: 50", "weight: -1")), "greater than or equal to 0, got -1"),
    "more than all": (dict(rules=changed(RULES, "most: 50", "most: 150")), "late.most: Input should be less than"),
    "endless points": (dict(rules=changed(RULES, "automatic: 10", "automatic: .inf")), "rules.yaml"),
    "no points at all": (dict(rules=changed(RULES, "automatic: 10", "automatic: 0")), "a2_fusion: expected points"),
    "a title twice": (dict(rules=changed(RULES, "title: A2", "title: A1")), "got 'A1' twice"),
    "a key twice": (dict(rules=RULES + "late: {per_day: 5}\n"), "'late' stands twice"),
    "another rule": (dict(rules=RULES + "attempts: first\n"), "attempts: Input should be 'best' or 'last'"),
    "no yaml": (dict(rules="assignments: ["), "rules.yaml"),
    "a column too many": (
        dict(written=changed(WRITTEN, "points,comment", "points,remark")),
        "written.csv: expected col",
    ),
    "semicolons": (dict(students=STUDENTS.replace(",", ";")), "students.csv: expected columns name, id"),
    "a cell too many": (dict(late=LATE + "ben,talk,1,2,3\n"), "late.csv, line 5: expected at most 4 cells"),
    "more than possible": (dict(written=changed(WRITTEN, "q7,3.5", "q7,4.5")), "line 2: expected a number from 0 to 4"),
    "no number": (dict(written=changed(WRITTEN, "q7,3.5", 'q7,"3,5"')), "line 2: expected a number from 0 to 4"),
    "not a number": (dict(written=changed(WRITTEN, "q7,3.5", "q7,nan")), "line 2: expected a number from 0 to 4"),
    "an unknown part": (dict(written=changed(WRITTEN, "q7,3.5", "q1,3.5")), "expected a written part, q7 or q8, got"),
    "an unknown student": (dict(written=changed(WRITTEN, "0042", "42")), "'42' is no student in"),
    "points twice": (dict(written=WRITTEN + "kim-extra,a1_noising,q7,1,\n"), "has points for a1_noising q7 already"),
    "an unknown assignment": (dict(late=changed(LATE, "ben,talk", "ben,a9")), "expected an assignment, a1_noising or"),
    "half a day": (dict(late=changed(LATE, "talk,1,2", "talk,1,0.5")), "days: expected a whole number"),
    "late twice": (dict(late=LATE + "b-7,talk,1,3\n"), "line 5: expected one line for an attempt"),
    "late with nothing": (dict(late=LATE + "0042,a2_fusion,1,2\n"), "expected one line for an attempt that was handed"),
    "one name for two": (dict(students=STUDENTS + "BEN,0042,,,,,,\n"), "line 7: 'BEN' is also b-7"),
    "two e-mails": (dict(students=STUDENTS + "k,0042,,,k@uni.edu,,,\n"), "email 'k@uni.edu' of 0042, before 'kim@"),
    "nobody": (dict(students="name,id\n"), "expected at least one student"),
    "a stranger": (dict(grades=(FIRST + "x,eve.ipynb,a1_noising,5,20,,,x.md,,\n",)), "line 9: eve.ipynb"),
    "other points": (
        dict(grades=(changed(FIRST, "18,20", "18,21"),)),
        "line 2: 21 points possible, but 20 in the rules",
    ),
    "too many points": (dict(grades=(changed(FIRST, "18,20", "28,20"),)), "line 2: expected a number from 0 to 20"),
    "another table": (dict(grades=("a,b\n1,2\n",)), "grades1.csv: expected columns student, file, assignment"),
    "two last ones": (
        dict(grades=(FIRST + "x,ben/a2.ipynb,a2_fusion,5,10,,,x.md,,\n",), rules=RULES + "attempts: last\n"),
        "a2_fusion of b-7: which is the last, ben_a2.ipynb or ben/a2.ipynb?",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_named_and_nothing_written(course, capsys, tmp_path, fault):
    files, expected = WRONG[fault]
    with pytest.raises(SystemExit, match="2"):
        course(**files)
    assert expected in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_table_may_come_from_a_spreadsheet(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes("name,id\r\n\r\n ä , 1 \r\nb\r\n,\r\n".encode("utf-8-sig"))
    assert read_table(path, ("name", "id")) == [(3, {"name": "ä", "id": "1"}), (4, {"name": "b", "id": ""})]
    path.write_bytes("name,id\nä,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="x.csv: expected a table in CSV, in UTF-8"):
        read_table(path, ("name", "id"))
