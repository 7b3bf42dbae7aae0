"""Samplers against diffusers, the reference numbers and a Gaussian whose answer is known."""

from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from damm_lite.grids import log_snr_grid, path_grid, timestep_grid
from damm_lite.samplers import (
    ddim_sampler,
    ddim_step,
    ddpm_sampler,
    dpm_sampler,
    dpm_step,
    heun_sampler,
    normal_like,
    posterior,
)
from damm_lite.schedules import cosine_schedule, scaled_linear_schedule, straight_schedule
from helpers import relative_error

SCHEDULE = scaled_linear_schedule()
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.002, "beta_end": 0.02}


def some_eps(xt, t):
    """Some smooth function of xt and t, not an optimal one."""
    return torch.tanh(xt) * (0.5 + t.view(-1, *[1] * (xt.ndim - 1)) / 2000)


def denoiser(xt, t):
    """The x0 that it implies."""
    return SCHEDULE.predict_x0(xt, some_eps(xt, t), t)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("n", [5, 1000])
@pytest.mark.parametrize("eta", [0, 1])
def test_ddim_step_reference_numbers(vectors, n, eta):
    arrays = {k.removeprefix(f"ddim{n}_eta{eta}_"): v for k, v in vectors("schedule").items()}
    grid = timestep_grid(SCHEDULE, n)
    for i, (t, t_next) in enumerate(zip(arrays["t"].tolist(), arrays["t_next"].tolist(), strict=True)):
        assert t in grid
        assert t_next == -1 or grid[grid.index(t) + 1] == t_next
        xt, eps, z, expected = (arrays[key][i] for key in ("x_in", "eps", "z", "x_out"))
        steps, next_steps = torch.full((len(xt),), t), torch.full((len(xt),), t_next)
        x0 = SCHEDULE.predict_x0(xt, eps, steps)
        got = ddim_step(SCHEDULE, xt, x0, steps, next_steps, eta=eta, z=z)
        assert relative_error(got, expected) <= 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_step_equals_diffusers(eta):
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps[:-1]:
        xt, z = torch.randn(2, 3, 1, 4, 4).double()
        steps = t.expand(3)
        eps = some_eps(xt, steps)
        x0 = SCHEDULE.predict_x0(xt, eps, steps)
        ours = ddim_step(SCHEDULE, xt, x0, steps, steps - 50, eta=eta, z=z)
        theirs = scheduler.step(eps, t, xt, eta=eta, variance_noise=z).prev_sample
        assert relative_error(ours, theirs) <= 1e-6


def test_ddim_all_steps_equals_diffusers():
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(1000)
    noise = torch.randn(2, 1, 4, 4)
    xt = noise.double()
    for t in scheduler.timesteps:
        xt = scheduler.step(some_eps(xt, t.expand(2)), t, xt).prev_sample
    # Ours in double precision too: what is compared is the method.
    assert relative_error(ddim_sampler(denoiser, SCHEDULE, noise.double(), 1000), xt) <= 1e-6


def test_ddpm_equals_diffusers():
    scheduler = diffusers.DDPMScheduler(**BETAS, clip_sample=False, variance_type="fixed_small")
    noise = torch.randn(1, 1, 4, 4).double()
    ours = ddpm_sampler(denoiser, SCHEDULE, noise, generators=generators(3))
    xt, (generator,) = noise, generators(3)
    for t in scheduler.timesteps:
        xt = scheduler.step(some_eps(xt, t.expand(1)), t, xt, generator=generator).prev_sample
    assert relative_error(ours, xt) <= 1e-5


@pytest.mark.parametrize("num_steps", [20, 1000])
def test_ddim_with_eta_one_is_ddpm(num_steps):
    noise = torch.randn(2, 1, 4, 4).double()
    ddpm = ddpm_sampler(denoiser, SCHEDULE, noise, num_steps, generators(3, 4))
    ddim = ddim_sampler(denoiser, SCHEDULE, noise, num_steps, generators(3, 4), eta=1.0)
    assert relative_error(ddim, ddpm) <= 1e-6


@pytest.mark.parametrize("num_steps", [2, 10, 20])
@pytest.mark.parametrize("eta, algorithm", [(0.0, "dpmsolver++"), (1.0, "sde-dpmsolver++")])
def test_dpm_equals_diffusers(num_steps, eta, algorithm):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, solver_order=2, algorithm_type=algorithm, lower_order_final=False,
        timestep_spacing="linspace", final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(timesteps=log_snr_grid(SCHEDULE, num_steps))
    noise = torch.randn(2, 1, 4, 4).double()
    xt, drawn = noise, generators(1, 2)
    for t in scheduler.timesteps:
        z = normal_like(xt, drawn) if eta and t > 0 else None
        xt = scheduler.step(some_eps(xt, t.expand(2)), t, xt, variance_noise=z).prev_sample
    ours = dpm_sampler(denoiser, SCHEDULE, noise, num_steps, generators(1, 2), eta=eta)
    assert relative_error(ours, xt) <= 1e-5


