"""What hidden tests judge by: a process of its own, in which no student's code runs.

A hidden test calls `judge("q4", ddim_step=ddim_step)`. In the sandbox of `make grade` that asks the court, see
court.py; elsewhere, as where `make assignments` tries its masters, it starts a second Python. There runs the function
`q4` of key.py, the assignment's key: it makes the inputs, asks for answers, computes what is right by itself and
compares. The notebook gets inputs and gives answers, as plain numbers; so whatever was patched, replaced or invented in
the notebook changes nothing but its own answers. `make assignments` puts both files into the autograder.
"""

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import torch
from torch import Tensor

RIGHT = "right"
COURT = Path("/tmp/.court")  # in the sandbox, a socket; see court.py


def judge(question: str, **answers: Callable) -> None:
    """Have the key's function `question` ask these functions. Raises AssertionError with what was wrong."""
    with asking(question) as (asked, told):
        said = {}
        for line in asked:
            said = json.loads(line)
            if "verdict" in said:
                break
            print(json.dumps(answer(answers, said)), file=told, flush=True)  # noqa: T201 (a pipe)
    assert said.get("verdict") == RIGHT, said.get("verdict", "the judge ended without a verdict")


@contextlib.contextmanager
def asking(question: str) -> Iterator[tuple[TextIO, TextIO]]:
    """(what the judge asks, where to answer): over the court's socket where one sits, else of a second Python."""
    if COURT.is_socket():
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(COURT))
            with link.makefile("rw") as both:
                print(question, file=both, flush=True)  # noqa: T201 (a socket)
                yield both, both
        return
    command = [sys.executable, "-P", "judge.py", question]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=first_environment()
    ) as owner:
        yield owner.stdout, owner.stdin


def answer(answers: dict[str, Callable], asked: dict) -> dict:
    """What the notebook sends back to one question of the judge's: the result, or what was raised."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a test that prints fails
            return {"result": packed(answers[asked["name"]](*map(unpacked, asked["arguments"])))}
    except Exception as error:  # a student's function may raise anything
        return {"raised": f"{type(error).__name__}: {error}"[:500]}


def put(function: Callable, **values: Any) -> Callable:
    """The function with other values of these global variables of its notebook, while it runs."""

    def run(*arguments):
        kept = {name: function.__globals__.get(name) for name in values}
        function.__globals__.update(values)
        try:
            return function(*arguments)
        finally:
            function.__globals__.update(kept)

    return run


def first_environment() -> dict[str, str]:
    """The variables with which this process began, where the system tells; else those that it has now."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    return dict(entry.decode(errors="surrogateescape").split("=", 1) for entry in entries if b"=" in entry)


def packed(value: Any) -> Any:
    """A value as JSON can hold it: numbers, texts, lists, dicts, arrays, tables; of anything else, its kind."""
    if isinstance(value, Tensor):
        return {"tensor": packed(value.detach().cpu().numpy())}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        data = base64.b64encode(np.ascontiguousarray(value)).decode()
        return {"array": data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return packed(value.item())
    if isinstance(value, pd.Series):
        return packed(value.to_numpy())
    if isinstance(value, pd.DataFrame):
        columns = {str(name): value[name].tolist() for name in value}
        return {"frame": packed(columns), "index": packed(value.index.tolist())}
    if isinstance(value, dict):
        return {"dict": [[packed(key), packed(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [packed(each) for each in value]
    for kind in (bool, int, float, str):  # a subclass may call itself what it likes
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else {"kind": type(value).__name__}


def unpacked(value: Any) -> Any:
    """The inverse of `packed`; tuples come back as lists."""
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return torch.from_numpy(unpacked(value["tensor"]))
    if "array" in value:
        flat = np.frombuffer(base64.b64decode(value["array"]), value["dtype"])
        return flat.reshape(value["shape"]).copy()
    if "frame" in value:
        return pd.DataFrame(unpacked(value["frame"]), index=unpacked(value["index"]))
    if "dict" in value:
        return {unpacked(key): unpacked(each) for key, each in value["dict"]}
    return value["kind"]


# What follows is for keys.


class Remote:
    """The student's side, as a key sees it: `call(name, *arguments)`.

    `notebook` is the number of its process, `kept` a dict that later questions of the same notebook find again.
    """

    def __init__(self, questions, answers, notebook: int, kept: dict):
        self.questions, self.answers, self.notebook, self.kept = questions, answers, notebook, kept

    def __call__(self, name: str, *arguments: Any) -> Any:
        """What a function of the notebook returns. Raises AssertionError where it raises."""
        asked = {"name": name, "arguments": [packed(each) for each in arguments]}
        print(json.dumps(asked), file=self.questions, flush=True)  # noqa: T201 (a pipe)
        said = json.loads(self.answers.readline())
        assert "result" in said, f"{name} raised {said.get('raised')}"
        return unpacked(said["result"])


def near(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether an answer has the shape of what was expected and is nowhere further from it than `tolerance`."""
    if isinstance(found, bool | str | dict) or found is None:
        return False
    try:
        found, expected = (np.asarray(each, dtype=float) for each in (found, expected))
    except (TypeError, ValueError):  # a list of whatever
        return False
    return found.shape == expected.shape and bool((np.abs(found - expected) <= tolerance).all())


def verdict(question: Callable, call: Remote) -> str:
    """What a key's question makes of the answers: `RIGHT`, or what is wrong."""
    try:
        question(call)
    except AssertionError as error:
        return str(error) or "wrong"
    return RIGHT


def heard(question: Callable, questions: TextIO, answers: TextIO, notebook: int, file: Path) -> None:
    """Judge and say the verdict; what the key keeps lies in `file`."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    said = verdict(question, Remote(questions, answers, notebook, kept))
    file.write_text(json.dumps(kept))
    print(json.dumps({"verdict": said}), file=questions, flush=True)  # noqa: T201 (a pipe)


def main() -> None:
    """Judge the question that is the only argument, by key.py beside this file."""
    questions, sys.stdout = sys.stdout, sys.stderr  # what a key prints is no question
    folder = Path(__file__).resolve().parent
    sys.path.append(str(folder))
    import key

    heard(getattr(key, sys.argv[1]), questions, sys.stdin, os.getppid(), folder / "kept.json")


if __name__ == "__main__":
    main()
