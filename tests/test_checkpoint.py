"""Networks on disk: whole or not at all, and never more than data."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from damm_lite import fusion, schedules
from damm_lite.checkpoint import load_checkpoint, save_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.unet import UNet, UNetConfig

CONFIG = UNetConfig(2, 1, (16, 16, 24, 32), 32)
MODELS = {
    "ours": lambda: DAMMNet(CONFIG, fusion.JointConfidence, None, schedules.PredictsVelocity),
    "released": lambda: DAMMNet(CONFIG, fusion.QueryConfidence, 3, schedules.PredictsVelocity),
    "plain": lambda: DAMMNet(CONFIG, None, 1, schedules.PredictsVelocity, fusion.Addition, fusion.PlainAttention),
    "unet": lambda: UNet(CONFIG, schedules.PredictsVelocity),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


def test_round_trip(model, tmp_path):
    schedule = schedules.cosine_schedule(50)
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, schedule, seed=3, note="hello")
    copy, copied_schedule = load_checkpoint(path)
    assert not copy.training and copy.config == model.config and copy.objective is schedules.PredictsVelocity
    assert type(copy) is type(model) and copy.arguments == model.arguments
    assert torch.equal(copied_schedule.alphas_cumprod, schedule.alphas_cumprod)
    for key, value in model.state_dict().items():
        assert torch.equal(copy.state_dict()[key], value), key
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    (tmp_path / "any file").touch()
    assert path.stat().st_mode == (tmp_path / "any file").stat().st_mode


def test_a_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, schedules.cosine_schedule(50))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, model, schedules.cosine_schedule(60))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def damaged(path, change):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def set_config(metadata, **changes):
    description = json.loads(metadata["damm_lite"])
    description["arguments"].update(changes)
    metadata["damm_lite"] = json.dumps(description)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: t.pop("model.uafm.q.weight"), "uafm.q.weight"),
        (lambda t, m: t.update({"model.extra": torch.zeros(1)}), "extra"),
        (lambda t, m: t.update({"model.uafm.q.bias": torch.zeros(3)}), "uafm.q.bias"),
        (lambda t, m: t.pop("schedule.alphas_cumprod"), "schedule"),
        (lambda t, m: m.pop("damm_lite"), "damm_lite"),
        (lambda t, m: m.update(damm_lite="{"), "expected a checkpoint"),
        (lambda t, m: set_config(m, confidence="Psychic"), "Psychic"),
        (lambda t, m: set_config(m, config={"widths": [1]}), "widths"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, DAMMNet(UNetConfig(2, 1, (16, 16, 16, 32), 32)), schedules.cosine_schedule(50))
    damaged(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_part_of_ones_own_is_refused_before_anything_is_written(tmp_path):
    class Mine(fusion.Addition):
        pass

    with pytest.raises(ValueError, match="fusion: expected one of .*MMFM.*, got Mine"):
        save_checkpoint(tmp_path / "net.safetensors", DAMMNet(CONFIG, fusion=Mine), schedules.cosine_schedule(50))
    assert not list(tmp_path.iterdir())


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/damm_lite_bomb", "w"))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_checkpoint(tmp_path / "nothing")
