"""A run that is killed and started again ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from damm_lite.checkpoint import load_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.run import fit
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours import SyntheticTumours
from damm_lite.unet import UNetConfig

SCRIPT = """
import sys
import torch
import damm_lite as dl

torch.manual_seed(0)
model = dl.DAMMNet(dl.UNetConfig(2, 1, (16, 16, 16, 16), 16), objective=dl.PredictsImage)
patches = list(dl.SyntheticTumours(12, 16, seed=0))
config = dl.TrainConfig(num_steps=24, batch_size=4)
for progress in dl.fit(model, dl.scaled_linear_schedule(), patches, config, folder=sys.argv[1], save_seconds=0.3):
    print(progress.step, flush=True)
assert len(progress.losses) == 24 and progress.minutes_left == 0 and progress.peak_memory > 0.05, progress
"""


def start(script, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, script, folder], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_killed_at_random_moments_it_ends_equal_to_the_bit(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    whole = start(script, tmp_path / "whole")
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors

    kills, moments = 0, random.Random(0)
    while True:
        process = start(script, tmp_path / "killed")
        if kills == 2:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            break
        assert not (tmp_path / "killed" / "model.safetensors").exists(), "no kill came in time"
        process.stdout.readline()  # at least one step in
        time.sleep(moments.uniform(0.3, 1.5))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL

    again = start(script, tmp_path / "killed")
    assert again.communicate(timeout=300)[0].split() == ["24"]
    (ours, _), (expected, _) = (load_checkpoint(tmp_path / run / "model.safetensors") for run in ("killed", "whole"))
    for key, value in expected.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    losses = [np.loadtxt(tmp_path / run / "losses.txt") for run in ("killed", "whole")]
    assert np.array_equal(*losses) and len(losses[0]) == 24


def test_a_log_cut_short_by_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16))
    patches, config = list(SyntheticTumours(4, 16, seed=0)), TrainConfig(num_steps=3, batch_size=2)
    run = fit(model, scaled_linear_schedule(), patches, config, folder=tmp_path, save_seconds=0.0)
    next(run)
    before = (tmp_path / "losses.txt").read_text()

    def cut_short(path, losses):
        Path(path).write_text("0.")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savetxt", cut_short)
    with pytest.raises(OSError, match="no space"):
        next(run)
    assert (tmp_path / "losses.txt").read_text() == before and len(before.split()) == 1