class Gaussian:
    """Data from N(mean, std²): the best x0, and where the noiseless ODE carries each point."""

    mean, std = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.5, 1.5]).double()

    def __init__(self, schedule=SCHEDULE):
        self.schedule = schedule

    def x0(self, xt, t):
        """The mean of x0 given xt, by Bayes' rule."""
        a = self.schedule.at(t, xt)
        gain = a.sqrt() * self.std**2 / (a * self.std**2 + 1 - a)
        return self.mean + gain * (xt - a.sqrt() * self.mean)

    def carried(self, noise):
        """Where the probability flow takes x_T: to step 0 (linearly, keeping how many standard
        deviations it is off the mean), and from there to the mean of x0."""
        first, last = self.schedule.alphas_cumprod.double()[[0, -1]]
        scale = ((first * self.std**2 + 1 - first) / (last * self.std**2 + 1 - last)).sqrt()
        xt = first.sqrt() * self.mean + scale * (noise - last.sqrt() * self.mean)
        return self.x0(xt, torch.zeros(len(noise), dtype=torch.long))


def test_samplers_converge_to_the_closed_form_at_their_order():
    # A schedule so fine that rounding to whole steps does not show.
    schedule = scaled_linear_schedule(20_000, beta_start=1e-4, beta_end=1e-3)
    gaussian, noise = Gaussian(schedule), torch.randn(64, 2).double()
    exact = gaussian.carried(noise)

    def errors(sampler, steps=(20, 40, 80)):
        runs = [sampler(gaussian.x0, schedule, noise, n) for n in steps]
        return [float((x0 - exact).abs().max()) for x0 in runs]

    ddim, dpm, heun = errors(ddim_sampler), errors(dpm_sampler), errors(heun_sampler, (80, 160, 320))
    assert 1.8 < ddim[0] / ddim[1] < 2.2 and 1.8 < ddim[1] / ddim[2] < 2.2  # first order
    assert dpm[0] / dpm[1] > 3.2 and dpm[1] / dpm[2] > 3.2  # second order
    assert heun[0] / heun[1] > 3.2 and heun[1] / heun[2] > 3.2
    assert dpm[0] < ddim[0] / 4 and heun[0] < ddim[2] / 4, "and to the same place"


def test_heuns_method_evaluates_twice_a_step_but_for_the_last():
    def evaluations(num_steps):
        seen = []
        heun_sampler(lambda xt, t: seen.append(t) or denoiser(xt, t), SCHEDULE, torch.randn(2, 3), num_steps)
        return len(seen)

    assert [evaluations(n) for n in (1, 2, 3, 6, 7, 20, 21)] == [1, 3, 3, 7, 7, 21, 21]


def test_a_dpm_step_adds_no_noise_unless_it_is_told_to():
    xt, x0 = torch.randn(2, 2, 3).double()
    assert torch.equal(dpm_step(SCHEDULE, xt, x0, 500, 100), dpm_step(SCHEDULE, xt, x0, 500, 100, eta=0.0))


