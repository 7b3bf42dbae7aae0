"""Several processes share a batch, and nothing about the run changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from damm_lite.parallel import CPUSyncBatchNorm2d

RUN = """
import json, sys
import torch
import damm_lite as dl
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
model = dl.DAMMNet(dl.UNetConfig(2, 1, (16, 16, 16, 16), 16), objective=dl.PredictsImage)
patches = list(dl.SyntheticTumours(24, 16, seed=0))
config = dl.TrainConfig(num_steps=20, batch_size=8, warmup_steps=5)
run = dl.train(model, dl.scaled_linear_schedule(), patches, config, accelerator=accelerator, progress=False)
losses = [step.loss for step in run]
if accelerator.is_main_process:
    norm = model.mmfm[0].merge[1]
    record = {"processes": accelerator.num_processes, "losses": losses, "mean": norm.running_mean.tolist()}
    open(sys.argv[1], "w").write(json.dumps(record))
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
    alone = losses_of(tmp_path, sys.executable)
    # On CPUs without MPI, `accelerate launch` starts one process whatever it is told; torchrun starts two.
    shared = losses_of(tmp_path, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert alone["processes"] == 1 and shared["processes"] == 2 and len(alone["losses"]) == 20
    assert shared["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert shared["mean"] == pytest.approx(alone["mean"], abs=1e-3)


def test_alone_it_is_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    ours, plain = CPUSyncBatchNorm2d(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))
