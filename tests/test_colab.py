"""Each chapter as on Colab: an environment without the package, and an empty folder with nothing but the notebook.

The environment is the one of COLAB_PYTHON, which `make colab` fills with Colab's own versions; else one that has what
Colab preinstalls in the versions of the lock, but for an old ipywidgets.
The local clone stands for GitHub: for git by its setting `insteadOf`, for `fetch` by local_github.py. What is
installed is the clone's last commit.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from damm_lite.download import REPOSITORY

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
QUICK = ("01_tumour_images", "06_mmfm")
# What Colab brings of requirements.txt and pyproject.toml (2026-08); its ipywidgets is an old one.
PREINSTALLED = ("accelerate", "matplotlib", "nibabel", "numpy", "pandas", "pooch", "pyyaml", "safetensors",
                "scikit-image", "scipy", "tifffile", "torch", "tqdm")  # fmt: skip
KERNEL = ("ipykernel", "pip")
OLD_WIDGETS = "ipywidgets==7.7.1"
BROUGHT_ALONG = {"damm-lite", "torchmetrics", "lightning-utilities"}
RAISED = {"lazy-loader"}  # Colab's is older than the package needs

if not (ROOT / ".git").exists():
    pytest.skip("no clone: the chapters install the package from its last commit", allow_module_level=True)


def with_dependencies(names):
    """The installed distributions of these names, and all that they need: {canonical name: distribution}."""
    found, wanted, done = {}, [Requirement(name) for name in names], set()
    while wanted:
        need = wanted.pop()
        name = canonicalize_name(need.name)
        found[name] = distribution(name)
        for extra in {"", *need.extras}:  # PyTorch for CUDA names NVIDIA's libraries as extras of one package
            if (name, extra) not in done:
                done.add((name, extra))
                needs = map(Requirement, found[name].requires or ())
                wanted += [each for each in needs if not each.marker or each.marker.evaluate({"extra": extra})]
    return found


def link(source, target):
    """A second name for the file, which may be removed without harm to the first; a copy on another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def python():
    """The interpreter of an environment that holds what Colab preinstalls, and nothing else of the book's."""
    if given := os.environ.get("COLAB_PYTHON"):
        pass_for_github(Path(given).parents[1])
        yield Path(given)
        return
    folder = ROOT / "_build" / "linked"  # on the disk of the environment that its files are linked from
    venv.create(folder, clear=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in with_dependencies((*PREINSTALLED, *KERNEL)).values():
        for file in found.files:
            if file.parts[0] != "..":  # scripts
                link(found.locate_file(file), site / file)
    pass_for_github(folder)
    interpreter = folder / "bin" / "python"
    pip(interpreter, "install", OLD_WIDGETS)
    yield interpreter
    shutil.rmtree(folder)


def pass_for_github(environment):
    """Have the environment's Python fetch files from the clone in GitHub's place."""
    (site,) = environment.glob("lib/python*/site-packages")
    shutil.copy(ROOT / "tests" / "local_github.py", site)
    (site / "local_github.pth").write_text("import local_github\n")


def pip(interpreter, *arguments):
    return subprocess.run(
        [interpreter, "-m", "pip", *arguments], env=environment(), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def environment(**more):
    """The variables of this process without what leads to the checkout, and with the clone in GitHub's place."""
    clone = {
        "LOCAL_CLONE": str(ROOT),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | clone | more


def installed(interpreter):
    packages = json.loads(pip(interpreter, "list", "--format=json"))
    return {canonicalize_name(package["name"]): package["version"] for package in packages}


def run(interpreter, notebook, cache):
    """Run a notebook with a kernel of that environment, in its own folder; returns the finished process."""
    kernel = notebook.parent.with_name("jupyter") / "kernels" / "colab"
    kernel.mkdir(parents=True)
    argv = [str(interpreter), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    command = [Path(sys.executable).with_name("jupyter-execute"), "--kernel_name=colab", "--timeout=600", notebook]
    variables = environment(JUPYTER_PATH=str(kernel.parents[1]), XDG_CACHE_HOME=str(cache), MPLBACKEND="agg")
    return subprocess.run(command, env=variables, cwd=notebook.parent, capture_output=True, text=True)


@pytest.fixture
def notebook(tmp_path):
    """Put a chapter alone into an empty folder."""

    def put(chapter):
        (tmp_path / "content").mkdir()
        return Path(shutil.copy(chapter, tmp_path / "content"))

    return put


@pytest.fixture
def bare(python):
    """The environment before any chapter has run, and what it holds."""
    pip(python, "uninstall", "--yes", *BROUGHT_ALONG)
    return python, installed(python)


@pytest.mark.parametrize(
    "chapter",
    [pytest.param(c, id=c.stem, marks=[] if c.stem in QUICK else pytest.mark.every_chapter) for c in CHAPTERS],
)
def test_a_chapter_runs_from_its_notebook_alone(bare, notebook, tmp_path, chapter):
    python, before = bare
    assert not {"damm-lite", "jupyter-book"} & before.keys() and before["ipywidgets"] == "7.7.1"
    finished = run(python, notebook(chapter), tmp_path / "cache")
    assert finished.returncode == 0, finished.stderr[-3000:]
    after = installed(python)
    changed = {name for name, version in before.items() if after.get(name) != version}
    assert after.keys() - before.keys() == BROUGHT_ALONG and changed <= RAISED
    if any(name in chapter.read_text() for name in ("fetch(", "load_pretrained(", "load_results(")):
        assert [path for path in (tmp_path / "cache" / "damm_lite").rglob("*") if path.is_file()]


def test_a_chapter_stops_where_the_package_cannot_be_had(bare, notebook, tmp_path):
    chapter = notebook(CHAPTERS[0])
    chapter.write_text(chapter.read_text().replace(REPOSITORY, f"file://{tmp_path}/nothing"))
    finished = run(bare[0], chapter, tmp_path / "cache")
    assert finished.returncode != 0 and "CalledProcessError" in finished.stderr


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_badge_opens_a_file_of_the_repository_its_own(chapter):
    tracked = subprocess.run(["git", "ls-files", "book"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (path,) = re.findall(r"colab\.research\.google\.com/github/[^/]+/[^/]+/blob/main/([^)\"]+)\)", chapter.read_text())
    assert path in tracked.stdout.splitlines() and path == f"book/{chapter.name}"
