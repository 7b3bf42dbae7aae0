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
losses, first = [], None
for step in run:
    losses.append(step.loss)
    norm = model.mmfm[0].merge[1]
    first = first or [norm.running_mean.tolist(), norm.running_var.tolist()]
if accelerator.is_main_process:
    record = {"processes": accelerator.num_processes, "losses": losses, "mean": first[0], "variance": first[1]}
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
    for statistic in ("mean", "variance"):  # after the first step, before rounding has travelled through Adam
        assert shared[statistic] == pytest.approx(alone[statistic], abs=1e-6)


@pytest.fixture
def group_of_one():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("training", [True, False])
def test_in_a_group_of_one_it_is_batch_norm(group_of_one, training):
    x = torch.randn(4, 3, 5, 5)
    results = []
    for norm in (CPUSyncBatchNorm2d(3), nn.BatchNorm2d(3)):
        torch.nn.init.constant_(norm.weight, 1.7)
        copy = x.clone().requires_grad_()
        out = norm.train(training)(copy)
        out.pow(3).sum().backward()
        results.append([out, copy.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
