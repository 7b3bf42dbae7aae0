"""The sandbox: the one that works here is taken, it reaches nothing, and its limits hold."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import sandbox
from sandbox import Limits

ROOT = Path(__file__).parents[1]


def programs_in(folder, monkeypatch):
    """A function that puts a program with this shell script on the path, which then has few others."""
    folder.mkdir()
    for name in ("sh", "true"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


def test_bubblewrap_is_taken_where_it_works_and_docker_where_not(tmp_path, monkeypatch):
    programs = programs_in(tmp_path / "programs", monkeypatch)
    programs("bwrap", "exit 0")
    programs("docker", "exit 0")
    assert sandbox.working() is sandbox.bubblewrap
    programs("bwrap", "echo bwrap: setting up uid map: Permission denied >&2; exit 1")
    assert sandbox.working() is sandbox.docker
    programs("docker", "echo Is the docker daemon running? >&2; exit 1")
    with pytest.raises(RuntimeError) as caught:
        sandbox.working()
    for said in ("uid map: Permission denied", "Is the docker daemon running?", "apt-get install bubblewrap"):
        assert said in str(caught.value)
    assert "On macOS and Windows install Docker" in str(caught.value)


def test_docker_gets_the_same_limits_and_reaches_nothing_else():
    made = sandbox.docker(Path("/tmp/x/1.ipynb"), Path("/keys/a1/autograder.zip"), Limits(60, 2, 0.5, 99))
    text = " ".join(made)
    for part in (
        f"--network none --read-only --user {os.getuid()}:{os.getgid()}",
        "--cap-drop ALL --security-opt no-new-privileges",
        "--pids-limit 99 --memory 2147483648b --memory-swap 2147483648b",
        "--tmpfs /tmp:rw,exec,mode=1777,size=536870912",
        "--mount type=bind,source=/tmp/x/1.ipynb,target=/submission.ipynb,readonly",
        "--mount type=bind,source=/keys/a1/autograder.zip,target=/autograder.zip,readonly",
        "damm-lite-grading timeout -s KILL 60 sh -c",
    ):
        assert part in text, part
    assert made[:3] == ["docker", "run", "--rm"] and made[-1] == sandbox.GRADE
    assert all(f"{ROOT}/tools/{name},target=/court/{name},readonly" in text for name in sandbox.COURT)
    assert text.count("--mount") == 5 and "--volume" not in text and "privileged " not in text.replace("new-", "")
    copied = [line.split()[1:-1] for line in sandbox.DOCKERFILE.splitlines() if line.startswith("COPY")]
    assert all((ROOT / name).exists() and name != "book" for names in copied for name in names)


def test_limits_hold_for_any_command(monkeypatch):
    monkeypatch.setattr(sandbox, "PRINTED", 10_000)
    assert sandbox.run(["sh", "-c", "echo some; echo no >&2"], Limits()) == (b"some\n", "")
    assert sandbox.run(["sh", "-c", "echo why >&2; exit 3"], Limits()) == (b"", "grading stopped: why")
    assert sandbox.run(["sh", "-c", "exit 3"], Limits())[1] == "grading stopped: it did not say why"
    assert sandbox.run(["sleep", "30"], Limits(seconds=0.2))[1] == "not finished after 0.2 seconds"
    assert sandbox.run(["yes"], Limits(seconds=20))[1] == "printed more than 0 MiB"
    many = "for n in 1 2 3 4 5; do sleep 3 & done; wait"
    assert sandbox.run(["sh", "-c", many], Limits(processes=3))[1] == "started more than 3 processes"
    hungry = [sys.executable, "-c", "import time; hoard = bytearray(2**28); time.sleep(30)"]
    assert sandbox.run(hungry, Limits(memory=0.1))[1] == "took more than 0.1 GiB of memory"
