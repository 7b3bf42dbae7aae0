"""From noise to an image: samplers are functions over a denoiser.

A denoiser is any callable (xt, t) -> eps with xt (B, ...) and t (B,); what it is conditioned
on is its own business. `callback(t, xt, x0)`, if given, sees each step's input and estimate.
"""

import torch


def timestep_grid(schedule, num_steps):
    """Steps from T - 1 down to 0, `num_steps` of them, evenly spread and truncated to integers."""
    last = len(schedule) - 1
    if not 1 <= num_steps <= last + 1:
        raise ValueError(f"num_steps: expected 1..{last + 1}, got {num_steps}")
    # One step alone is the one from pure noise.
    grid = torch.linspace(0, last, num_steps, dtype=torch.float64) if num_steps > 1 else torch.tensor([last])
    return grid.long().flip(0).tolist()


def log_snr_grid(schedule, num_steps):
    """Steps from T - 1 down to 0, evenly spread on the scale lambda = log(signal / noise).

    Rounding to whole steps can make some coincide: at most `num_steps` are returned.
    """
    timestep_grid(schedule, num_steps)  # checks num_steps
    a = schedule.alphas_cumprod.double()
    lambda_ = torch.log(a / (1 - a)) / 2
    wanted = torch.linspace(lambda_[-1].item(), lambda_[0].item(), num_steps, dtype=torch.float64)
    nearest = (lambda_[None] - wanted[:, None]).abs().argmin(dim=1)  # (num_steps,)
    return sorted(set(nearest.tolist()), reverse=True)


def _steps(denoiser, schedule, xt, timesteps, update, callback):
    """Walk down `timesteps`; `update(xt, eps, x0, t, t_next)` gives the next xt."""
    for t, t_next in zip(timesteps, [*timesteps[1:], -1], strict=True):
        steps = torch.full((len(xt),), t, device=xt.device)
        eps = denoiser(xt, steps)
        x0 = schedule.predict_x0(xt, eps, steps)
        if callback:
            callback(t, xt, x0)
        xt = x0 if t_next < 0 else update(xt, eps, x0, steps, torch.full_like(steps, t_next))
    return xt


def ddpm_sampler(denoiser, schedule, noise, *, generator=None, callback=None):
    """Ancestral sampling through all T steps (Ho et al. 2020, algorithm 2).

    Each step draws from q(x_{t-1} | xt, x0) at the estimated x0, whose mean and variance are
    equations 6 and 7. `noise` (B, ...) is x_T; `generator` draws the noise of each step.
    """

    def update(xt, eps, x0, t, t_next):
        mean, variance = posterior(schedule, x0, xt, t)
        return mean + variance.sqrt() * _normal_like(xt, generator)

    return _steps(denoiser, schedule, noise, range(len(schedule))[::-1], update, callback)


def posterior(schedule, x0, xt, t):
    """Mean and variance of q(x_{t-1} | xt, x0) (Ho et al. 2020, eq. 6 and 7); at t = 0, x0 and 0."""
    a, a_next = schedule.at(t, xt), schedule.at(t - 1, xt)
    beta = 1 - a / a_next
    mean_x0 = a_next.sqrt() * beta / (1 - a)
    mean_xt = (a / a_next).sqrt() * (1 - a_next) / (1 - a)
    variance = beta * (1 - a_next) / (1 - a)
    return mean_x0.to(x0.dtype) * x0 + mean_xt.to(xt.dtype) * xt, variance.to(xt.dtype)


def ddim_sampler(denoiser, schedule, noise, num_steps=20, *, eta=0.0, generator=None, callback=None):
    """DDIM (Song et al. 2021, eq. 12): `num_steps` evaluations; deterministic at eta = 0.

    eta = 1 with all T steps is ancestral sampling, and what the release does.
    """

    def update(xt, eps, x0, t, t_next):
        z = _normal_like(xt, generator) if eta else None
        return ddim_step(schedule, x0, eps, t, t_next, eta=eta, z=z)

    return _steps(denoiser, schedule, noise, timestep_grid(schedule, num_steps), update, callback)


def ddim_step(schedule, x0, eps, t, t_next, *, eta=0.0, z=None):
    """From step t to t_next (B,): x0 and eps mixed anew, with fresh noise z of size sigma if eta > 0."""
    a, a_next = schedule.at(t, x0), schedule.at(t_next, x0)
    variance = eta**2 * (1 - a / a_next) * (1 - a_next) / (1 - a)
    signal, direction, sigma = (c.sqrt().to(x0.dtype) for c in (a_next, 1 - a_next - variance, variance))
    step = signal * x0 + direction * eps
    return step + sigma * z if eta else step


def dpm_sampler(denoiser, schedule, noise, num_steps=10, *, callback=None):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one evaluation a step.

    It extrapolates x0 from the last two estimates on the scale lambda = log(signal / noise),
    on which its steps are evenly spread.
    """
    previous = None  # x0 and lambda of the step before

    def update(xt, eps, x0, t, t_next):
        nonlocal previous
        a, a_next = schedule.at(t, xt), schedule.at(t_next, xt)
        lambda_, lambda_next = (torch.log(b / (1 - b)) / 2 for b in (a, a_next))
        h = lambda_next - lambda_
        estimate = x0
        if previous is not None:
            x0_before, lambda_before = previous
            r = (h / (lambda_ - lambda_before)).to(x0.dtype)
            estimate = (1 + r / 2) * x0 - r / 2 * x0_before
        previous = x0, lambda_
        shrink = ((1 - a_next) / (1 - a)).sqrt().to(x0.dtype)
        gain = -(a_next.sqrt() * torch.expm1(-h)).to(x0.dtype)
        return shrink * xt + gain * estimate

    return _steps(denoiser, schedule, noise, log_snr_grid(schedule, num_steps), update, callback)


def _normal_like(x, generator):
    """Standard normal noise like x, drawn on the generator's device (results do not depend on x's)."""
    device = generator.device if generator else x.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
