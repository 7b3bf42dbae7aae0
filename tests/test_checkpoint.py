"""Networks on disk: whole or not at all, and never more than data."""

import functools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from damm_lite import fusion, prediction_types, schedules
from damm_lite.checkpoint import how_to_load, load_checkpoint, parts_of, save_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.unet import UNet, UNetConfig

CONFIG = UNetConfig(2, 1, (16, 16, 24, 32), 32)
MODELS = {
    "ours": lambda: DAMMNet(CONFIG, fusion.JointConfidence, None, prediction_types.PredictsVelocity),
    "released": lambda: DAMMNet(CONFIG, fusion.QueryConfidence, 3, prediction_types.PredictsVelocity),
    "plain": lambda: DAMMNet(
        CONFIG, None, 1, prediction_types.PredictsVelocity, fusion.Addition, fusion.PlainAttention
    ),
    "unet": lambda: UNet(CONFIG, prediction_types.PredictsVelocity),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


def test_round_trip(model, tmp_path):
    schedule = schedules.cosine_schedule(50)
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, schedule, seed=3, note="hello")
    copy, copied_schedule = load_checkpoint(path)
    assert not copy.training and copy.config == model.config and copy.prediction is prediction_types.PredictsVelocity
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


def test_numbers_of_numpy_and_pytorch_are_kept_and_other_things_become_text(tmp_path):
    path = tmp_path / "net.safetensors"
    model = DAMMNet(CONFIG, secondary_channels=np.int64(2))
    about = dict(seed=np.int64(3), score=np.float32(0.5), curve=np.arange(3), loss=torch.tensor(2.0), out=Path("x/y"))
    save_checkpoint(path, model, schedules.cosine_schedule(50), **about)
    assert load_checkpoint(path)[0].arguments["secondary_channels"] == 2
    with safe_open(path, "pt") as file:
        kept = json.loads(file.metadata()["damm_lite"])["about"]
    assert kept == dict(seed=3, score=0.5, curve=[0, 1, 2], loss=2.0, out="x/y")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_could_not_be_loaded_are_not_written(model, tmp_path, value):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, schedules.cosine_schedule(50))
    before = path.read_bytes()
    with torch.no_grad():
        list(model.parameters())[-1].view(-1)[-1] = value
    with pytest.raises(FloatingPointError, match=r"net.safetensors: not written: .*NaN or infinity in model\."):
        save_checkpoint(path, model, schedules.cosine_schedule(50))
    assert path.read_bytes() == before


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
        (lambda t, m: set_config(m, confidence="Psychic"), "Psychic|callable"),
        (lambda t, m: set_config(m, confidence={"part": "os:system"}), "part 'os:system' is none of the package's"),
        (lambda t, m: set_config(m, confidence={"part": ["x"]}), "expected a checkpoint"),
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


class Mine(fusion.Addition):
    """A fusion of the reader's own, with weights."""

    def __init__(self, channels):
        super().__init__(channels)
        self.scale = torch.nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, a, d):
        return a + self.scale * d


class MyHead(fusion.QueryConfidence):
    pass


class PredictsHalf(prediction_types.PredictsImage):
    """The network's output is x0 / 2."""

    @staticmethod
    def coefficients(signal, noise):
        return 0 * signal, 2 + 0 * noise


class MyNet(DAMMNet):
    pass


def test_parts_of_ones_own_are_saved_and_loaded(tmp_path):
    path, parts = tmp_path / "net.safetensors", [MyNet, MyHead, PredictsHalf, Mine]
    model = MyNet(CONFIG, MyHead, None, PredictsHalf, Mine)
    assert parts_of(model) == parts and parts_of(DAMMNet(CONFIG)) == []
    assert how_to_load(parts).endswith("parts=[MyNet, MyHead, PredictsHalf, Mine]")
    save_checkpoint(path, model, schedules.cosine_schedule(50))
    copy, _ = load_checkpoint(path, parts=parts)
    assert type(copy) is MyNet and copy.arguments == model.arguments
    for key, value in model.state_dict().items():
        assert torch.equal(copy.state_dict()[key], value), key
    with pytest.raises(ValueError, match=r"none of the package's; pass its class: load_checkpoint\(path, parts=\[MyH"):
        load_checkpoint(path, parts=[Mine, MyNet])


def test_a_part_of_the_same_name_is_not_the_packages(tmp_path):
    own = type("MMFM", (Mine,), {"__module__": "__main__"})
    save_checkpoint(tmp_path / "net.safetensors", DAMMNet(CONFIG, fusion=own), schedules.cosine_schedule(50))
    with pytest.raises(ValueError, match="part '__main__:MMFM' is none of the package's"):
        load_checkpoint(tmp_path / "net.safetensors")
    assert load_checkpoint(tmp_path / "net.safetensors", [own])[0].arguments["fusion"] is own


def test_saving_never_refuses_and_says_what_cannot_be_loaded(tmp_path):
    nameless = functools.partial(Mine)
    model = DAMMNet(CONFIG, fusion=nameless)
    save_checkpoint(tmp_path / "net.safetensors", model, schedules.cosine_schedule(50))
    assert "cannot be loaded again: functools.partial" in how_to_load(parts_of(model))
    with pytest.raises(ValueError, match="functools.partial"):
        load_checkpoint(tmp_path / "net.safetensors")


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
