"""The build tells the truth: failing cells fail it, and pages follow the code they show."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import fresh_outputs
import run_chapters

ROOT = Path(__file__).parents[1]
BUILD = ["book", "--config", "_config.yml", "--path-output", ".", "-W"]


@pytest.fixture
def project(tmp_path):
    """A book of one chapter that shows one constant of its package, with this book's own configuration."""
    root = tmp_path / "a book"
    shutil.copytree(ROOT / "book" / "_ext", root / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("_static", "_templates"):
        shutil.copytree(ROOT / "book" / folder, root / "book" / folder)
    shutil.copytree(ROOT / "web", root / "web", ignore=shutil.ignore_patterns("node_modules"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config.pop("bibtex_bibfiles")
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    # A second page, as the theme cannot draw an empty map of the chapters.
    (root / "_toc.yml").write_text("format: jb-book\nroot: chapter\nchapters:\n- file: after\n")
    (root / "book" / "after.md").write_text("# After the chapter\n")
    (root / "damm_lite").mkdir()
    for name, text in (("__init__", ""), ("constants", "ANSWER = 'first value'\n"), ("other", "X = 1\n")):
        (root / "damm_lite" / f"{name}.py").write_text(text)
    look_here = "import sys\nsys.path.insert(0, '..')\n"
    write_chapter(root, f"{look_here}from damm_lite.constants import ANSWER\nprint('shown:', ANSWER)")
    return root


def write_chapter(root, code, prose="# One chapter"):
    cells = [nbformat.v4.new_markdown_cell(prose, id="title"), nbformat.v4.new_code_cell(code, id="code")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "book" / "chapter.ipynb")


def build(root):
    command = [Path(sys.executable).parent / "jupyter-book", "build", *BUILD, "--toc", root / "_toc.yml"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


def page(root):
    return (root / "_build" / "html" / "chapter.html").read_text()


def test_pages_follow_the_package(project):
    first = build(project)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "shown: first value" in page(project) and "Executing notebook" in first.stdout + first.stderr

    again = build(project)
    assert again.returncode == 0 and "Executing notebook" not in again.stdout + again.stderr

    (project / "damm_lite" / "other.py").write_text("X = 2\n")  # of no concern to the chapter
    again = build(project)
    assert again.returncode == 0 and "Executing notebook" not in again.stdout + again.stderr

    (project / "damm_lite" / "constants.py").write_text("ANSWER = 'second value'\n")
    assert build(project).returncode == 0
    assert "shown: second value" in page(project)


def test_chapters_that_were_run_before_are_not_run_again(project):
    assert run_chapters.run(project) == {}
    result = build(project)
    assert result.returncode == 0 and "Executing notebook" not in result.stdout + result.stderr
    assert "shown: first value" in page(project)


BROKEN = "raise RuntimeError('broken on purpose')"
MISSPELT = """
import damm_lite as dl
profile, sead = "fast", 7
dl.check_parameters(globals(), profile=("fast", "full"), seed=int)
"""
WITHOUT_WEIGHTS = """
from pathlib import Path
from damm_lite import checkpoint, download
download.CHECKOUT, download.REPOSITORY = Path("nowhere"), "http://127.0.0.1:9"
download.pooch.os_cache = lambda name: Path("empty cache").resolve()
checkpoint.load_pretrained("tumour-64")
"""


@pytest.mark.parametrize(
    "code, said",
    [
        (BROKEN, "broken on purpose"),
        (MISSPELT, "unknown parameter sead"),
        (WITHOUT_WEIGHTS, "weights/tumour-64.safetensors"),
    ],
    ids=["a failing cell", "an unknown parameter", "a missing weight file"],
)
def test_it_fails_the_build_and_is_named(project, code, said):
    write_chapter(project, code)
    ((path, traceback),) = run_chapters.run(project).items()
    assert path.endswith("chapter.ipynb") and said in traceback
    result = build(project)
    assert result.returncode != 0
    assert said in result.stdout + result.stderr


def test_a_warning_fails_the_build(project):
    write_chapter(project, "1", prose="# One chapter\n\nSee {doc}`a_page_that_is_not_there`.")
    assert build(project).returncode != 0


def test_chapters_follow_what_they_reach():
    package = ROOT / "damm_lite"
    found = fresh_outputs.reached("dl.predict(x); dl.tumours.Physics(); dl.teaching.planes", package)
    assert found is None, "a name that is nowhere stands for all"
    found = fresh_outputs.reached("import damm_lite as dl\ndl.predict(x)\ndl.tumours.Physics().pixel", package)
    assert {"predict", "gates", "damm", "fusion", "unet", "samplers", "tumours.simulate"} <= found
    assert not {"train", "whole_slide", "brains.synthetic", "experiments.factors", "tumours.fluorescence"} & found
    assert "brains.synthetic" in fresh_outputs.reached("from damm_lite.brains.synthetic import later", package)
    found = fresh_outputs.reached("from damm_lite.experiments import (\n    ladder,\n    statistics,\n)", package)
    assert {"experiments.ladder", "train"} <= found and "experiments.factors" not in found
    everything = fresh_outputs.reached("from damm_lite.experiments.measure import GATES", package)
    assert everything is None, "measure.py imports damm_lite as a whole"


def test_every_chapter_can_be_followed():
    for path in sorted((ROOT / "book").glob("[0-9]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        names = fresh_outputs.reached(code, ROOT / "damm_lite")
        assert names and len(names) < 45, path.name
