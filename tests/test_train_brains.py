"""The command that trains on brains: a tiny run, stored with what made it."""

import json
import runpy
import shlex

import pytest
import torch
from safetensors import safe_open

from damm_lite.checkpoint import load_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.experiments import train_brains
from damm_lite.unet import RegressionUNet

TINY = shlex.split("--size 16 --widths 16 16 16 16 --patches 24 --test-patches 12 --batch 2 --steps 2")


@pytest.mark.parametrize(
    "options, network", [([], DAMMNet), (["--regression"], RegressionUNet)], ids=["ours", "regression"]
)
def test_a_tiny_run(tmp_path, monkeypatch, capsys, options, network):
    path = tmp_path / "weights" / "brain-16.safetensors"
    monkeypatch.setattr("sys.argv", ["train_brains.py", *TINY, *options, "--out", str(path)])
    runpy.run_module("damm_lite.experiments.train_brains", run_name="__main__", alter_sys=True)
    model, schedule = load_checkpoint(path)
    assert isinstance(model, network) and len(schedule) == 1000
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["damm_lite"])["about"]
    assert about["steps"] == 2 and about["command"].startswith("python -m damm_lite.experiments.train_brains --size 16")
    assert list(path.parent.iterdir()) == [path]  # the state is gone
    if options:
        assert list(about["scores"]) == ["U-Net"]
    else:
        assert list(about["scores"]) == ["uni", "multi", "damm", "auroc"]
        assert "shift of 6 mm" in about["scores"]["auroc"]
    assert "consistent" in capsys.readouterr().out


def test_a_shift_is_as_long_as_it_says():
    image = torch.full((3, 1, 32, 32), -1.0)
    image[..., 15:17, 15:17] = 1
    moved = train_brains.shifted({"target": image, "secondary": image}, millimetres=30.0)  # 5 pixels of 6 mm
    y, x = torch.meshgrid(*[torch.arange(32.0)] * 2, indexing="ij")
    for one in moved[:, 0] + 1:
        centre = torch.stack([(one * y).sum(), (one * x).sum()]) / one.sum()
        assert (centre - 15.5).norm().item() == pytest.approx(5, abs=0.1)
