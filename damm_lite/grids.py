"""At which noising steps a sampler stops on its way down.

A grid is a list of steps from T - 1 down to 0, spread evenly on one scale or
another: where a sampler's error grows with the steps on a scale, they are
best even on it.
"""

import torch

from damm_lite.schedules import NoiseSchedule


def timestep_grid(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """Steps from T - 1 down to 0, `num_steps` of them, evenly spread and
    truncated to integers.
    """
    last = len(schedule) - 1
    if not 1 <= num_steps <= last + 1:
        raise ValueError(f"num_steps: expected 1..{last + 1}, got {num_steps}")
    # One step alone is the one from pure noise.
    grid = torch.linspace(0, last, num_steps, dtype=torch.float64) if num_steps > 1 else torch.tensor([last])
    return grid.long().flip(0).tolist()


def log_snr_grid(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """Steps from T - 1 down to 0, evenly spread on the scale lambda =
    log(signal / noise).

    Rounding to whole steps can make some coincide: at most `num_steps` are
    returned.
    """
    a = schedule.alphas_cumprod.double()
    return _even_grid(schedule, torch.log(a / (1 - a)) / 2, num_steps)


def path_grid(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """The same, evenly spread on the straight path: by tau = noise /
    (signal + noise).
    """
    a = schedule.alphas_cumprod.double()
    return _even_grid(schedule, (1 - a).sqrt() / (a.sqrt() + (1 - a).sqrt()), num_steps)


def _even_grid(schedule, scale, num_steps):
    """The steps nearest to values that are evenly spread on a scale (T,)."""
    timestep_grid(schedule, num_steps)  # checks num_steps
    wanted = torch.linspace(scale[-1].item(), scale[0].item(), num_steps, dtype=torch.float64)
    nearest = (scale[None] - wanted[:, None]).abs().argmin(dim=1)  # (num_steps,)
    return sorted(set(nearest.tolist()), reverse=True)
