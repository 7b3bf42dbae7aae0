"""Noise schedules against diffusers, the reference numbers and algebra."""

import diffusers
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from damm_lite.prediction_types import (
    SD_OF_DATA,
    PredictsFlow,
    PredictsImage,
    PredictsNoise,
    PredictsPreconditioned,
    PredictsVelocity,
)
from damm_lite.samplers import ddim_step, dpm_step, posterior
from damm_lite.schedules import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    scaled_linear_schedule,
    shifted_schedule,
    straight_schedule,
)
from helpers import relative_error

TYPES = [PredictsNoise, PredictsVelocity, PredictsImage, PredictsFlow, PredictsPreconditioned]


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (scaled_linear_schedule, {"beta_schedule": "scaled_linear", "beta_start": 0.002, "beta_end": 0.02}),
        (linear_schedule, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (cosine_schedule, {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_schedules_equal_diffusers(ours, theirs):
    assert len(ours()) == 1000
    for length in (50, 1000):
        schedule, scheduler = ours(length), diffusers.DDPMScheduler(num_train_timesteps=length, **theirs)
        assert schedule.alphas_cumprod.dtype == torch.float32
        torch.testing.assert_close(schedule.alphas_cumprod, scheduler.alphas_cumprod, rtol=0, atol=1e-6)


def test_no_noise_is_left_before_the_first_step():
    schedule = linear_schedule(10)
    at = schedule.at(torch.tensor([-1, 0, 9]), torch.zeros(3, 2))
    expected = torch.cat([torch.ones(1), schedule.alphas_cumprod[[0, 9]]]).double()
    assert torch.equal(at, expected[:, None]) and at.dtype == torch.float64


def test_reference_numbers(vectors):
    arrays, schedule = vectors("schedule"), scaled_linear_schedule()
    assert relative_error(schedule.alphas_cumprod, arrays["alphas_cumprod"]) <= 1e-5
    x0, eps, t = arrays["x_0"], arrays["noise"], arrays["t"]
    xt = schedule.add_noise(x0, eps, t)
    assert relative_error(xt, arrays["x_t"]) <= 1e-5
    assert relative_error(schedule.predict_x0(arrays["x_t"], eps, t), arrays["x_0_est"]) <= 1e-5
    # The posterior of every step: x0 = 1, xt = 0 gives one coefficient, and so on.
    t, zero, one = torch.arange(1000), torch.zeros(1000, 1), torch.ones(1000, 1)
    coefficient1, variance = posterior(schedule, one, zero, t, t - 1)
    coefficient2, _ = posterior(schedule, zero, one, t, t - 1)
    assert relative_error(coefficient1[:, 0], arrays["posterior_mean_coef1"]) <= 1e-5
    assert relative_error(coefficient2[:, 0], arrays["posterior_mean_coef2"]) <= 1e-5
    assert relative_error(variance[:, 0], arrays["posterior_variance"]) <= 1e-5


@pytest.mark.parametrize("shape", [(7, 2), (7, 1, 8, 8)])
@pytest.mark.parametrize("prediction", TYPES)
def test_algebra_goes_round(shape, prediction):
    schedule = cosine_schedule(100)
    x0, eps, t = torch.randn(shape), torch.randn(shape), torch.tensor([0, 1, 20, 50, 70, 90, 95])
    xt = schedule.add_noise(x0, eps, t)
    torch.testing.assert_close(schedule.predict_x0(xt, eps, t), x0, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(schedule.predict_eps(xt, x0, t), eps, rtol=1e-3, atol=1e-3)
    output = prediction.target(schedule, x0, eps, t)
    torch.testing.assert_close(prediction.to_x0(schedule, xt, output, t), x0, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction, target", [(PredictsNoise, "eps"), (PredictsImage, "x0")])
def test_noise_and_image_are_what_they_say(prediction, target):
    images = {"x0": torch.randn(3, 1, 4, 4), "eps": torch.randn(3, 1, 4, 4)}
    found = prediction.target(scaled_linear_schedule(), **images, t=torch.tensor([0, 500, 999]))
    torch.testing.assert_close(found, images[target], rtol=0, atol=1e-6)


def test_the_flow_goes_straight_from_image_to_noise():
    schedule, t = straight_schedule(99), torch.tensor([9, 49, 89])
    x0, eps = torch.randn(2, 3, 5).double()
    tau = (t + 1)[:, None] / 100
    a = schedule.at(t, x0)
    on_path = schedule.add_noise(x0, eps, t) / (a.sqrt() + (1 - a).sqrt())
    torch.testing.assert_close(on_path, (1 - tau) * x0 + tau * eps, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(PredictsFlow.target(schedule, x0, eps, t), eps - x0)


@pytest.mark.parametrize(
    "make", [scaled_linear_schedule, linear_schedule, cosine_schedule, shifted_schedule, straight_schedule]
)
def test_a_schedule_has_a_thousand_steps_unless_it_is_told_otherwise(make):
    assert len(make()) == 1000 and len(make(400)) == 400


def test_a_shifted_schedule_is_the_straight_one_with_less_noise():
    straight, shifted = straight_schedule(999), shifted_schedule(999, first=0.001, last=0.999)
    sigmas = [((1 - a) / a).sqrt() for a in (s.alphas_cumprod.double() for s in (straight, shifted))]
    assert sigmas[1][499] == pytest.approx(0.3, rel=1e-5), "half of the steps lie below"
    np.testing.assert_allclose(sigmas[1][99:], 0.3 * sigmas[0][99:], rtol=1e-3)
    ours = shifted_schedule().alphas_cumprod.double()
    assert 0.002 < (1 - ours[0]).sqrt() < 0.004 and 1 / 700 < ours[-1].sqrt() < 1 / 500
    with pytest.raises(ValueError, match="alphas_cumprod"):
        straight_schedule(1_000_000)


def test_preconditioning_equals_diffusers():
    scheduler = diffusers.EDMEulerScheduler(sigma_data=SD_OF_DATA)
    schedule, t = scaled_linear_schedule(), torch.tensor([0, 30, 400, 999])
    xt, output = torch.randn(2, 4, 1, 4, 4).double()
    a = schedule.at(t, xt)
    sigma = ((1 - a) / a).sqrt()
    expected = scheduler.precondition_outputs(xt / a.sqrt(), output, sigma)
    torch.testing.assert_close(PredictsPreconditioned.to_x0(schedule, xt, output, t), expected)


def test_a_preconditioned_target_has_unit_size():
    schedule, generator = scaled_linear_schedule(), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 1, 200, 200, generator=generator)
    x0, t = SD_OF_DATA * x0, torch.tensor([5, 300, 990])
    target = PredictsPreconditioned.target(schedule, x0, eps, t)
    torch.testing.assert_close(target.square().mean(dim=(1, 2, 3)), torch.ones(3), rtol=0.02, atol=0)


def test_velocity_equals_diffusers():
    schedule = scaled_linear_schedule()
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.002, beta_end=0.02)
    x0, eps, t = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4), torch.tensor([0, 100, 500, 900, 999])
    torch.testing.assert_close(
        PredictsVelocity.target(schedule, x0, eps, t), scheduler.get_velocity(x0, eps, t), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(schedule.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t), rtol=0, atol=1e-5)


def test_a_schedule_cannot_be_changed_or_make_no_sense():
    schedule = linear_schedule()
    with pytest.raises(AttributeError):
        schedule.alphas_cumprod = torch.ones(3)
    for wrong in (
        [0.5, 0.6],
        [0.5, 0.5],
        [0.5, 0.4, 0.4],
        [1.0, 0.5],
        [1.5, 0.5],
        [0.5, 0.0],
        [0.5, -0.1],
        [],
        [[0.5, 0.4]],
    ):
        with pytest.raises(ValueError, match=r"^alphas_cumprod: expected a 1-D tensor .* inside \(0, 1\)$"):
            NoiseSchedule(torch.tensor(wrong))
    with pytest.raises(ValueError, match=r"\.\.999.*1000"):
        schedule.add_noise(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([1000]))
    with pytest.raises(ValueError, match=r"0\.\.999.*-1"):
        schedule.add_noise(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([-1]))


class LikeMPS(TorchDispatchMode):
    """Refuses what Apple's devices refuse, float64; the device `meta` stands in for one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if torch.is_tensor(x) and x.device.type == "meta" and x.dtype == torch.float64:
                raise TypeError("the MPS framework doesn't support float64")
        return out


@pytest.mark.parametrize("prediction", TYPES)
def test_no_double_precision_leaves_the_processor(prediction):
    schedule, xt, x0 = scaled_linear_schedule(), *torch.empty(2, 2, 1, 8, 8, device="meta")
    with LikeMPS():
        with pytest.raises(TypeError, match="float64"):
            schedule.at(5, xt).to("meta")
        prediction.to_x0(schedule, xt, x0, 500)
        prediction.target(schedule, x0, xt, 500)
        schedule.add_noise(x0, xt, 500)
        posterior(schedule, x0, xt, 500, 400)
        ddim_step(schedule, xt, x0, 500, 400, eta=1.0, z=xt)
        dpm_step(schedule, xt, x0, 500, 400, eta=1.0, z=xt)
