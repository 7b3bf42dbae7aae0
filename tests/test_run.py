"""A run that is killed and started again ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from damm_lite.checkpoint import load_checkpoint

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
assert len(progress.losses) == 24 and progress.minutes_left == 0 and progress.peak_memory > 0.05
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
    assert whole.wait(timeout=300) == 0, whole.stderr.read()

    kills, moments = 0, random.Random(0)
    while True:
        process = start(script, tmp_path / "killed")
        if kills == 2:
            assert process.wait(timeout=300) == 0, process.stderr.read()
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
