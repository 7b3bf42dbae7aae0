"""What the project lets in: no code from a file or from elsewhere, and no file but the one that was meant."""

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from packaging.utils import canonicalize_name

import fetch_scripts
from corpus import Bomb
from damm_lite.checkpoint import load_checkpoint, load_state

ROOT = Path(__file__).parents[1]
UNPICKLING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch.load", "torch.save"}
SOURCES = sorted(path for folder in ("damm_lite", "tools", "book/_ext") for path in (ROOT / folder).rglob("*.py"))
NOTEBOOKS = sorted([*ROOT.glob("book/*.ipynb"), *ROOT.glob("book/assignments/*.ipynb")])


def code_of(path):
    """The code of a module or of a notebook's cells, without what IPython reads itself."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def names_in(code):
    """All that a piece of code imports or takes by a dotted name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield f"{node.func.id}()"
        elif isinstance(node, ast.keyword):
            yield f"{node.arg}={ast.unparse(node.value)}"


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda path: path.name)
def test_nothing_is_unpickled_or_run_that_was_read(path):
    names = set(names_in(code_of(path)))
    forbidden = UNPICKLING | {"eval()", "exec()", "compile()", "allow_pickle=True", "trust_remote_code=True"}
    forbidden |= {"shell=True", "os.system", "yaml.load", "yaml.unsafe_load", "torch.hub", "torch.hub.load"}
    assert not names & forbidden


def test_the_search_would_find_it():
    code = "import pickle\nfrom torch import load\nnp.load(x, allow_pickle=True)\neval(text)\ntorch.hub.load(y)"
    assert {"pickle", "torch.load", "allow_pickle=True", "eval()", "torch.hub.load"} <= set(names_in(code))


@pytest.mark.parametrize("path", [*NOTEBOOKS, *ROOT.glob("book/*.md"), ROOT / "Makefile"], ids=lambda path: path.name)
def test_no_page_and_no_command_runs_what_it_fetched(path):
    text = path.read_text()
    assert not re.search(r"(curl|wget)[^\n]*\|\s*(sudo )?(ba|z)?sh|exec\([^)\n]*(get|urlopen|fetch)\(", text)
    installed = re.findall(r'"git\+([^"\\]*)', text) if path.suffix == ".ipynb" else []
    assert set(installed) <= {"{REPOSITORY}"}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_state(path, *[None] * 5)])
def test_a_malicious_checkpoint_runs_nothing(load, old, tmp_path):
    path, trace = tmp_path / "net.safetensors", tmp_path / "it ran"
    torch.save({"model": Bomb(trace)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load(path)
    assert not trace.exists()
    torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert trace.exists(), "the file was harmless, and the test proves nothing"


@pytest.mark.parametrize("member", ["package/../../../outside.js", "package/lib/../../../../outside.js"])
def test_an_archive_cannot_write_outside_its_folder(member, tmp_path, monkeypatch):
    site = tmp_path / "a" / "web"

    def pack(command, **_):
        with tarfile.open(Path(command[command.index("--pack-destination") + 1]) / "x.tgz", "w:gz") as archive:
            entry = tarfile.TarInfo(member)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"evil"))
        return type("Done", (), {"stdout": json.dumps([{"integrity": "sha512-x"}])})

    monkeypatch.setattr(fetch_scripts, "WEB", site)
    monkeypatch.setattr(fetch_scripts.subprocess, "run", pack)
    with pytest.raises((ValueError, tarfile.FilterError)):
        fetch_scripts.fetch("x", "1.0", "sha512-x", ["lib", "..", "lib/.."])
    assert not list(tmp_path.rglob("outside.js"))
    with pytest.raises(ValueError, match="expected sha512-y, got sha512-x"):
        fetch_scripts.fetch("x", "1.0", "sha512-y", ["lib"])


def test_every_locked_package_has_a_licence():
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--with-system", "--format=json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    licences = {canonicalize_name(package["Name"]): package["License"] for package in found}
    assert licences["numpy"].startswith("BSD")
    if sys.version_info[:2] == (3, 11):
        locked = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
        assert not [name for name in locked if licences.get(canonicalize_name(name), "UNKNOWN") == "UNKNOWN"]
