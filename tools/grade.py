"""Grade a folder of submitted notebooks, each in a sandbox: python tools/grade.py SUBMISSIONS [--out FOLDER]

A submission is any .ipynb below SUBMISSIONS; which assignment it belongs to stands in its metadata, and
what grades it is what `make assignments` left in _build/assignments/instructor. It runs under bubblewrap
with no network, no file of the machine but the Python environment (read-only), a limit of time and one
of memory. Written, below FOLDER (default: _build/grades): grades.csv, one row a submission, and reports/,
a page for each student that shows no hidden test.
"""

import argparse
import io
import json
import os
import resource
import shutil
import signal
import site
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
ETC = ("alternatives", "hosts", "ld.so.cache", "nsswitch.conf", "passwd")
# Inside the sandbox. The archive on standard output is the only thing that leaves it.
GRADE = (
    "mkdir /tmp/out && otter run -a /autograder.zip -o /tmp/out --no-logo /submission.ipynb >&2 && tar -c -C /tmp/out ."
)


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 300
    memory: float = 4  # GiB, of all its processes together
    disk: float = 1  # GiB


@dataclass
class Grade:
    """What one submission got, and why it got nothing where it did."""

    student: str
    assignment: str = ""
    questions: list = field(default_factory=list)  # dicts: name, score, max_score
    public: str = ""  # what the public tests said
    score: float | None = None  # of a competition
    reason: str = ""

    def row(self):
        """The submission's line of the table, with the points of each question."""
        points = sum(question["score"] for question in self.questions)
        possible = sum(question["max_score"] for question in self.questions) or None  # unknown where nothing was graded
        start = dict(student=self.student, assignment=self.assignment, points=points, possible=possible)
        by_question = {question["name"]: question["score"] for question in self.questions}
        return start | dict(score=self.score, reason=self.reason) | by_question


def sandbox(submission, autograder, limits):
    """The command that grades one submission with nothing of the machine in reach but what it needs."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(int(limits.disk * GIB)), "--tmpfs", "/tmp"]
    for folder in map(Path, ("/bin", "/sbin", "/lib", "/lib64")):
        if folder.is_symlink():
            command += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.exists():
            command += ["--ro-bind", str(folder), str(folder)]
    needed = {"/usr", sys.prefix, sys.base_prefix, *(f"/etc/{name}" for name in ETC)}
    needed |= {path for path in sys.path if path.endswith("site-packages")} | set(site.getsitepackages())
    needed |= {str(ROOT / "damm_lite"), str(ROOT / "data")}  # not the masters, which hold the solutions
    for path in sorted(needed):
        command += ["--ro-bind-try", path, path]
    command += ["--ro-bind", str(submission), "/submission.ipynb", "--ro-bind", str(autograder), "/autograder.zip"]
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = dict(PATH=programs, HOME="/tmp", PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", SCORE="/tmp/out/score")
    for name, value in variables.items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", "/tmp", "sh", "-c", GRADE]


def memory_of(process):
    """GiB that a process and all its descendants hold."""
    held = 0
    for one in (process, *process.children(recursive=True)):
        try:
            held += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return held / GIB


def run(command, limits):
    """Run a command within limits; (its standard output, "") or (b"", why there is none)."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limits.disk * GIB),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = psutil.Popen(command, stdout=output, stderr=errors, preexec_fn=limit, start_new_session=True)
        reason = ""
        while process.poll() is None and not reason:
            if time.monotonic() - start > limits.seconds:
                reason = f"not finished after {limits.seconds:g} seconds"
            elif memory_of(process) > limits.memory:
                reason = f"took more than {limits.memory:g} GiB of memory"
            else:
                time.sleep(0.1)
        if reason:
            os.killpg(process.pid, signal.SIGKILL)  # and with bwrap its whole process namespace
            process.wait()
            return b"", reason
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = errors.read().decode(errors="replace").strip().split("\n")
            return b"", f"grading stopped: {lines[-1][:200]}"
        return output.read(), ""


def grade(submission, student, autograders, limits):
    """Grade one notebook; whatever it does, a `Grade` comes back."""
    try:
        metadata = nbformat.read(submission, as_version=4).metadata
        assignment = metadata["otter"]["assignment_name"]
    except Exception as error:  # a student's file may be anything
        return Grade(student, reason=f"not a notebook of an assignment: {type(error).__name__}")
    autograder = autograders / Path(assignment).name / "autograder.zip"
    if not autograder.is_file():
        return Grade(student, assignment, reason=f"there is no assignment {assignment!r} in {autograders}")
    output, reason = run(sandbox(submission, autograder, limits), limits)
    if reason:
        return Grade(student, assignment, reason=reason)
    with tarfile.open(fileobj=io.BytesIO(output)) as archive:
        tests = json.load(archive.extractfile("./results.json"))["tests"]
        score = float(archive.extractfile("./score").read()) if "./score" in archive.getnames() else None
    questions = [test for test in tests if "max_score" in test]
    public = "\n".join(test["output"] for test in tests if test["visibility"] == "visible")
    reason = "" if questions else tests[-1]["output"].strip().split("\n")[-1][:200]
    return Grade(student, assignment, questions, public, score, reason)


def report(grade):
    """The page for a student, in Markdown: the points of each question, and what the public tests said."""
    lines = [f"# {grade.assignment}: {grade.student}", ""]
    if grade.reason:
        lines += [f"**0 points**: {grade.reason}.", ""]
    lines += ["| question | points | of |", "|---|---|---|"]
    lines += [f"| {q['name']} | {q['score']:g} | {q['max_score']:g} |" for q in grade.questions]
    lines += ["", "The public tests:", "", "```", grade.public.strip(), "```"]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "grades")
    parser.add_argument("--autograders", type=Path, default=ROOT / "_build" / "assignments" / "instructor")
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="of one submission")
    parser.add_argument("--memory", type=float, default=Limits.memory, help="GiB, of one submission")
    arguments = parser.parse_args()
    submissions = sorted(arguments.submissions.rglob("*.ipynb"))
    if not submissions:
        parser.error(f"{arguments.submissions}: expected a folder with notebooks, found none")
    if not shutil.which("bwrap"):
        parser.error("bubblewrap is missing, and nothing is graded without it: apt-get install bubblewrap")
    limits = Limits(arguments.seconds, arguments.memory)
    reports = arguments.out / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    grades = []
    for path in tqdm(submissions, desc="grading"):
        student = "-".join(path.relative_to(arguments.submissions).with_suffix("").parts)
        grades.append(grade(path.resolve(), student, arguments.autograders, limits))
        (reports / f"{student}.md").write_text(report(grades[-1]))
        pd.DataFrame([one.row() for one in grades]).to_csv(arguments.out / "grades.csv", index=False)
    print(f"{arguments.out / 'grades.csv'}, and a page for each student in {reports}")


if __name__ == "__main__":
    main()
