"""A long run that is watched: what it says of samples, resumed and followed by a tracker."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

import damm_lite as dl
from damm_lite.experiments import long_run, methods
from damm_lite.experiments.methods import Budget
from damm_lite.experiments.study import field_patches

TINY = Budget(size=16, patches=16, steps=6, batch_size=4, calibration_patches=8)


def record(folder, tracker=None, every=3):
    accelerator = long_run.accelerator_of(tracker, folder)
    return long_run.record(folder, TINY, 0, every, accelerator)


def test_a_row_for_every_look_and_the_same_numbers_after_an_interruption(tmp_path, monkeypatch):
    whole = record(tmp_path / "whole")
    assert whole["step"].tolist() == [3, 6]
    losses = [float(line) for line in (tmp_path / "whole" / "losses.txt").read_text().split()]
    assert whole["loss"].tolist() == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3])

    fit = methods.fit

    def lost(*arguments, **options):
        for progress in fit(*arguments, **options, save_seconds=0):
            yield progress
            if progress.step == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(methods, "fit", lost)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "parts")
    assert pd.read_csv(tmp_path / "parts" / "validation.csv")["step"].tolist() == [3]
    monkeypatch.setattr(methods, "fit", fit)
    record(tmp_path / "parts")
    record(tmp_path / "parts")  # once more, when all is done
    found = [pd.read_csv(tmp_path / name / "validation.csv").drop(columns="pace") for name in ("whole", "parts")]
    pd.testing.assert_frame_equal(*found)


def test_validation_is_that_of_the_samples(monkeypatch):
    batch = field_patches(8, 16, seed=3)
    target = batch["target"] / 2  # far from the ends, which nothing is clipped to
    noise = torch.randn(3, *target.shape, generator=torch.Generator().manual_seed(0)) / 20
    samples = target + noise[1:]
    found = SimpleNamespace(samples=samples)
    monkeypatch.setattr(long_run, "predict", lambda *_, **__: found)
    scores = long_run.validation(None, None, batch | {"target": target}, num_samples=2)
    mean = samples.mean(dim=0)
    assert scores["error"] == pytest.approx(float((mean - target).pow(2).mean().sqrt()), rel=1e-5)
    assert scores["ssim"] == pytest.approx(float(dl.ssim(mean, target).mean()), rel=1e-5)
    assert scores["crps"] == pytest.approx(float(dl.crps(samples, target).mean()), rel=1e-5)
    # Truth, one more sample of the same: then the error is about the spread.
    scores = long_run.validation(None, None, batch | {"target": target + noise[0]}, num_samples=2)
    assert scores["error"] == pytest.approx(scores["spread"], rel=0.05)
    assert scores["spread"] == pytest.approx(math.sqrt(1.5) / 20, rel=0.05)


def events(folder):
    """{tag: {step: value}} of TensorBoard's files: records of eight bytes of length, four of check, data, four."""
    found = {}
    for path in folder.rglob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    return found


def test_a_tracker_is_told_every_number(tmp_path):
    table = record(tmp_path, "tensorboard")
    found = events(tmp_path)
    assert {"loss", "ssim", "crps", "error", "spread"} <= set(found)
    for name in ("loss", "crps"):
        assert found[name] == pytest.approx(dict(zip(table["step"], table[name], strict=True)), rel=1e-5)


def test_a_tracker_that_is_not_there_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="tracker: 'wandb' is not installed: pip install wandb"):
        long_run.accelerator_of("wandb", tmp_path)
    with pytest.raises(ValueError, match="Unsupported logging capability: tensorbroad"):
        long_run.accelerator_of("tensorbroad", tmp_path)
