"""Run one submission with nothing of the machine in reach: by bubblewrap, or by Docker where that is missing.

Bubblewrap needs Linux and takes this Python environment as it is, read-only. Docker runs on any system and needs an
image, which holds the same packages; `python tools/sandbox.py` builds it, once for each version of the book.
"""

import contextlib
import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
MIB, GIB = 2**20, 2**30
PRINTED = 64 * MIB  # bytes that a submission may send out of the sandbox
ETC = ("alternatives", "hosts", "ld.so.cache", "nsswitch.conf", "passwd")
# Inside the sandbox. --nproc is for what starts thousands of processes between two looks.
GRADE = "ulimit -c 0; prlimit --pid $$ --nproc=4096 >&2; exec python -P /court/court.py"
COURT = ("court.py", "judge.py", "measures.py")  # of this folder: who runs and judges a submission there
IMAGE = "damm-lite-grading"
DOCKERFILE = """\
FROM python:3.11-slim
WORKDIR /book
COPY pyproject.toml README.md LICENSE requirements.txt constraints.txt ./
COPY damm_lite damm_lite
COPY data data
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \\
    -c constraints.txt -r requirements.txt otter-grader
"""
ADVICE = """no sandbox works here, and nothing is graded without one:
  bubblewrap: {bubblewrap}
  docker: {docker}
On Linux install bubblewrap, e.g. apt-get install bubblewrap.
On macOS and Windows install Docker, start it, and run once: python tools/sandbox.py"""


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 900
    memory: float = 4  # GiB, of all its processes together
    disk: float = 1  # GiB
    processes: int = 256


Command = Callable[[Path, Path, Limits, int], list[str]]  # notebook, autograder, limits, the student's variant


def isolated(limits: Limits) -> list[str]:
    """The start of a bubblewrap command: no network, no user, and of the machine what Python needs, read-only."""
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
    return command


def variables(programs: str, package: str, variant: int) -> dict[str, str]:
    """The environment of a submission: where programs and the book's package are, one thread, and whose data."""
    every = dict(PATH=programs, HOME="/tmp", PYTHONPATH=f"{package}:/court", OMP_NUM_THREADS="1")
    return every | dict(DAMM_VARIANT=str(variant))


def mounted(notebook: Path, autograder: Path) -> list[tuple[Path, str]]:
    """What a submission finds in its sandbox, and where."""
    court = [(Path(__file__).with_name(name), f"/court/{name}") for name in COURT]
    return [(notebook, "/submission.ipynb"), (autograder, "/autograder.zip"), *court]


def without_key(autograder: Path, folder: Path) -> tuple[Path, bytes]:
    """(a copy of the autograder without its key, in `folder`; the key)."""
    copy, key = folder / autograder.name, b""
    with zipfile.ZipFile(autograder) as whole, zipfile.ZipFile(copy, "w") as rest:
        for name in whole.namelist():
            if name == "files/key.py":
                key = whole.read(name)
            else:
                rest.writestr(name, whole.read(name))
    return copy, key


def bubblewrap(notebook: Path, autograder: Path, limits: Limits, variant: int = 0) -> list[str]:
    """The command that grades a notebook under bubblewrap."""
    command = isolated(limits)
    for source, target in mounted(notebook, autograder):
        command += ["--ro-bind", str(source), target]
    for name, value in variables(f"{Path(sys.executable).parent}:/usr/bin:/bin", str(ROOT), variant).items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", "/tmp", "sh", "-c", GRADE]


