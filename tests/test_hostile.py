"""Chapters run wherever a reader may put them, and leave nothing behind."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.name for path in (ROOT / "book").glob("[0-9]*.ipynb"))
# No display, no home, nothing that this user has set; ASCII where nothing else is said.
PLACES = {
    "a folder with a space and an umlaut": ("/tmp/ein Büchlein", {"LC_ALL": "C.UTF-8"}),
    "a locale without UTF-8": ("/tmp/book", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
}


def run_chapter(chapter, checkout, out, before=(), environment=None, cores=None):
    """Run one chapter of a checkout by papermill, on `cores`; fails with what its cells said."""
    command = [*before, sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", f"{checkout}/book"]
    command += [f"{checkout}/book/{chapter}", f"{out}/{chapter}"]
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, preexec_fn=pin)
    assert done.returncode == 0, f"{chapter}: {done.stderr[-3000:]}"


def environment_of(checkout, home):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(home), "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}


@pytest.mark.torture
@pytest.mark.parametrize("place", PLACES)
def test_chapters_run_alone_in_a_hostile_place(place, tmp_path, torture, record_property):
    """Each by itself: read-only, empty home, no network, no display, one core, a place of another name."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    checkout, locale = PLACES[place]
    before = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent", "--clearenv"]
    before += ["--tmpfs", "/tmp", "--dir", "/tmp/home"]
    before += ["--ro-bind", str(ROOT), checkout, "--bind", str(tmp_path), "/mnt"]
    before += ["--tmpfs", str(ROOT), "--ro-bind", sys.prefix, sys.prefix]  # nothing finds the checkout by its old name
    for name, value in (environment_of(checkout, "/tmp/home") | locale).items():
        before += ["--setenv", name, value]
    chapters = CHAPTERS if torture else CHAPTERS[:1]
    for chapter in chapters:
        run_chapter(chapter, checkout, "/mnt", before, cores={min(os.sched_getaffinity(0))})
    assert sorted(path.name for path in tmp_path.iterdir()) == chapters
    record_property(
        "tried", f"{len(chapters)} chapters, each alone, from {place}: read-only, no network, no home, one core"
    )
    record_property("result", "all ran")


@pytest.mark.torture
def test_chapters_in_any_order_and_twice_leave_no_trace(tmp_path, torture, record_property):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    clone, out, home = (tmp_path / name for name in ("clone", "out", "home"))
    out.mkdir()
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    chapters = CHAPTERS if torture else CHAPTERS[:1]
    for seed in range(2):
        for chapter in random.Random(seed).sample(chapters, len(chapters)):
            run_chapter(chapter, clone, out, environment=environment_of(clone, home))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True)
    assert status.stdout == ""
    record_property("tried", f"{len(chapters)} chapters twice, in random order")
    record_property("result", "nothing changed in the checkout")
