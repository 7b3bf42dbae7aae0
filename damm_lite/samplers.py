"""From noise to an image: samplers are functions over a denoiser.

A denoiser is any callable (xt, t) -> x0, with xt and x0 (B, ...) and t (B,);
what it is conditioned on, and whether it keeps x0 in range, is its own
business. A sampler takes (denoiser, schedule, noise, num_steps, generators):
`noise` (B, ...) is where it begins, and `generators`, one for each sample,
draw whatever noise its steps need, so that a sample does not depend on what
else is in the batch; None is PyTorch's own generator. `callback(t, xt, x0)`,
if given, sees each step's input and estimate.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from damm_lite.grids import log_snr_grid, path_grid, timestep_grid
from damm_lite.schedules import NoiseSchedule, Steps

Denoiser = Callable[[Tensor, Tensor], Tensor]
Generators = Sequence[torch.Generator] | None
NO_NOISE = -1  # the step after t = 0


def ddpm_sampler(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    num_steps: int | None = None,
    generators: Generators = None,
    *,
    callback: Callable | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), through all T steps or
    `num_steps` of them.

    Each step draws from q(x_s | xt, x0) at the estimated x0, where s is the
    step that follows t.
    """
    xt, grid = noise, timestep_grid(schedule, num_steps or len(schedule))
    for t, t_next in pairwise([*grid, NO_NOISE]):
        x0 = denoiser(xt, _for_each(t, xt))
        if callback:
            callback(t, xt, x0)
        mean, variance = posterior(schedule, x0, xt, t, t_next)
        xt = mean + variance.sqrt() * normal_like(xt, generators)
    return xt


def posterior(
    schedule: NoiseSchedule,
    x0: Tensor,
    xt: Tensor,
    t: Steps,
    t_next: Steps,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x at t_next | xt, x0), t_next < t; x0 and 0 at
    t_next = -1.

    With t_next = t - 1 these are equations 6 and 7 of Ho et al. (2020).
    """
    a, a_next = schedule.at(t, xt), schedule.at(t_next, xt)
    beta = 1 - a / a_next
    mean_x0 = a_next.sqrt() * beta / (1 - a)
    mean_xt = (a / a_next).sqrt() * (1 - a_next) / (1 - a)
    variance = beta * (1 - a_next) / (1 - a)
    return mean_x0.to(x0) * x0 + mean_xt.to(xt) * xt, variance.to(xt)


def ddim_sampler(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    num_steps: int = 20,
    generators: Generators = None,
    *,
    eta: float = 0.0,
    callback: Callable | None = None,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12): `num_steps` evaluations; deterministic
    at eta = 0.

    eta = 1 with all T steps is ancestral sampling, and what the release does.

    >>> from damm_lite.schedules import cosine_schedule
    >>> noise = torch.tensor([[-3.0], [0.5]])
    >>> ddim_sampler(lambda xt, t: xt / 2, cosine_schedule(), noise, 1)
    tensor([[-1.5000],
            [ 0.2500]])
    """
    xt = noise
    for t, t_next in pairwise([*timestep_grid(schedule, num_steps), NO_NOISE]):
        x0 = denoiser(xt, _for_each(t, xt))
        if callback:
            callback(t, xt, x0)
        z = normal_like(xt, generators) if eta else None
        xt = ddim_step(schedule, xt, x0, t, t_next, eta=eta, z=z)
    return xt


def ddim_step(
    schedule: NoiseSchedule,
    xt: Tensor,
    x0: Tensor,
    t: Steps,
    t_next: Steps,
    *,
    eta: float = 0.0,
    z: Tensor | None = None,
) -> Tensor:
    """From step t to t_next: x0 and the eps it implies mixed anew, with noise
    z of size sigma if eta > 0.
    """
    a, a_next = schedule.at(t, x0), schedule.at(t_next, x0)
    variance = eta**2 * (1 - a / a_next) * (1 - a_next) / (1 - a)
    signal, sigma = a_next.sqrt().to(x0), variance.sqrt().to(x0)
    direction = (1 - a_next - variance).sqrt().to(x0)
    step = signal * x0 + direction * schedule.predict_eps(xt, x0, t)
    return step + sigma * z if eta else step


