"""Assignments: what students get holds neither solutions nor hidden tests, and what instructors keep is right."""

import ast
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import grade
import make_assignments
import sandbox
from cheating import read
from course import Assignment, Rules, read_students, variant
from submissions import Submission

ROOT = Path(__file__).parents[1]
MASTERS = sorted((ROOT / "book" / "assignments").glob("*.ipynb"))
needs_masters = pytest.mark.skipif(not MASTERS, reason="no masters in book/assignments: this copy keeps them elsewhere")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that the command makes; a master that fails one of its own tests fails the command."""
    out = tmp_path_factory.mktemp("assignments")
    command = [sys.executable, ROOT / "tools" / "make_assignments.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(params=MASTERS, ids=lambda p: p.stem)
def master(request):
    return request.param


def key_of(master):
    return master.parent / "keys" / f"{master.stem}.py"


def cells(path):
    return nbformat.read(path, as_version=4).cells


def private_lines(master):
    """Every line of a master that only the instructor may see, without those that stand elsewhere as well."""
    private, public, block = [], [], None
    for cell in cells(master):
        if cell.cell_type == "raw":
            begin, end = (re.match(rf"# {word} (\w+)", cell.source) for word in ("BEGIN", "END"))
            block = begin[1] if begin and begin[1] != "QUESTION" else None if end else block
            continue
        hidden = block == "TESTS" and "hidden: true" in cell.source
        inside = hidden or block == "SOLUTION" and cell.cell_type == "markdown"
        answered = any("SOLUTION" in line for line in cell.source.split("\n"))
        for line in cell.source.split("\n"):
            if line.strip().startswith("# BEGIN SOLUTION"):
                inside = True
            elif line.strip().startswith("# END SOLUTION"):
                inside = False
            elif inside or line.endswith("# SOLUTION") or block == "SOLUTION" and not answered:
                private.append(line.strip().removesuffix("  # SOLUTION"))
            else:
                public.append(line.strip())
    return [line for line in private if len(line) > 12 and line not in public and '"""' not in line]


def students_text(folder):
    """Everything below a folder, as one text; notebooks with their metadata, archives unpacked."""
    texts = []
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                texts += [archive.read(name).decode() for name in archive.namelist()]
        else:
            assert path.suffix == ".ipynb", path
            texts.append(path.read_text())
    return "\n".join(texts)


def plain(code):
    """Code without what otter and JSON change about it: quotes, spaces and escapes."""
    return re.sub(r"[\s'\"\\()]", "", code)


@needs_masters
def test_students_get_neither_solutions_nor_hidden_tests(made, master):
    private = private_lines(master)
    assert len(private) > 30
    folder = made / "students" / master.stem
    assert {p.name for p in folder.rglob("*.*")} == {master.name, "tests.zip"}
    text, kept = plain(students_text(folder)), plain(students_text(made / "instructor" / master.stem))
    for line in private:
        assert plain(line) not in text, line
    assert sum(plain(line) in kept for line in private) > 0.7 * len(private)  # not the comments in hidden tests
    assert "judge.py" not in text
    with zipfile.ZipFile(made / "instructor" / master.stem / "autograder.zip") as archive:
        assert archive.read("files/key.py") == key_of(master).read_bytes()
        assert archive.read("files/judge.py") == (ROOT / "tools" / "judge.py").read_bytes()


@needs_masters
def test_students_run_to_the_first_blank_and_fail_with_messages(made, master, tmp_path):
    path = shutil.copy(made / "students" / master.stem / master.name, tmp_path)
    notebook = nbformat.read(path, as_version=4)
    blank = next(i for i, c in enumerate(notebook.cells) if "otter_answer_cell" in c.metadata.get("tags", []))
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": tmp_path}}).execute()
    errors = [o for c in notebook.cells[:blank] for o in c.get("outputs", []) if o.output_type == "error"]
    assert not errors and sum(c.cell_type == "code" for c in notebook.cells[:blank]) >= 3
    checked = 0
    for name, test in notebook.metadata.otter.tests.items():
        (cell,) = (c for c in notebook.cells if c.source == f'grader.check("{name}")')
        (output,) = cell.outputs
        said, told = output.data["text/plain"], messages(test)
        assert told and "Test case failed" in said, name
        assert any(message in plain(said) for message in told), f"{name}: none of its messages in\n{said}"
        checked += 1
    assert checked >= 3


def messages(test):
    """The constant parts of the messages of a question's public assertions."""
    code = "\n".join(case["code"] for suite in test["suites"] for case in suite["cases"])
    tree = ast.parse("\n".join(line[4:] for line in code.split("\n") if line[:4] in (">>> ", "... ")))
    found = [node.msg for node in ast.walk(tree) if isinstance(node, ast.Assert) and node.msg is not None]
    strings = [
        [n.value for n in ast.walk(m) if isinstance(n, ast.Constant) and isinstance(n.value, str)] for m in found
    ]
    return [plain(max(parts, key=len)) for parts in strings]


