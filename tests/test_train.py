"""Training: repeatable to the bit, an honest average, and it learns."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from damm_lite.checkpoint import save_state
from damm_lite.damm import DAMMNet
from damm_lite.data import generator_of
from damm_lite.losses import our_loss, released_loss, squared_error, warmup_loss
from damm_lite.mismatches import BACKGROUND, cutout, make_mismatches, shift, swap
from damm_lite.predict import predict
from damm_lite.prediction_types import PredictsImage, PredictsNoise, PredictsPreconditioned, PredictsVelocity
from damm_lite.samplers import ddim_sampler
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.train import READ_EVERY, StepSampler, TrainConfig, check_losses, prepare, train
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import UNet, UNetConfig

SCHEDULE = scaled_linear_schedule()
SMALL = UNetConfig(2, 1, (16, 16, 16, 16), 16)


@pytest.fixture(scope="module")
def patches():
    return list(SyntheticTumours(24, 16, seed=0))


def run(patches, num_steps, **changes):
    torch.manual_seed(0)
    model = DAMMNet(SMALL, prediction=PredictsVelocity)
    config = TrainConfig(num_steps=num_steps, batch_size=4, **changes)
    steps = list(train(model, SCHEDULE, patches, config, progress=False))
    return steps, steps[-1].ema


def test_two_runs_of_fifty_steps_are_equal_to_the_bit(patches):
    (first, ema), (second, other) = run(patches, 50), run(patches, 50)
    assert [s.loss for s in first] == [s.loss for s in second]
    for key, value in ema.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    batch = torch.stack([p["primary"] for p in patches[:3]]), torch.stack([p["secondary"] for p in patches[:3]])
    results = [predict(model, SCHEDULE, *batch, num_steps=4, seed=5) for model in (ema, other)]
    assert torch.equal(results[0].x0, results[1].x0) and torch.equal(results[0].confidence, results[1].confidence)
    assert not torch.equal(results[0].x0, predict(ema, SCHEDULE, *batch, num_steps=4, seed=6).x0)


@pytest.mark.parametrize("stop", [1, 7])
def test_a_resumed_run_is_equal_to_the_bit(patches, tmp_path, stop):
    config = TrainConfig(num_steps=12, batch_size=4)
    torch.manual_seed(0)
    for step in train(DAMMNet(SMALL), SCHEDULE, patches, config, progress=False):
        if step.step == stop:
            save_state(tmp_path / "run.pt", step)
    torch.manual_seed(1)  # other initial weights: all must come from the file
    rest = list(train(DAMMNet(SMALL), SCHEDULE, patches, config, progress=False, resume=tmp_path / "run.pt"))
    assert [s.step for s in rest] == list(range(stop + 1, 13))
    for key, value in step.ema.state_dict().items():
        assert torch.equal(value, rest[-1].ema.state_dict()[key]), key
    with pytest.raises(ValueError, match=r"run.pt: .*expected a run of TrainConfig\(num_steps=13"):
        next(train(DAMMNet(SMALL), SCHEDULE, patches, TrainConfig(13, 4), resume=tmp_path / "run.pt"))
    with pytest.raises(ValueError, match="run.pt: not a state"):
        next(train(UNet(SMALL), SCHEDULE, patches, config, resume=tmp_path / "run.pt"))
    (tmp_path / "run.pt").write_bytes((tmp_path / "run.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="run.pt: expected a safetensors file"):
        next(train(DAMMNet(SMALL), SCHEDULE, patches, config, resume=tmp_path / "run.pt"))


def test_another_seed_is_another_run(patches):
    assert run(patches, 2)[0][0].loss != run(patches, 2, seed=1)[0][0].loss


def test_average_follows_its_formula(patches):
    torch.manual_seed(0)
    model = UNet(SMALL)
    config = TrainConfig(num_steps=3, batch_size=4, ema_decay=0.15)
    key, expected = "backbone.in_conv.weight", None
    for step in train(model, SCHEDULE, patches, config, squared_error, progress=False):
        value = step.model.state_dict()[key].clone()
        n = step.step - 1  # averages made before this one
        decay = min(0.15, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(step.ema.state_dict()[key], expected)


def test_learning_rate_warms_up_and_decays(patches):
    seen = []
    for step in train(UNet(SMALL), SCHEDULE, patches, TrainConfig(10, 2, 1e-3, 5), squared_error, progress=False):
        seen.append(step.optimizer.param_groups[0]["lr"])
    expected = [1e-3 * min(1, (s + 1) / 5) * 0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("loss", [our_loss, released_loss, warmup_loss])
@pytest.mark.parametrize("prediction", [PredictsNoise, PredictsVelocity, PredictsImage, PredictsPreconditioned])
def test_every_loss_trains_every_prediction_type(patches, loss, prediction):
    torch.manual_seed(0)
    model, config = DAMMNet(SMALL, prediction=prediction), TrainConfig(40, 8, warmup_steps=5)
    losses = [step.loss for step in train(model, SCHEDULE, patches, config, loss, progress=False)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_one_patch_can_be_learnt_by_heart(patches):
    torch.manual_seed(0)
    model, patch = UNet(SMALL, PredictsImage), patches[0]
    config = TrainConfig(200, 8, learning_rate=3e-3)
    *_, last = train(model, SCHEDULE, [patch], config, squared_error, progress=False)
    primary = patch["primary"][None]

    def denoiser(xt, t):
        return PredictsImage.to_x0(SCHEDULE, xt, last.ema(xt, t, primary), t)

    with torch.no_grad():
        x0 = ddim_sampler(denoiser, SCHEDULE, torch.randn(1, 1, 16, 16), 20)
    assert (x0 - patch["target"]).abs().mean() < 0.1


def test_a_loss_that_is_not_finite_stops_at_once(patches):
    def explode(output, target, trusted):
        return squared_error(output, target) * math.nan

    with pytest.raises(FloatingPointError, match="nan at step 1 of seed 9"):
        next(train(UNet(SMALL), SCHEDULE, patches, TrainConfig(seed=9), explode, progress=False))


def test_images_of_any_real_type_are_trained_on_as_float32(patches):
    def losses(change):
        torch.manual_seed(0)
        items = [{key: change(x) if torch.is_tensor(x) else x for key, x in patch.items()} for patch in patches]
        return [step.loss for step in train(DAMMNet(SMALL), SCHEDULE, items, TrainConfig(3, 4), progress=False)]

    expected = losses(lambda x: x)
    assert losses(torch.Tensor.double) == expected == losses(torch.Tensor.numpy)
    assert losses(torch.Tensor.half) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", ["target", "primary", "secondary"])
@pytest.mark.parametrize("change", [lambda x: (x + 1) * 127.5, lambda x: ((x + 1) * 127.5).byte(), lambda x: x - 2])
def test_images_of_another_range_are_refused_before_a_step(patches, name, change):
    items = [patch | {name: change(patch[name])} for patch in patches]
    with pytest.raises(ValueError, match=rf"{name}: expected values in \[-1, 1\], got some up to"):
        next(train(DAMMNet(SMALL), SCHEDULE, items, TrainConfig(3, 4), progress=False))


def test_batches_are_a_function_of_seed_and_step():
    config = TrainConfig(num_steps=5, batch_size=4, seed=2)
    long = list(StepSampler(100, TrainConfig(num_steps=50, batch_size=4, seed=2)))
    assert list(StepSampler(100, config)) == long[:5]
    assert all(len(set(batch)) == 4 for batch in long)
    assert all(0 <= index < 3 for batch in StepSampler(3, config) for index in batch)


def test_noise_is_standard_and_steps_cover_the_schedule():
    generator = torch.Generator().manual_seed(0)
    batch = {"target": torch.rand(4000, 1, 2, 2), "kind": ["none"] * 4000}
    ready = prepare(SCHEDULE, PredictsVelocity, batch, generator)
    t, eps = ready["t"], ready["eps"]
    assert t.min() < 10 and t.max() > 989 and abs(t.float().mean() - 499.5) < 20
    assert abs(eps.mean()) < 0.02 and abs(eps.std() - 1) < 0.02
    torch.testing.assert_close(ready["xt"], SCHEDULE.add_noise(batch["target"], eps, t))
    torch.testing.assert_close(ready["output_target"], PredictsVelocity.target(SCHEDULE, batch["target"], eps, t))


def test_made_mismatches_say_where_they_are():
    secondary = torch.rand(16, 2, 24, 24) * 2 - 1
    corrupted, trusted = make_mismatches(secondary, torch.Generator().manual_seed(0), fraction=0.5)
    assert trusted.shape == (16, 1, 24, 24) and set(trusted.unique().tolist()) == {0.0, 1.0}
    touched = (corrupted != secondary).flatten(1).any(1)
    assert touched.sum() == 8 and torch.equal(touched, (trusted == 0).flatten(1).any(1))
    assert torch.equal(corrupted * trusted, secondary * trusted)  # untouched where trusted
    again, _ = make_mismatches(secondary, torch.Generator().manual_seed(0), fraction=0.5)
    assert torch.equal(corrupted, again)
    untouched, trusted = make_mismatches(secondary, torch.Generator().manual_seed(0), fraction=0)
    assert torch.equal(untouched, secondary) and trusted.all()


def test_each_mismatch():
    one, others = torch.rand(1, 24, 24), torch.rand(2, 1, 24, 24)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(swap(one, others, generator)[0], others[0])
    assert torch.equal(swap(one, torch.stack([one, others[1]]), generator)[0], others[1]), "never with an equal image"
    moved, trusted = shift(one, others, generator)
    assert not trusted.any() and torch.equal(moved.flatten().sort().values, one.flatten().sort().values)
    lost, trusted = cutout(one, others, generator)
    assert 0.15 < 1 - trusted.mean() < 0.65
    assert (lost[trusted == 0] == BACKGROUND).all() and torch.equal(lost[trusted == 1], one[trusted == 1])


@pytest.mark.parametrize("patches_there, batch", [(300, 1), (300, 2), (300, 3), (4, 8), (9, 32), (1, 4)])
def test_a_mismatch_always_mismatches_and_their_share_is_the_one_asked_for(patches_there, batch):
    data = torch.rand(patches_there, 1, 16, 16) * 2 - 1
    touched = wrong = 0
    for step, rows in enumerate(StepSampler(patches_there, TrainConfig(num_steps=400, batch_size=batch))):
        corrupted, trusted = make_mismatches(data[rows], generator_of(step))
        for before, after, right in zip(data[rows], corrupted, trusted, strict=True):
            touched += not right.all()
            wrong += bool(not right.all() and torch.equal(before, after))
    assert wrong == 0
    assert abs(touched / (400 * batch) - 0.25) < 4 * (0.25 * 0.75 / (400 * batch)) ** 0.5


def test_what_cannot_be_corrupted_is_trusted():
    background = torch.full((4, 1, 16, 16), BACKGROUND)
    corrupted, trusted = make_mismatches(background, generator_of(0), fraction=1.0)
    assert torch.equal(corrupted, background) and trusted.all()


@pytest.mark.parametrize("loss", [our_loss, released_loss, warmup_loss])
@pytest.mark.parametrize("wrong", ["target", "secondary", "rate"])
def test_a_run_that_diverges_says_at_which_step(patches, loss, wrong):
    config = TrainConfig(12, 3, learning_rate=1e18 if wrong == "rate" else 1e-3, warmup_steps=0, seed=9)
    broken = [patch | {wrong: torch.full((1, 16, 16), math.nan)} if wrong != "rate" else patch for patch in patches]
    torch.manual_seed(0)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+ of seed 9"):
        list(train(DAMMNet(SMALL), SCHEDULE, broken, config, loss, progress=False))


def test_losses_that_are_read_late_name_the_right_step():
    check_losses([1.0] * READ_EVERY, 26, seed=4)
    with pytest.raises(FloatingPointError, match="inf at step 28 of seed 4"):
        check_losses([1.0, 2.0, math.inf, math.nan], 26, seed=4)


@pytest.mark.parametrize(
    "given",
    [dict(seed=np.arange(3)[1]), dict(num_steps=np.int64(3)), dict(learning_rate=np.float32(1e-3)), dict(corrupted=1)],
)
def test_numbers_of_numpy_become_pythons(given):
    ((name, value),) = given.items()
    found = getattr(TrainConfig(**given), name)
    assert found == value and type(found) in (int, float)
    json.dumps(asdict(TrainConfig(**given)))
    json.dumps(asdict(UNetConfig(widths=np.array([16, 16, 24, 32]), time_dim=np.int32(32))))


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(learning_rate="1e-3"), "learning_rate: expected a real number, got '1e-3'"),
        (dict(seed=None), "seed: expected a whole number, got None"),
        (dict(seed=-1), "seed: expected a number from 0"),
        (dict(batch_size=0), "batch_size: expected a number from 1"),
        (dict(num_steps=2.0), "num_steps: expected a whole number, got 2.0"),
        (dict(num_steps=True), "num_steps: expected a whole number, got True"),
        (dict(corrupted=1.5), "corrupted: expected a number from 0 to 1"),
        (dict(learning_rate=math.nan), "learning_rate: expected a number from 0"),
    ],
)
def test_what_is_no_setting_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**given)
