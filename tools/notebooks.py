"""What stands in a notebook that was handed in: which assignment it belongs to, and a copy of it that can be graded."""

import json
import re
from pathlib import Path, PurePosixPath

import nbformat

MIB = 2**20
NOTEBOOK = 32 * MIB  # bytes of one notebook
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
MASTER = "# ASSIGNMENT CONFIG"  # starts the first cell of a master


def prepared(path: Path, name: str, assignments: list[str]) -> tuple[str, dict, str]:
    """(assignment, notebook, "") of a file that was handed in under `name`, or (assignment or "", {}, why not).

    The notebook gets the kernel that there is, and no metadata but the name of its assignment: that in its own
    metadata, or else the one of `assignments` that its name fits.
    """
    by_name = assignment_of(name, assignments)
    try:
        notebook = read(path)
    except Exception as error:  # a student's file may be anything
        return by_name, {}, f"not a notebook of an assignment: {said(error)}"
    if notebook.cells and str(notebook.cells[0].get("source", "")).startswith(MASTER):
        return "", {}, "a master, which holds solutions: expected a student's notebook"
    otter = notebook.metadata.get("otter")
    told = otter.get("assignment_name") if isinstance(otter, dict) else None
    assignment = told if isinstance(told, str) and told else by_name
    if assignment not in assignments:
        unknown = f"there is no assignment {told!r}" if assignment else "neither metadata nor name says which"
        expected = f"{unknown}; expected one of {', '.join(assignments)}"
        return "", {}, f"not a notebook of an assignment: {in_print(expected)}"
    notebook.metadata = dict(kernelspec=KERNEL, otter=dict(assignment_name=assignment))
    return assignment, notebook, ""


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook of any version and UTF, as one of version 4. Raises whatever reading it may raise."""
    size = path.stat().st_size
    if not 0 < size <= NOTEBOOK:
        raise ValueError(f"expected at most {NOTEBOOK // MIB} MiB, got {size // MIB}" if size else "an empty file")
    made = json.loads(path.read_bytes())
    if not isinstance(made, dict):
        raise ValueError(f"expected a notebook, got a {type(made).__name__}")
    if not isinstance(made.get("metadata"), dict):
        made["metadata"] = {}
    notebook = nbformat.convert(nbformat.reader.reads(json.dumps(made)), 4)
    if not isinstance(notebook.get("cells"), list) or not all(isinstance(cell, dict) for cell in notebook.cells):
        raise ValueError("expected a list of cells")
    return notebook


def assignment_of(name: str, assignments: list[str]) -> str:
    """The one assignment that a file's name fits, else "": by the whole name, or its first word, as in "a2 (1)"."""

    def words(text):
        return re.split(r"[\W_]+", text.lower())

    found = words(PurePosixPath(name).stem)
    whole = [one for one in assignments if f" {' '.join(words(one))} " in f" {' '.join(found)} "]
    fits = sorted(whole, key=len)[-1:] or [one for one in assignments if words(one)[0] in found]
    return fits[0] if len(fits) == 1 else ""


def in_print(text: str) -> str:
    """A text without what would break a line or a table: controls and halves of letters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def said(error: Exception) -> str:
    """An error in one short line."""
    lines = str(error).strip().split("\n")
    return f"{type(error).__name__}: {in_print(lines[0][:200])}".removesuffix(": ")