def docker(notebook: Path, autograder: Path, limits: Limits, variant: int = 0) -> list[str]:
    """The command that does the same in a container. It ends itself in time: who stops the command stops only the
    client."""
    memory = f"{int(limits.memory * GIB)}b"
    user = f"{os.getuid()}:{os.getgid()}" if hasattr(os, "getuid") else "65534:65534"  # who may read the files
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--read-only", "--user", user]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", str(limits.processes)]
    command += ["--memory", memory, "--memory-swap", memory, "--cpus", "1"]
    command += ["--tmpfs", f"/tmp:rw,exec,mode=1777,size={int(limits.disk * GIB)}", "--workdir", "/tmp"]
    for source, target in mounted(notebook, autograder):
        command += ["--mount", f"type=bind,source={source},target={target},readonly"]
    for name, value in variables("/usr/local/bin:/usr/bin:/bin", "/book", variant).items():
        command += ["--env", f"{name}={value}"]
    return [*command, IMAGE, "timeout", "-s", "KILL", f"{limits.seconds:g}", "sh", "-c", GRADE]


def working() -> Command:
    """The first of `bubblewrap` and `docker` that works here.

    Raises RuntimeError that says why neither does, and what to do.
    """
    probes = {bubblewrap: [*isolated(Limits()), "true"], docker: ["docker", "image", "inspect", IMAGE]}
    reasons = {}
    for make, probe in probes.items():
        if not shutil.which(probe[0]):
            reasons[make.__name__] = "not installed"
            continue
        done = subprocess.run(probe, capture_output=True, text=True, errors="replace")
        if not done.returncode:
            return make
        reasons[make.__name__] = last_line(done.stderr)
    raise RuntimeError(ADVICE.format(**reasons))


def last_line(text: str) -> str:
    """What a program said last, short enough for a table."""
    return (text.strip().split("\n")[-1].strip() or "it did not say why")[:200]


def memory_of(process: psutil.Process) -> int:
    """Bytes that a process holds; what it shares with others is counted in parts, where the system tells."""
    try:
        return process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):
        return process.memory_info().rss


def used(process: psutil.Process) -> tuple[float, int]:
    """(GiB, number) of a process and all its descendants."""
    held, count = 0, 0
    with contextlib.suppress(psutil.Error):  # the process may end between two looks
        for one in (process, *process.children(recursive=True)):
            count += 1
            with contextlib.suppress(psutil.Error):
                held += memory_of(one)
    return held / GIB, count


def run(command: list[str], limits: Limits, told: bytes = b"") -> tuple[bytes, str]:
    """Run a command, which is told something, within limits; (its standard output, "") or (b"", why there is none)."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = psutil.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors, start_new_session=True)
        with contextlib.suppress(BrokenPipeError), process.stdin:  # a pipe, which nobody can read a second time
            process.stdin.write(told)
        reason = ""
        while process.poll() is None and not reason:
            memory, processes = used(process)
            printed = max(os.fstat(file.fileno()).st_size for file in (output, errors))
            if time.monotonic() - start > limits.seconds:
                reason = f"not finished after {limits.seconds:g} seconds"
            elif memory > limits.memory:
                reason = f"took more than {limits.memory:g} GiB of memory"
            elif processes > limits.processes:
                reason = f"started more than {limits.processes} processes"
            elif printed > PRINTED:
                reason = f"printed more than {PRINTED // MIB} MiB"
            else:
                time.sleep(0.1)
        if reason:
            process.kill()  # and with bwrap its whole process namespace
            process.wait()
            return b"", reason
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            return b"", f"grading stopped: {last_line(errors.read().decode(errors='replace'))}"
        return output.read(), ""


def grade(make: Command, notebook: Path, autograder: Path, limits: Limits, variant: int = 0) -> tuple[bytes, str]:
    """Grade a notebook in the sandbox whose commands `make` makes; what `run` returns."""
    with tempfile.TemporaryDirectory() as folder:
        tests, key = without_key(autograder, Path(folder).resolve())
        return run(make(notebook, tests, limits, variant), limits, key)


def build() -> list[str]:
    """The command that builds the image, from `DOCKERFILE` on its standard input."""
    return ["docker", "build", "--tag", IMAGE, "--file", "-", str(ROOT)]


if __name__ == "__main__":
    sys.exit(subprocess.run(build(), input=DOCKERFILE, text=True).returncode)
