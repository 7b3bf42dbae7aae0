"""Grade a notebook beside a judge that it cannot reach: python court.py, in the sandbox; the key on standard input.

A notebook may patch whatever runs in its own process, the reading of verdicts too, and may leave processes behind that
write what they like. So this process alone holds the key, hears the hidden tests and notes its own verdicts; otter and
the notebook run below it. Nobody may look into it, and its standard output, an archive, is the only thing that leaves
the sandbox. At the end no question has more points than its verdicts are worth.
"""

import ast
import ctypes
import importlib.abc
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import judge

AUTOGRADER, NOTEBOOK, OUT = Path("/autograder.zip"), Path("/submission.ipynb"), Path("/tmp/out")
LABEL = re.compile(r"judge['\"\]]*\(\s*['\"](\w+)")  # what a hidden test asks to be judged
PR_SET_DUMPABLE = 4
Worth = dict[str, list[tuple[float, set[str]]]]  # of each question: points and labels of its tests


def shut() -> None:
    """Keep other processes of this user out of this one's memory and files, and of its forks'."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process could be looked into")


class Handed(importlib.abc.InspectLoader):
    """Imports a module from its text, which lies in no file."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 (the loader's signature)
        return self.source


def imported(source: str) -> types.ModuleType:
    """The key of an assignment, as a module."""
    loader = Handed(source)
    key = importlib.util.module_from_spec(importlib.util.spec_from_loader("key", loader))
    sys.modules["key"] = key
    loader.exec_module(key)
    return key


def worth_of(autograder: Path) -> Worth:
    """What the tests of each question are worth, by the files that otter has made of them."""
    worth = {}
    with zipfile.ZipFile(autograder) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"tests/\w+\.py", name):
                assigned = ast.parse(archive.read(name)).body[-1].value
                test = ast.literal_eval(assigned)
                cases = [case for suite in test["suites"] for case in suite["cases"]]
                worth[test["name"]] = [(case["points"], set(LABEL.findall(case["code"]))) for case in cases]
    return worth


def most(tests: list[tuple[float, set[str]]], verdicts: dict[str, list[str]]) -> float:
    """The points of these tests that ask for no verdict, or got right ones alone."""
    right = {label for label, said in verdicts.items() if set(said) == {judge.RIGHT}}
    return sum(points for points, labels in tests if labels <= right)


def capped(results: dict, worth: Worth, verdicts: dict[str, list[str]]) -> dict:
    """The results that otter wrote, without points for what was not judged to be right."""
    for test in results["tests"]:
        if "max_score" in test:
            test["score"] = min(test["score"], most(worth[test["name"]], verdicts))
    return results


def hear(link: socket.socket, key: types.ModuleType, verdicts: dict[str, list[str]], kept: dict) -> dict:
    """Judge the question that is asked over this link, in a fork, and note the verdict; what the key keeps now."""
    read_end, write_end = os.pipe()
    if not (child := os.fork()):
        try:
            link.settimeout(None)
            asking = int.from_bytes(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
            with link.makefile("rw") as notebook:
                question = notebook.readline().strip()
                call = judge.Remote(notebook, notebook, asking, kept)
                said = judge.verdict(getattr(key, question), call)
                os.write(write_end, json.dumps([question, said, kept]).encode())
                print(json.dumps({"verdict": said}), file=notebook, flush=True)  # noqa: T201 (a socket)
        finally:
            os._exit(0)
    os.close(write_end)
    link.close()
    with os.fdopen(read_end) as heard:
        told = heard.read()
    os.waitpid(child, 0)
    if told:  # else it was no question, or nobody waited for the verdict
        question, said, kept = json.loads(told)
        verdicts.setdefault(question, []).append(said)
    return kept


def archived(**files: str) -> bytes:
    """A tar archive of these files, named by words whose underscores are dots."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name.replace('_', '.')}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def main() -> None:
    shut()
    source, leaves = sys.stdin.read(), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    worth, key = worth_of(AUTOGRADER), imported(source)
    OUT.mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(judge.COURT))
    listening.listen()
    listening.settimeout(0.1)
    command = ["otter", "run", "-a", str(AUTOGRADER), "-o", str(OUT), "--no-logo", str(NOTEBOOK)]
    otter, verdicts, kept = subprocess.Popen(command), {}, {}
    while otter.poll() is None:
        try:
            link, _ = listening.accept()
        except TimeoutError:
            continue
        kept = hear(link, key, verdicts, kept)
    if otter.returncode:
        sys.exit(otter.returncode)
    results = capped(json.loads((OUT / "results.json").read_text()), worth, verdicts)
    score = {"score": f"{kept['score']:.4f}"} if "score" in kept else {}
    leaves.write(archived(results_json=json.dumps(results), **score))
    leaves.flush()


if __name__ == "__main__":
    main()
