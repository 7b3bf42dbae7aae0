"""Samplers against diffusers, the reference numbers and a Gaussian whose answer is known."""

import diffusers
import pytest
import torch

from conftest import relative_error
from damm_lite.samplers import (
    ddim_sampler,
    ddim_step,
    ddpm_sampler,
    dpm_sampler,
    log_snr_grid,
    posterior,
    timestep_grid,
)
from damm_lite.schedules import scaled_linear_schedule

SCHEDULE = scaled_linear_schedule()
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.002, "beta_end": 0.02}


def denoiser(xt, t):
    """Some smooth function of xt and t, not an optimal one."""
    return torch.tanh(xt) * (0.5 + t.view(-1, *[1] * (xt.ndim - 1)) / 2000)


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
        got = x0 if t_next < 0 else ddim_step(SCHEDULE, x0, eps, steps, next_steps, eta=eta, z=z)
        assert relative_error(got, expected) <= 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_step_equals_diffusers(eta):
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps[:-1]:
        xt, z = torch.randn(2, 3, 1, 4, 4).double()
        steps = t.expand(3)
        eps = denoiser(xt, steps)
        x0 = SCHEDULE.predict_x0(xt, eps, steps)
        ours = ddim_step(SCHEDULE, x0, eps, steps, steps - 50, eta=eta, z=z)
        theirs = scheduler.step(eps, t, xt, eta=eta, variance_noise=z).prev_sample
        assert relative_error(ours, theirs) <= 1e-6


def test_ddim_all_steps_equals_diffusers():
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(1000)
    noise = torch.randn(2, 1, 4, 4)
    xt = noise.double()
    for t in scheduler.timesteps:
        xt = scheduler.step(denoiser(xt, t.expand(2)), t, xt).prev_sample
    # Ours in double precision too: what is compared is the method.
    assert relative_error(ddim_sampler(denoiser, SCHEDULE, noise.double(), 1000), xt) <= 1e-6


def test_ddpm_equals_diffusers():
    scheduler = diffusers.DDPMScheduler(**BETAS, clip_sample=False, variance_type="fixed_small")
    noise = torch.randn(2, 1, 4, 4).double()
    ours = ddpm_sampler(denoiser, SCHEDULE, noise, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    xt = noise
    for t in scheduler.timesteps:
        xt = scheduler.step(denoiser(xt, t.expand(2)), t, xt, generator=generator).prev_sample
    assert relative_error(ours, xt) <= 1e-5


def test_ddim_with_eta_one_is_ddpm():
    noise = torch.randn(2, 1, 4, 4).double()
    ddpm = ddpm_sampler(denoiser, SCHEDULE, noise, generator=torch.Generator().manual_seed(3))
    ddim = ddim_sampler(denoiser, SCHEDULE, noise, 1000, eta=1.0, generator=torch.Generator().manual_seed(3))
    assert relative_error(ddim, ddpm) <= 1e-6


@pytest.mark.parametrize("num_steps", [2, 10, 20])
def test_dpm_equals_diffusers(num_steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, solver_order=2, algorithm_type="dpmsolver++", lower_order_final=False,
        timestep_spacing="linspace", final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(timesteps=log_snr_grid(SCHEDULE, num_steps))
    noise = torch.randn(2, 1, 4, 4).double()
    xt = noise
    for t in scheduler.timesteps:
        xt = scheduler.step(denoiser(xt, t.expand(2)), t, xt).prev_sample
    assert relative_error(dpm_sampler(denoiser, SCHEDULE, noise, num_steps), xt) <= 1e-5


class Gaussian:
    """Data from N(mean, std²): the best eps, and where the noiseless ODE carries each point."""

    mean, std = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.5, 1.5]).double()

    def __init__(self, schedule=SCHEDULE):
        self.schedule = schedule

    def eps(self, xt, t):
        a = self.schedule.at(t, xt)
        return (1 - a).sqrt() / (a * self.std**2 + 1 - a) * (xt - a.sqrt() * self.mean)

    def carried(self, noise):
        """Where the probability flow takes x_T: to step 0 (linearly, keeping how many standard
        deviations it is off the mean), and from there to the mean of x0."""
        first, last = self.schedule.alphas_cumprod.double()[[0, -1]]
        scale = ((first * self.std**2 + 1 - first) / (last * self.std**2 + 1 - last)).sqrt()
        xt = first.sqrt() * self.mean + scale * (noise - last.sqrt() * self.mean)
        steps = torch.zeros(len(noise), dtype=torch.long)
        return self.schedule.predict_x0(xt, self.eps(xt, steps), steps)