def heun_sampler(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    num_steps: int = 20,
    generators: Generators = None,
    *,
    callback: Callable | None = None,
) -> Tensor:
    """Heun's method on the straight path from noise to image: second order,
    about `num_steps` evaluations, two for each of its steps but the last, and
    no noise of its own.

    On x = xt / (signal + noise), with tau = noise / (signal + noise), the
    probability flow is dx / d tau = (x - x0) / tau. Euler's method on it is
    `ddim_sampler`; here the slope is the mean of those at both ends.
    """
    xt, grid = noise, path_grid(schedule, (num_steps + 2) // 2)
    for t, t_next in pairwise([*grid, NO_NOISE]):
        x0 = denoiser(xt, _for_each(t, xt))
        if callback:
            callback(t, xt, x0)
        if t_next == NO_NOISE:
            break
        (total, tau), (total_next, tau_next) = (_on_path(schedule, s, xt) for s in (t, t_next))
        x, slope = xt / total, (xt / total - x0) / tau
        guess = x + (tau_next - tau) * slope
        x0_next = denoiser(guess * total_next, _for_each(t_next, xt))
        slope = (slope + (guess - x0_next) / tau_next) / 2
        xt = (x + (tau_next - tau) * slope) * total_next
    return x0


def dpm_sampler(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Tensor,
    num_steps: int = 10,
    generators: Generators = None,
    *,
    eta: float = 0.0,
    callback: Callable | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one
    evaluation a step; deterministic at eta = 0.

    It extrapolates x0 from the last two estimates on the scale lambda =
    log(signal / noise), on which its steps are evenly spread. With eta > 0 a
    step also forgets a part of xt and puts fresh noise in its place, so that
    errors of early steps do not last; eta = 1 is SDE-DPM-Solver++(2M).
    """
    xt, before, grid = noise, None, log_snr_grid(schedule, num_steps)
    lengths = torch.stack([_log_snr(schedule, t, xt) for t in grid]).diff(dim=0)
    for i, (t, t_next) in enumerate(pairwise([*grid, NO_NOISE])):
        x0 = denoiser(xt, _for_each(t, xt))
        if callback:
            callback(t, xt, x0)
        if t_next == NO_NOISE:
            break
        estimate = x0
        if before is not None:
            estimate = extrapolated(x0, before, lengths[i] / lengths[i - 1])
        z = normal_like(xt, generators) if eta else None
        xt = dpm_step(schedule, xt, estimate, t, t_next, eta=eta, z=z)
        before = x0
    return x0


def extrapolated(x0: Tensor, x0_before: Tensor, r: Tensor) -> Tensor:
    """x0 half-way through a step that is r times as long as the one before,
    along the line through the last two estimates.
    """
    half = (r / 2).to(x0)
    return (1 + half) * x0 - half * x0_before


def dpm_step(
    schedule: NoiseSchedule,
    xt: Tensor,
    x0: Tensor,
    t: int,
    t_next: int,
    *,
    eta: float = 0.0,
    z: Tensor | None = None,
) -> Tensor:
    """From step t to t_next >= 0 with one x0 all the way; with noise z, (1 +
    eta) times as far, and the difference in noise put back, if eta > 0.
    """
    a, a_next = schedule.at(t, xt), schedule.at(t_next, xt)
    h = _log_snr(schedule, t_next, xt) - _log_snr(schedule, t, xt)
    shrink = ((1 - a_next) / (1 - a)).sqrt() * torch.exp(-eta * h)
    gain = -a_next.sqrt() * torch.expm1(-(1 + eta) * h)
    step = shrink.to(xt) * xt + gain.to(xt) * x0
    sigma = (-(1 - a_next) * torch.expm1(-2 * eta * h)).sqrt()
    return step + sigma.to(xt) * z if eta else step


def normal_like(x: Tensor, generators: Generators = None) -> Tensor:
    """Standard normal noise like x (B, ...); sample i of it from
    generators[i], whatever x's device and type.
    """
    if generators is None:
        return torch.randn_like(x)
    dtype = torch.promote_types(x.dtype, torch.float32)
    drawn = [torch.randn(x.shape[1:], generator=g, device=g.device, dtype=dtype) for g in generators]
    return torch.stack(drawn).to(x)


def _on_path(schedule, t, like):
    """signal + noise, and noise / (signal + noise), at step t."""
    a = schedule.at(t, like)
    signal, noise = a.sqrt(), (1 - a).sqrt()
    return (signal + noise).to(like), (noise / (signal + noise)).to(like)


def _log_snr(schedule, t, like):
    a = schedule.at(t, like)
    return torch.log(a / (1 - a)) / 2


def _for_each(t, xt):
    """Step t as (B,)."""
    return torch.full((len(xt),), t, device=xt.device)
