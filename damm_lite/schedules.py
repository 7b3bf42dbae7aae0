"""How noise is added, and what follows from it by algebra alone.

Noising step t = 0 .. T-1 turns an image x0 and Gaussian noise eps into

    xt = sqrt(a) x0 + sqrt(1 - a) eps,    a = alphas_cumprod[t]

(Ho et al. 2020, eq. 4). Step t = 0 already holds a little noise. Coefficients are computed in float64
on the CPU; the schedule is kept, and tensors returned, as float32.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Steps = Tensor | int  # one step for each sample, (B,), or one for all of them


@dataclass(frozen=True)
class NoiseSchedule:
    """An immutable schedule; `alphas_cumprod` is a float32 tensor (T,),
    falling from 1 to 0.
    """

    alphas_cumprod: Tensor

    def __post_init__(self):
        a = self.alphas_cumprod
        if a.ndim != 1 or not len(a) or not ((a > 0) & (a < 1)).all() or not (a[1:] < a[:-1]).all():
            raise ValueError("alphas_cumprod: expected a 1-D tensor that falls strictly inside (0, 1)")

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def signal_and_noise(self, t: Steps, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a) and sqrt(1 - a) at steps t, shaped to multiply `like` (B,
        ...), of its type and on its device.
        """
        if torch.as_tensor(t).min() < 0:
            raise ValueError(f"t: expected steps in 0..{len(self) - 1}, got {int(torch.as_tensor(t).min())}")
        a = self.at(t, like)
        return a.sqrt().to(like), (1 - a).sqrt().to(like)

    def at(self, t: Steps, like: Tensor) -> Tensor:
        """a at steps t, shaped to multiply `like` (B, ...); 1 (no noise) at t
        = -1. Float64, on the CPU.

        Raises ValueError for steps outside -1..T - 1.
        """
        t = torch.as_tensor(t, device="cpu")
        if t.min() < -1 or t.max() >= len(self):
            raise ValueError(f"t: expected steps in -1..{len(self) - 1}, got {int(t.min())}..{int(t.max())}")
        a = torch.cat([self.alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])  # a[-1] = 1
        return a[t].view(-1, *[1] * (like.ndim - 1))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Steps) -> Tensor:
        """xt (B, ...) from x0, eps (B, ...) and steps t."""
        signal, noise = self.signal_and_noise(t, x0)
        return signal * x0 + noise * eps

    def predict_x0(self, xt: Tensor, eps: Tensor, t: Steps) -> Tensor:
        """The x0 (B, ...) that xt and eps imply."""
        signal, noise = self.signal_and_noise(t, xt)
        return (xt - noise * eps) / signal

    def predict_eps(self, xt: Tensor, x0: Tensor, t: Steps) -> Tensor:
        """The eps (B, ...) that xt and x0 imply."""
        signal, noise = self.signal_and_noise(t, xt)
        return (xt - signal * x0) / noise


def from_betas(betas: Tensor) -> NoiseSchedule:
    """The schedule whose step t adds noise of variance betas[t] (T,), float64."""
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0).float())


def scaled_linear_schedule(
    num_train_steps: int = 1000,
    *,
    beta_start: float = 0.002,
    beta_end: float = 0.02,
) -> NoiseSchedule:
    """sqrt(beta) rises linearly (Rombach et al. 2022); the paper's constants
    by default.

    >>> len(scaled_linear_schedule())
    1000
    """
    ends, double = (beta_start**0.5, beta_end**0.5), torch.float64
    roots = torch.linspace(*ends, num_train_steps, dtype=double)
    return from_betas(roots**2)


def linear_schedule(num_train_steps: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """beta rises linearly (Ho et al. 2020)."""
    return from_betas(torch.linspace(beta_start, beta_end, num_train_steps, dtype=torch.float64))


def shifted_schedule(
    num_train_steps: int = 1000, *, middle: float = 0.3, first: float = 0.01, last: float = 0.9995
) -> NoiseSchedule:
    """Noise levels where there is something to learn: sigma = noise / signal is
    middle tau / (1 - tau), with tau spread evenly from `first` to `last`.

    It is `straight_schedule`, half of whose steps have less noise than signal,
    with that half moved to sigma < `middle` (Esser et al. 2024 move it the
    other way, for large images). The last step holds next to no signal, as the
    noise that samplers begin with holds none.
    """
    tau = torch.linspace(first, last, num_train_steps, dtype=torch.float64)
    return NoiseSchedule((1 / (1 + (middle * tau / (1 - tau)) ** 2)).float())


def straight_schedule(num_train_steps: int = 1000) -> NoiseSchedule:
    """The straight path of flow matching: at tau = (t + 1) / (T + 1), xt is (1 - tau) x0 + tau eps, scaled to the
    variance 1 that it has for data of variance 1. Of more than a few thousand steps the first would hold less noise
    than single precision tells from none: ValueError.
    """
    first, last = 1 / (num_train_steps + 1), num_train_steps / (num_train_steps + 1)
    return shifted_schedule(num_train_steps, middle=1.0, first=first, last=last)


def cosine_schedule(num_train_steps: int = 1000, *, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """alphas_cumprod falls as a squared cosine (Nichol and Dhariwal 2021, eq.
    17).
    """
    t = torch.arange(num_train_steps + 1, dtype=torch.float64) / num_train_steps
    a = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - a[1:] / a[:-1]).clamp(max=max_beta))