@needs_masters
def test_the_form_for_colab_finds_its_tests_beside_it(made, tmp_path):
    folder = shutil.copytree(made / "students" / MASTERS[0].stem / "colab", tmp_path / "content")
    notebook = nbformat.read(folder / MASTERS[0].name, as_version=4)
    assert notebook.cells[0].source.split("\n")[0] == f"%pip install -q otter-grader=={version('otter-grader')}"
    setup = next(i for i, c in enumerate(notebook.cells) if c.get("id") == "unpack")
    solved = next(c for c in cells(MASTERS[0]) if c.get("id") == "q1-solution")
    imports = next(c for c in cells(MASTERS[0]) if c.get("id") == "imports")
    check = nbformat.v4.new_code_cell('grader.check("q1")')
    notebook.cells = [*notebook.cells[1 : setup + 1], imports, solved, check]
    NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    assert "All test cases passed" in notebook.cells[-1].outputs[0].data["text/plain"]


@needs_masters
def test_every_assignment_says_what_it_takes(master):
    """Goals, minutes, points that add up, and a rubric with as many points for each written part."""
    title, questions, points = "", [], []
    for cell in cells(master):
        if cell.get("id") == "title":
            title = cell.source
        if cell.source.startswith("# BEGIN QUESTION"):
            questions.append(dict(re.findall(r"^(\w+): (.+)$", cell.source, re.M)))
            points.append(0)
        elif "BEGIN TEST CONFIG" in cell.source:
            points[-1] += int(re.search(r"^points: (\d+)", cell.source, re.M)[1])
        elif questions and "manual" in questions[-1] and "| points | for |" in cell.source:
            points[-1] += sum(map(int, re.findall(r"^\| (\d+) \|", cell.source, re.M)))
    assert re.search(r"\*\*Read first\*\* chapter.* \*\*Time\*\* about \d+ minutes", title)
    assert "When you are done you can" in title
    assert points == [int(question["points"]) for question in questions]
    assert sum(points) == int(re.search(r"\*\*Points\*\* (\d+)", title)[1])
    assert any(question.get("manual") == "true" for question in questions)


@needs_masters
def test_what_the_page_saves_needs_nothing_but_its_answers():
    """Public tests of A5 in a notebook that holds the list of settings alone, as the playground makes it."""
    (master,) = (path for path in MASTERS if path.stem.startswith("a5"))
    own, tests = read(master)
    (answers,) = (code for code in own if "answers = [" in code)
    settings = re.search(r"answers = \[.*?^\]", answers, re.S | re.M)[0]
    public = [code for question in tests.values() for points, code in question if points == 0]
    assert len(public) == 4
    for code in public:
        exec(settings + "\n" + code, {})
        with pytest.raises(AssertionError):
            exec("answers = [dict(network='x', gate='all', right=0, low=1, high=0)]\n" + code, {})


def test_a_master_that_fails_its_own_test_is_refused(tmp_path):
    folder = tmp_path / "masters"
    folder.mkdir()
    write_toy(folder / "toy.ipynb", solution="return x + 3")
    with pytest.raises(RuntimeError, match="toy.ipynb: otter assign failed"):
        make_assignments.make(folder / "toy.ipynb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_masters_is_named(tmp_path):
    command = [sys.executable, ROOT / "tools" / "make_assignments.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"{tmp_path}: expected a folder with master notebooks" in done.stderr


def test_every_student_gets_data_of_their_own(tmp_path):
    for name, given in (("a1_toy", "VARIANT = 0\nprint(VARIANT)"), ("a2_toy", "print(1)")):
        for folder in (tmp_path / "students" / name, tmp_path / "students" / name / "colab"):
            folder.mkdir(parents=True)
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(given)])
            nbformat.write(made, folder / f"{name}.ipynb")
        (folder / "tests.zip").write_bytes(b"tests")
    (tmp_path / "students.csv").write_text("name,id\nkim@uni.edu,0042\nkim,0042\nteacher,\nben,b-7\n")
    assert make_assignments.student_ids(tmp_path / "students.csv") == ["0042", "b-7"]
    numbers = set()
    for student in ("0042", "b-7"):
        for name in ("a1_toy", "a2_toy"):
            make_assignments.make_variant(name, student, tmp_path)
        own = tmp_path / "variants" / student
        assert [path.name for path in own.iterdir()] == ["a1_toy"]
        assert (own / "a1_toy" / "colab" / "tests.zip").read_bytes() == b"tests"
        for folder in (own / "a1_toy", own / "a1_toy" / "colab"):
            (cell,) = cells(folder / "a1_toy.ipynb")
            assert cell.source == f"VARIANT = {variant(student, 'a1_toy')}\nprint(VARIANT)"
        numbers.add(variant(student, "a1_toy"))
    assert len(numbers) == 2
    assert cells(tmp_path / "students" / "a1_toy" / "a1_toy.ipynb")[0].source.startswith("VARIANT = 0\n")
    (tmp_path / "students.csv").write_text("name,id\nkim,42\nben,../b\n")
    with pytest.raises(ValueError, match=r"students.csv, line 3: expected letters, digits .* got '../b'"):
        make_assignments.student_ids(tmp_path / "students.csv")