def test_eulers_method_on_the_straight_path_is_ddim():
    """Flow matching, written as such: x moves by (tau' - tau) u."""
    schedule, noise = straight_schedule(200), torch.randn(3, 4).double()

    def velocity(x, tau):
        a = schedule.at(round(tau * 201) - 1, x)
        return (x - denoise((a.sqrt() + (1 - a).sqrt()) * x, None)) / tau

    def denoise(xt, t):
        return torch.tanh(xt)

    grid = timestep_grid(schedule, 10)
    taus = [(t + 1) / 201 for t in grid] + [0.0]
    total = schedule.at(grid[0], noise)
    x = noise / (total.sqrt() + (1 - total).sqrt())
    for tau, tau_next in zip(taus[:-1], taus[1:], strict=True):
        x = x + (tau_next - tau) * velocity(x, tau)
    torch.testing.assert_close(ddim_sampler(denoise, schedule, noise, 10), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", [ddpm_sampler, partial(dpm_sampler, num_steps=100, eta=1.0)])
def test_samplers_with_noise_reproduce_mean_and_covariance(sampler):
    gaussian = Gaussian()
    x0 = sampler(gaussian.x0, SCHEDULE, torch.randn(20000, 2).double())
    assert (x0.mean(0) - gaussian.mean).abs().max() < 0.04
    assert (x0.std(0) / gaussian.std - 1).abs().max() < 0.03
    assert torch.corrcoef(x0.T)[0, 1].abs() < 0.03


SAMPLERS = {
    ddpm_sampler: 1000,
    ddim_sampler: 20,
    dpm_sampler: 10,
    heun_sampler: 11,
}  # and how many steps each takes, if none are named


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_step_is_shown_and_nothing_changes_its_type(sampler):
    noise, seen = torch.randn(2, 3), []
    x0 = sampler(denoiser, SCHEDULE, noise, callback=lambda t, xt, x0: seen.append((t, xt, x0)))
    assert len(seen) == SAMPLERS[sampler] and [seen[0][0], seen[-1][0]] == [999, 0]
    assert torch.equal(seen[0][1], noise) and torch.equal(seen[-1][2], x0)
    for t, xt, estimate in seen[:20]:
        assert torch.equal(estimate, denoiser(xt, torch.full((2,), t)))
        assert xt.dtype == estimate.dtype == torch.float32 and xt.shape == estimate.shape == noise.shape


@pytest.mark.parametrize("sampler", [ddpm_sampler, partial(ddim_sampler, eta=1.0), partial(dpm_sampler, eta=1.0)])
def test_a_sample_depends_on_its_own_generator_alone(sampler):
    noise, before = torch.randn(3, 4), torch.get_rng_state()
    whole, again, others = (
        sampler(denoiser, SCHEDULE, noise, 6, generators(*s)) for s in ((1, 2, 3), (1, 2, 3), (1, 5, 6))
    )
    alone = sampler(denoiser, SCHEDULE, noise[2:], 6, generators(3))
    assert torch.equal(whole, again) and torch.equal(whole[2:], alone)
    assert torch.equal(whole[0], others[0]) and not torch.equal(whole[1], others[1])
    assert torch.equal(torch.get_rng_state(), before), "nothing came from the common generator"


@pytest.mark.parametrize("sampler", [ddim_sampler, dpm_sampler, heun_sampler])
def test_samplers_without_noise_draw_none(sampler):
    used = generators(1, 2)
    x0 = sampler(denoiser, SCHEDULE, torch.ones(2, 3), 6, used)
    assert all(torch.equal(g.get_state(), h.get_state()) for g, h in zip(used, generators(1, 2), strict=True))
    assert torch.equal(x0, sampler(denoiser, SCHEDULE, torch.ones(2, 3), 6))


def test_a_step_without_noise_is_equation_12():
    xt, x0, t, t_next = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([500, 400]), torch.tensor([100, 50])
    a, a_next = SCHEDULE.at(t, xt), SCHEDULE.at(t_next, xt)
    eps = (xt - a.sqrt() * x0) / (1 - a).sqrt()
    expected = a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps
    torch.testing.assert_close(ddim_step(SCHEDULE, xt, x0, t, t_next), expected.float())


def test_an_estimate_kept_in_range_keeps_samples_in_range():
    """Noise prediction under the cosine schedule: an error of 0.01 in eps is one of 200 in x0 at the last step."""
    schedule = cosine_schedule()

    def wrong(xt, t):
        return schedule.predict_x0(xt, xt + 0.01, t)

    noise = torch.randn(4, 5)
    kept = ddim_sampler(lambda xt, t: wrong(xt, t).clamp(-1, 1), schedule, noise, 20)
    assert kept.abs().max() <= 1 and (kept.abs() < 0.999).any()
    assert ddim_sampler(wrong, schedule, noise, 20).abs().min() > 5


def test_posterior_keeps_the_type():
    mean, variance = posterior(SCHEDULE, *torch.randn(2, 2, 3), torch.tensor([0, 700]), torch.tensor([-1, 699]))
    assert mean.dtype == variance.dtype == torch.float32


def test_grids_are_spread_from_the_noisiest_step_to_the_first():
    assert timestep_grid(SCHEDULE, 1) == [999] and timestep_grid(SCHEDULE, 2) == [999, 0]
    assert timestep_grid(SCHEDULE, 1000) == list(range(999, -1, -1))
    assert timestep_grid(SCHEDULE, 4) == [999, 666, 333, 0]
    a = SCHEDULE.alphas_cumprod.double()
    signal, noise = a.sqrt(), (1 - a).sqrt()
    for make, scale in ((log_snr_grid, torch.log(signal / noise)), (path_grid, -noise / (signal + noise))):
        grid = make(SCHEDULE, 5)
        assert grid[0] == 999 and grid[-1] == 0
        distance = (scale[grid].diff() - (scale[0] - scale[-1]) / 4).abs()
        assert (distance < 2 * scale.diff().abs().max()).all(), "evenly, up to rounding to whole steps"


@pytest.mark.parametrize("num_steps", [408, 517, 570, 796])  # where the nearest step hangs on the last bits
def test_grids_are_those_of_double_precision(num_steps):
    a = SCHEDULE.alphas_cumprod.double().numpy()
    signal, noise = np.sqrt(a), np.sqrt(1 - a)
    for make, scale in ((log_snr_grid, np.log(signal / noise)), (path_grid, noise / (signal + noise))):
        wanted = np.linspace(scale[-1], scale[0], num_steps)
        nearest = np.abs(scale - wanted[:, None]).argmin(axis=1)
        assert make(SCHEDULE, num_steps) == sorted(set(nearest.tolist()), reverse=True)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_number_of_steps_is_checked(num_steps):
    with pytest.raises(ValueError, match=r"num_steps: expected 1\.\.1000"):
        timestep_grid(SCHEDULE, num_steps)
