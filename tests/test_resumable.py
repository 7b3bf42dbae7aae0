"""A run that is killed and started again ends as if nothing had happened."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open

from damm_lite.checkpoint import load_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.fusion import Addition
from damm_lite.losses import our_loss
from damm_lite.predict import predict
from damm_lite.prediction_types import PredictsImage, PredictsNoise
from damm_lite.resumable import fit, peak_memory
from damm_lite.schedules import cosine_schedule, scaled_linear_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import UNetConfig

SCRIPT = """
import sys
import torch
import damm_lite as dl

torch.manual_seed(0)
model = dl.DAMMNet(dl.UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=dl.PredictsImage)
patches = list(dl.SyntheticTumours(12, 16, seed=0))
config = dl.TrainConfig(num_steps=int(sys.argv[2]), batch_size=4)
for progress in dl.fit(model, dl.scaled_linear_schedule(), patches, config, folder=sys.argv[1], save_seconds=0.1):
    print(progress.step, flush=True)
assert len(progress.losses) == config.num_steps and progress.minutes_left == 0 and progress.peak_memory > 0.05, progress
"""


def start(folder, num_steps, before=()):
    """Train for so many steps into `folder`, in a process of its own behind the command `before`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [*before, sys.executable, "-c", SCRIPT, str(folder), str(num_steps)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    """The steps that it printed; fails where it failed."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [int(step) for step in printed.split()]


def step_of(state):
    """After which step a state was saved; raises where it is not whole."""
    with safe_open(state, framework="pt") as file:
        return json.loads(file.metadata()["damm_lite"])["step"]


def assert_equal_runs(folder, expected, num_steps):
    (ours, _), (reference, _) = (load_checkpoint(run / "model.safetensors") for run in (folder, expected))
    for key, value in reference.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    losses = [np.loadtxt(run / "losses.txt") for run in (folder, expected)]
    assert np.array_equal(*losses) and len(losses[0]) == num_steps


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Returns the folder of a run of so many steps that nothing has disturbed; each is trained once."""

    @functools.cache
    def folder_of(num_steps):
        folder = tmp_path_factory.mktemp("uninterrupted")
        assert finish(start(folder, num_steps)) == list(range(1, num_steps + 1))
        return folder

    return folder_of


@pytest.mark.torture
def test_killed_at_random_moments_it_ends_equal_to_the_bit(tmp_path, uninterrupted, torture, record_property):
    """Every second kill falls into the writing of a state."""
    kills, steps = (20, 240) if torture else (2, 32)
    whole, killed = uninterrupted(steps), tmp_path / "killed"
    moments, in_writing, saved = random.Random(0), 0, 0
    for kill in range(kills):
        process = start(killed, steps)
        process.stdout.readline()  # at least one step in
        if kill % 2:
            time.sleep(moments.uniform(0, 0.3))
        else:
            while not list(killed.glob(".state.safetensors-*/*")) and process.poll() is None:
                time.sleep(0.0002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "no kill came in time"
        in_writing += bool(list(killed.glob(".state.safetensors-*/*")))
        if (killed / "state.safetensors").exists():
            assert step_of(killed / "state.safetensors") >= saved, "what was saved is lost"
            saved = step_of(killed / "state.safetensors")
    assert in_writing and finish(start(killed, steps)) == list(range(saved + 1, steps + 1))
    assert finish(start(killed, steps)) == [steps], "complete: nothing is done again"
    assert_equal_runs(killed, whole, steps)
    assert {path.name for path in killed.iterdir()} == {"state.safetensors", "losses.txt", "model.safetensors"}
    record_property("tried", f"{kills} kills of a training, {in_writing} of them while it wrote")
    record_property("result", "every state whole, result equal to the bit")


IN_SMALL_DISK = """
import pathlib, subprocess, sys
ballast, disk = pathlib.Path("/disk/ballast"), pathlib.Path("/disk")
train = [sys.executable, "-c", sys.argv[1], "/disk/run", "32"]
first = subprocess.Popen(train, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
while not (disk / "run" / "state.safetensors").exists():
    assert first.poll() is None, first.stderr.read()
with open(ballast, "wb", buffering=0) as file:  # the disk fills up
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
_, errors = first.communicate()
assert first.returncode and "OSError: /disk/run/" in errors and "not written" in errors, errors
ballast.unlink()
subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
for name in ("model.safetensors", "losses.txt"):
    (pathlib.Path(sys.argv[2]) / name).write_bytes((disk / "run" / name).read_bytes())
"""


@pytest.fixture
def sandbox():
    """bubblewrap's command for this machine as it is; more arguments may follow."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    return ["bwrap", "--dev-bind", "/", "/"]


def test_a_full_disk_leaves_a_state_to_go_on_from(tmp_path, uninterrupted, sandbox):
    whole, rescued = uninterrupted(32), tmp_path / "rescued"
    rescued.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    disk = [*sandbox, "--size", str(40 * 2**20), "--tmpfs", "/disk"]
    command = [*disk, sys.executable, "-c", IN_SMALL_DISK, SCRIPT, str(rescued)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(rescued, whole, 32)


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path, sandbox):
    process = start(tmp_path, 4, before=[*sandbox, "--ro-bind", str(tmp_path), str(tmp_path)])
    printed, errors = process.communicate(timeout=300)
    assert process.returncode and not printed
    assert "Read-only file system" in errors.splitlines()[-1] and str(tmp_path) in errors.splitlines()[-1]


def test_a_loss_that_is_not_finite_names_the_last_good_state(tmp_path, training):
    steps = iter(range(1, 10))

    def breaks_at_three(*arguments):
        return our_loss(*arguments) * (float("nan") if next(steps) == 3 else 1)

    with pytest.raises(
        FloatingPointError, match=r"nan at step 3 of seed 0; the last good state is .*state\.safetensors"
    ):
        list(fit(*training, breaks_at_three, folder=tmp_path, save_seconds=0.0))
    assert step_of(tmp_path / "state.safetensors") == 2
    with pytest.raises(FloatingPointError, match="nan at step 1 of seed 0; no state had been saved yet"):
        list(fit(*training, lambda *arguments: our_loss(*arguments) * float("nan"), folder=tmp_path / "new"))


@pytest.mark.parametrize("ruined", [1, 3], ids=["first", "last"])
def test_a_step_that_ruins_the_weights_is_not_saved_though_its_loss_is_finite(tmp_path, training, ruined):
    steps = iter(range(1, 10))

    def gradient_of_nan(output, target, trusted):
        nothing = (output.multi - output.multi.detach()).abs().sqrt().mean()  # 0, with a gradient of 0 times infinity
        return our_loss(output, target, trusted) + (nothing if next(steps) == ruined else 0)

    kept = "no state had been saved yet" if ruined == 1 else r"the last good state is .*state\.safetensors"
    with pytest.raises(FloatingPointError, match=rf"not written: expected finite numbers, .*; {kept}"):
        list(fit(*training, gradient_of_nan, folder=tmp_path, save_seconds=0.0))
    assert not (tmp_path / "model.safetensors").exists()
    if ruined == 3:
        assert step_of(tmp_path / "state.safetensors") == 2


def test_without_the_module_that_only_unix_has(monkeypatch):
    code = "import psutil, sys; sys.modules['resource'] = None; import damm_lite; damm_lite.fit, damm_lite.train"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    peak = types.SimpleNamespace(peak_wset=3 * 2**30)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: peak)
    assert peak_memory(torch.device("cpu")) == 3


@pytest.fixture
def training():
    """A network, schedule, patches and settings for three small steps."""
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16))
    patches = list(SyntheticTumours(4, 16, seed=0))
    return model, scaled_linear_schedule(), patches, TrainConfig(num_steps=3, batch_size=2)


def test_a_log_cut_short_by_a_full_disk_leaves_the_old_one(tmp_path, training, monkeypatch):
    run = fit(*training, folder=tmp_path, save_seconds=0.0)
    next(run)
    before = (tmp_path / "losses.txt").read_text()

    def cut_short(path, losses):
        Path(path).write_text("0.")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savetxt", cut_short)
    with pytest.raises(OSError, match="no space"):
        next(run)
    assert (tmp_path / "losses.txt").read_text() == before and len(before.split()) == 1


@pytest.mark.parametrize("log", ["", "0.5 and a half", None, "0.25\n"])
def test_a_damaged_log_is_named_and_what_it_lost_is_not_made_up(tmp_path, training, log):
    run = fit(*training, folder=tmp_path, save_seconds=0.0)
    next(run), next(run)
    losses = tmp_path / "losses.txt"
    losses.unlink() if log is None else losses.write_text(log)
    with pytest.warns(UserWarning, match=r"losses.txt: expected 2 losses, found [01]; the others are NaN"):
        *_, progress = fit(*training, folder=tmp_path, save_seconds=0.0)
    assert progress.step == 3 and np.isnan(progress.losses).tolist() == [log != "0.25\n", True, False]


class Mine(Addition):
    """A fusion as somebody may define it in a notebook."""

    def __init__(self, channels):
        super().__init__(channels)
        self.scale = torch.nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, a, d):
        return a + self.scale * d


def train_mine(folder, stop=None):
    """Train a network with it, up to `stop`; the last `Progress`."""
    torch.manual_seed(0)
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), fusion=Mine)
    patches = list(SyntheticTumours(6, 16, seed=0))
    run = fit(model, scaled_linear_schedule(), patches, TrainConfig(6, 3), folder=folder, save_seconds=0.0)
    with pytest.warns(UserWarning, match=r"load_checkpoint will need parts=\[Mine\]"):
        progress = next(run)
    while progress.step not in (stop, 6):
        progress = next(run)
    return progress


def test_a_fusion_of_ones_own_is_trained_resumed_saved_loaded_and_used(tmp_path):
    whole = train_mine(tmp_path / "whole")
    train_mine(tmp_path / "stopped", stop=3)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    resumed, complete = train_mine(tmp_path / "stopped"), train_mine(tmp_path / "stopped")
    assert resumed.losses == whole.losses == complete.losses
    images = torch.rand(2, 2, 1, 16, 16) * 2 - 1
    loaded, schedule = load_checkpoint(tmp_path / "stopped" / "model.safetensors", parts=[Mine])
    predictions = [predict(x, schedule, *images, 2).x0 for x in (whole.ema, resumed.ema, complete.ema, loaded)]
    assert all(torch.equal(x0, predictions[0]) for x0 in predictions[1:])


def stop_at_three(folder, **changes):
    """A run that was closed at its third step; with changes, the one that would go on."""
    torch.manual_seed(0)
    parts = dict(
        model=DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=PredictsImage),
        schedule=scaled_linear_schedule(),
        dataset=list(SyntheticTumours(6, 16, seed=0)),
        config=TrainConfig(6, 2),
        loss=our_loss,
    )
    run = fit(**(parts | changes), folder=folder, save_seconds=0.0)
    for progress in run:
        if progress.step == 3 and not changes:
            break
    run.close()
    return progress


OTHERS = {
    "prediction type": lambda: dict(model=DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=PredictsNoise)),
    "schedule": lambda: dict(schedule=cosine_schedule()),
    "loss": lambda: dict(loss=functools.partial(our_loss, power=0.0)),
    "data": lambda: dict(dataset=list(SyntheticTumours(6, 16, seed=1))),
    "network": lambda: dict(model=DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), None, prediction=PredictsImage)),
}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("what", OTHERS)
def test_a_run_never_goes_on_as_another(tmp_path, what, complete):
    stop_at_three(tmp_path)
    if complete:
        stop_at_three(tmp_path, config=TrainConfig(6, 2))  # the same, to its end
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"state.safetensors: .*it is of another run: .*{what}: .* instead of"):
        stop_at_three(tmp_path, **OTHERS[what]())
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_other_sizes_of_patches_and_other_numbers_of_them_are_other_data(tmp_path):
    stop_at_three(tmp_path)
    for n, size in ((7, 16), (6, 20)):
        with pytest.raises(ValueError, match="data: 6 items, .* instead of"):
            stop_at_three(tmp_path, dataset=list(SyntheticTumours(n, size, seed=0)))
