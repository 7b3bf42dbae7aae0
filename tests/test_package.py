"""The package from outside: quick to import, and the README's script does what it says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import damm_lite

ROOT = Path(__file__).parents[1]
HEAVY = ("matplotlib", "IPython", "ipywidgets", "diffusers", "torchmetrics", "skimage", "accelerate")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_is_quick_and_brings_no_plotting():
    code = "import time; start = time.perf_counter(); import damm_lite, sys; print(time.perf_counter() - start)"
    seconds, *loaded = run(f"{code}; print(*(name for name in {HEAVY} if name in sys.modules))").split()
    assert float(seconds) < 3
    assert not loaded


def test_the_script_of_the_readme_runs(capsys):
    import matplotlib

    matplotlib.use("Agg")
    (script,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        if "evaluate" in block
    )
    namespace = {}
    exec(script, namespace)
    assert "ssim" in capsys.readouterr().out
    result, batch = namespace["result"], namespace["batch"]
    assert result.x0.shape == batch["target"].shape and len(result.branch) == 8
    assert damm_lite.ssim(result.x0, batch["target"])[~batch["divergent"]].mean() > 0.85


def makefile_in(folder, python="", **variables):
    """`make -n` or, with a script in Python's place, `make`, of the environment alone."""
    for name in ("Makefile", "constraints.txt", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    settings = [f"{name}={value}" for name, value in variables.items()]
    if python:
        script = folder / "python"
        script.write_text(python)
        script.chmod(0o755)
        settings.append(f"PYTHON={script}")
    command = ["make", *([] if python else ["-n"]), ".venv/installed", *settings]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_make_says_which_python_it_needs(tmp_path):
    old = '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.4 && exit 0\nexit 1\n'
    result = makefile_in(tmp_path, old)
    assert result.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "Python 3.11, 3.12 or 3.13 is needed" in result.stdout and "Python 3.10.4" in result.stdout


@pytest.mark.parametrize("version, taken", [((3, 11, 4), 0), ((3, 11, 5), 1), ((3, 13, 9), 1), ((3, 14, 0), 0)])
def test_make_takes_the_pythons_that_the_lock_takes(tmp_path, version, taken):
    check = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    script = f'#!/bin/sh\n[ "$1" = -c ] || exit 7\nexec {sys.executable} -c "{check}" "$2"\n'
    assert ("is needed" not in makefile_in(tmp_path, script).stdout) == taken


def test_make_takes_another_index_for_torch(tmp_path):
    assert "--extra-index-url" not in makefile_in(tmp_path).stdout
    assert f"--extra-index-url file://{tmp_path}" in makefile_in(tmp_path, TORCH_INDEX=f"file://{tmp_path}").stdout