def test_the_number_of_a_variant_is_that_of_sha256():
    """As `sha256sum` says; the same in any form of the ID's letters, another for another assignment."""
    digest = subprocess.run(["sha256sum"], input=b"a1_toy\nb-7", capture_output=True).stdout.decode()
    assert variant("b-7", "a1_toy") == 1 + int(digest[:16], 16) % 10**6
    assert variant(" B-7", "a1_toy") == variant("b-7", "a1_toy") != variant("b-7", "a2_toy")
    some = [variant(f"{student}", "a1_toy") for student in range(300)]
    assert len(set(some)) > 295 and min(some) >= 1 and max(some) <= 10**6


def test_a_submission_is_graded_by_the_data_of_whose_it_is(tmp_path):
    rules = {"a1_toy": Assignment(title="A1", weight=1.0, automatic=2.0)}
    (tmp_path / "students.csv").write_text("name,id\nkim,0042\n")
    students = read_students(tmp_path / "students.csv", Rules(assignments=rules))
    kim = Submission(("kim", "a1.ipynb"), "a1_toy", Path("1"))
    other = Submission(("lee", "a1.ipynb"), "a1_toy", Path("2"))
    damaged = Submission(("kim", "a2.ipynb"), reason="damaged")
    checked, numbers = grade.variants([kim, other, damaged], students)
    assert numbers == {Path("1"): variant("0042", "a1_toy")}
    assert [one.reason for one in checked] == ["", "nobody in students.csv hands in as this", "damaged"]
    made = sandbox.bubblewrap(kim.notebook, Path("key.zip"), sandbox.Limits(), numbers[Path("1")])
    where = made.index("DAMM_VARIANT")
    assert made[where - 1 : where + 2] == ["--setenv", "DAMM_VARIANT", str(variant("0042", "a1_toy"))]


@needs_masters
@pytest.mark.parametrize("name, found", [("a1", lambda key: key["SEEDS"][0]), ("a2", lambda key: key["FIRST"] - 21)])
def test_a_key_makes_the_data_of_a_variant(monkeypatch, name, found):
    (path,) = (ROOT / "book" / "assignments" / "keys").glob(f"{name}_*.py")
    assert found(runpy.run_path(path)) == 0
    monkeypatch.setenv("DAMM_VARIANT", "1234")
    assert found(runpy.run_path(path)) == 1234


@needs_masters
def test_solutions_never_reach_the_site():
    """The built book has no page of an assignment, and no line of a solution anywhere."""
    site = ROOT / "_build" / "html"
    if not (site / "index.html").is_file():
        pytest.skip("no built book; run `make book` first")
    names = {path.stem for path in MASTERS}
    assert not [path for path in site.rglob("*") if path.stem in names]
    private = {plain(line) for path in MASTERS for line in private_lines(path) if len(line) > 40}
    for path in site.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".md", ".txt", ".js", ".inv") and "_static" not in path.parts:
            text = plain(path.read_text(errors="ignore"))
            assert not [line for line in private if line in text], path


def write_toy(path, solution):
    """A master with one question of two points, one of them hidden: add two."""
    code, raw = nbformat.v4.new_code_cell, nbformat.v4.new_raw_cell
    config = '""" # BEGIN TEST CONFIG\n{}points: 1\n""" # END TEST CONFIG\nassert add_two({}) == {}, "add two"'
    notebook = nbformat.v4.new_notebook(
        cells=[
            raw(f"# ASSIGNMENT CONFIG\nname: {path.stem}"),
            raw("# BEGIN QUESTION\nname: q1\npoints: 2"),
            nbformat.v4.new_markdown_cell("**Question 1.** Add two."),
            raw("# BEGIN SOLUTION"),
            code(f"def add_two(x):\n    # BEGIN SOLUTION\n    {solution}\n    # END SOLUTION"),
            raw("# END SOLUTION"),
            raw("# BEGIN TESTS"),
            code(config.format("", 1, 3)),
            code(config.format("hidden: true\n", 5, 7)),
            raw("# END TESTS"),
            raw("# END QUESTION"),
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
