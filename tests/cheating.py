"""Runs an assignment's tests on answers other than its own: python cheating.py MASTER, in a folder with its autograder.

The master's cells are run once, without tests. Then each line on standard input, {"question": ..., "code": ...}, gets
one on standard output, {"points": ..., "said": [...]}: the points of the question where that code stands below the
master's answers, and the first words of each test that failed. Every line has a process of its own, so that what one
cheat patches is whole for the next. So has every judge: a fork of one that has seen no cheat, which is ready
far sooner than a new Python.
"""

import json
import os
import re
import signal
import socket
import sys
import traceback
from pathlib import Path

import nbformat

# In the place of Python: a program that joins its caller to the judge.
RELAY = """#!{python} -IS
import os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
with link.makefile("rw") as judge:
    print(os.getppid(), sys.argv[-1], file=judge, flush=True)
    for line in judge:
        print(line, end="", flush=True)
        if not line.startswith('{{"verdict"'):
            print(sys.stdin.readline(), end="", file=judge, flush=True)
"""
CONFIG = re.compile(r'^""" # BEGIN TEST CONFIG\n(.*?)""" +# END TEST CONFIG\n', re.S)


def read(master):
    """(code of all cells before the questions in words, without tests, {question: [(points, code of a test)]})."""
    own, tests, question, inside = [], {}, None, False
    for cell in nbformat.read(master, as_version=4).cells:
        if cell.cell_type == "raw" and "\nmanual: true" in cell.source:
            break
        if cell.cell_type == "raw":
            inside = cell.source.startswith("# BEGIN TESTS") or inside and not cell.source.startswith("# END TESTS")
            if named := re.match(r"# BEGIN QUESTION\nname: (\w+)", cell.source):
                question = named[1]
        elif cell.cell_type == "code" and inside:
            config, code = CONFIG.match(cell.source)[1], CONFIG.sub("", cell.source)
            tests.setdefault(question, []).append((int(re.search(r"^points: (\d+)", config, re.M)[1]), code))
        elif cell.cell_type == "code":
            own.append(cell.source)
    return own, tests


def graded(namespace, tests, code):
    """The points of a question, and what the tests said that failed."""
    exec(code, namespace)
    points, said = 0, []
    for worth, test in tests:
        try:
            exec(test, dict(namespace))  # as otter does, on a copy
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}"[:300])
        else:
            points += worth
    return {"points": points, "said": said}


def in_own_process(work):
    """What `work()` returns in a fork of this process, by JSON."""
    read_end, write_end = os.pipe()
    if not (child := os.fork()):
        try:
            done = work()
        except BaseException:
            done = {"points": None, "said": [traceback.format_exc()]}
        os.write(write_end, json.dumps(done).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        done = json.loads(answer.read())
    os.waitpid(child, 0)
    return done


def judges(address):
    """Start the process of whose forks each judges one question; its number."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    if process := os.fork():
        return process
    sys.path.append(os.getcwd())
    import key

    import judge

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        link, _ = listening.accept()
        if not os.fork():
            with link.makefile("rw") as notebook:
                process, question = notebook.readline().split()
                judge.heard(getattr(key, question), notebook, notebook, int(process), Path("kept.json").absolute())
            os._exit(0)
        link.close()


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what cells print is no answer
    address, relay = os.path.abspath("judges"), Path("relay").absolute()
    relay.write_text(RELAY.format(python=sys.executable, address=address))
    relay.chmod(0o700)
    process, sys.executable = judges(address), str(relay)
    own, tests = read(sys.argv[1])
    namespace = {"__name__": "__main__"}
    for code in own:
        exec(code, namespace)
    for line in sys.stdin:
        asked = json.loads(line)
        done = in_own_process(lambda asked=asked: graded(namespace, tests[asked["question"]], asked["code"]))
        print(json.dumps(done), file=answers, flush=True)
    os.kill(process, signal.SIGTERM)


if __name__ == "__main__":
    main()
