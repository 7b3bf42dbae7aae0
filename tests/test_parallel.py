"""Several processes share a batch, and nothing about the run changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import json, sys
import torch
import damm_lite as dl
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
model = dl.DAMMNet(dl.UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=dl.PredictsImage, fusion=dl.Addition)
patches = list(dl.SyntheticTumours(24, 16, seed=0))
config = dl.TrainConfig(num_steps=20, batch_size=8, warmup_steps=5)
run = dl.train(model, dl.scaled_linear_schedule(), patches, config, accelerator=accelerator, progress=False)
losses = [step.loss_on_device for step in run]
losses = [accelerator.reduce(loss, "mean").item() for loss in losses]
if accelerator.is_main_process:
    open(sys.argv[1], "w").write(json.dumps({"processes": accelerator.num_processes, "losses": losses}))
"""


def losses_of(tmp_path, *launcher):
    script, out = tmp_path / "run.py", tmp_path / "losses.json"
    script.write_text(RUN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [*launcher, str(script), str(out)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text())


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Where there are no batch norms; on GPUs these share their statistics, by PyTorch's own means."""
    alone = losses_of(tmp_path, sys.executable)
    # On CPUs without MPI, `accelerate launch` starts one process whatever it is told; torchrun starts two.
    shared = losses_of(tmp_path, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert alone["processes"] == 1 and shared["processes"] == 2 and len(alone["losses"]) == 20
    assert shared["losses"] == pytest.approx(alone["losses"], abs=1e-4)