def test_samplers_converge_to_the_closed_form_at_their_order():
    # A schedule so fine that rounding to whole steps does not show.
    schedule = scaled_linear_schedule(20_000, beta_start=1e-4, beta_end=1e-3)
    gaussian, noise = Gaussian(schedule), torch.randn(64, 2).double()
    exact = gaussian.carried(noise)

    def errors(sampler):
        runs = [sampler(gaussian.eps, schedule, noise, n) for n in (20, 40, 80)]
        return [float((x0 - exact).abs().max()) for x0 in runs]

    ddim, dpm = errors(ddim_sampler), errors(dpm_sampler)
    assert 1.8 < ddim[0] / ddim[1] < 2.2 and 1.8 < ddim[1] / ddim[2] < 2.2  # first order
    assert dpm[0] / dpm[1] > 3.2 and dpm[1] / dpm[2] > 3.2  # second order
    assert dpm[0] < ddim[0] / 4


def test_ddpm_reproduces_mean_and_covariance():
    gaussian = Gaussian()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 2, generator=generator).double()
    x0 = ddpm_sampler(gaussian.eps, SCHEDULE, noise, generator=generator)
    assert (x0.mean(0) - gaussian.mean).abs().max() < 0.04
    assert (x0.std(0) / gaussian.std - 1).abs().max() < 0.03
    assert torch.corrcoef(x0.T)[0, 1].abs() < 0.03


SAMPLERS = {ddpm_sampler: 1000, ddim_sampler: 20, dpm_sampler: 10}  # and how many steps each takes, if none are named


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_step_is_shown_and_nothing_changes_its_type(sampler):
    noise, seen = torch.randn(2, 3), []
    x0 = sampler(denoiser, SCHEDULE, noise, callback=lambda t, xt, x0: seen.append((t, xt, x0)))
    assert len(seen) == SAMPLERS[sampler] and [seen[0][0], seen[-1][0]] == [999, 0]
    assert torch.equal(seen[0][1], noise) and torch.equal(seen[-1][2], x0)
    for t, xt, estimate in seen[:20]:
        steps = torch.full((2,), t)
        assert torch.equal(estimate, SCHEDULE.predict_x0(xt, denoiser(xt, steps), steps))
        assert xt.dtype == estimate.dtype == torch.float32 and xt.shape == estimate.shape == noise.shape


def test_noise_is_drawn_by_the_generator_and_only_where_it_is_used():
    noise = torch.randn(2, 3)
    before = torch.get_rng_state()
    plain = ddim_sampler(denoiser, SCHEDULE, noise, 6)
    same = ddim_step(SCHEDULE, noise, noise, torch.tensor([500, 400]), torch.tensor([100, 50]))
    runs = [
        ddim_sampler(denoiser, SCHEDULE, noise, 6, eta=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before), "nothing came from the common generator"
    assert torch.equal(*runs[:2]) and not torch.equal(*runs[1:]) and not torch.equal(runs[0], plain)
    a = SCHEDULE.at(torch.tensor([100, 50]), noise)
    torch.testing.assert_close(same, ((a.sqrt() + (1 - a).sqrt()) * noise).float())  # eq. 12 at sigma = 0


def test_posterior_keeps_the_type():
    mean, variance = posterior(SCHEDULE, torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0, 700]))
    assert mean.dtype == variance.dtype == torch.float32


def test_grids_are_spread_from_the_noisiest_step_to_the_first():
    assert timestep_grid(SCHEDULE, 1) == [999] and timestep_grid(SCHEDULE, 2) == [999, 0]
    assert timestep_grid(SCHEDULE, 1000) == list(range(999, -1, -1))
    assert timestep_grid(SCHEDULE, 4) == [999, 666, 333, 0]
    a = SCHEDULE.alphas_cumprod.double()
    snr = torch.log(a / (1 - a))
    grid = log_snr_grid(SCHEDULE, 5)
    assert grid[0] == 999 and grid[-1] == 0
    distance = (snr[grid].diff() - (snr[0] - snr[-1]) / 4).abs()
    assert (distance < 2 * snr.diff().abs().max()).all(), "evenly, up to rounding to whole steps"


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_number_of_steps_is_checked(num_steps):
    with pytest.raises(ValueError, match=r"num_steps: expected 1\.\.1000"):
        timestep_grid(SCHEDULE, num_steps)
