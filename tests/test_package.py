"""The package from outside: quick to import, and the README's script does what it says."""

import re
import subprocess
import sys
from pathlib import Path

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
