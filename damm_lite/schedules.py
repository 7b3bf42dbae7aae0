"""How noise is added, and what follows from it by algebra alone.

Noising step t = 0 .. T-1 turns an image x0 and Gaussian noise eps into

    xt = sqrt(a) x0 + sqrt(1 - a) eps,        a = alphas_cumprod[t]        (Ho et al. 2020, eq. 4)

Step t = 0 already holds a little noise. Coefficients are computed in float64; the schedule
is kept, and tensors returned, as float32.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NoiseSchedule:
    """An immutable schedule; `alphas_cumprod` is a float32 tensor (T,), falling from 1 to 0."""

    alphas_cumprod: torch.Tensor

    def __post_init__(self):
        a = self.alphas_cumprod
        if a.ndim != 1 or not len(a) or not ((a > 0) & (a < 1)).all() or not (a[1:] < a[:-1]).all():
            raise ValueError("alphas_cumprod: expected a 1-D tensor that falls strictly inside (0, 1)")

    def __len__(self):
        return len(self.alphas_cumprod)

    def signal_and_noise(self, t, like):
        """sqrt(a) and sqrt(1 - a) at steps t (B,), shaped to multiply `like` (B, ...)."""
        if t.min() < 0 or t.max() >= len(self):
            raise ValueError(f"t: expected steps in 0..{len(self) - 1}, got {int(t.min())}..{int(t.max())}")
        a = self.at(t, like)
        return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)

    def at(self, t, like):
        """a at steps t (B,), float64, shaped to multiply `like` (B, ...); 1 (no noise) at t = -1."""
        a = torch.cat([self.alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])  # a[-1] = 1
        return a.to(like.device)[t].view(-1, *[1] * (like.ndim - 1))

    def add_noise(self, x0, eps, t):
        """xt (B, ...) from x0, eps (B, ...) and steps t (B,)."""
        signal, noise = self.signal_and_noise(t, x0)
        return signal * x0 + noise * eps

    def predict_x0(self, xt, eps, t):
        """The x0 that xt and eps imply."""
        signal, noise = self.signal_and_noise(t, xt)
        return (xt - noise * eps) / signal

    def predict_eps(self, xt, x0, t):
        """The eps that xt and x0 imply."""
        signal, noise = self.signal_and_noise(t, xt)
        return (xt - signal * x0) / noise


class PredictsNoise:
    """The network's output is eps, as in Ho et al. (2020) and in the paper."""

    @staticmethod
    def target(schedule, x0, eps, t):
        """What the network should output; (B, ...)."""
        return eps

    @staticmethod
    def to_eps(schedule, xt, output, t):
        """eps from the network's output; (B, ...)."""
        return output


class PredictsImage:
    """The network's output is x0 itself: best for small networks and smooth images."""

    @staticmethod
    def target(schedule, x0, eps, t):
        """What the network should output; (B, ...)."""
        return x0

    @staticmethod
    def to_eps(schedule, xt, output, t):
        """eps from the network's output; (B, ...)."""
        return schedule.predict_eps(xt, output, t)


class PredictsVelocity:
    """The network's output is v = sqrt(a) eps - sqrt(1 - a) x0 (Salimans and Ho 2022)."""

    @staticmethod
    def target(schedule, x0, eps, t):
        """What the network should output; (B, ...)."""
        signal, noise = schedule.signal_and_noise(t, x0)
        return signal * eps - noise * x0

    @staticmethod
    def to_eps(schedule, xt, output, t):
        """eps from the network's output; (B, ...)."""
        signal, noise = schedule.signal_and_noise(t, xt)
        return signal * output + noise * xt


def from_betas(betas):
    """The schedule whose step t adds noise of variance betas[t] (T,), float64."""
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0).float())


def scaled_linear_schedule(num_train_steps=1000, *, beta_start=0.002, beta_end=0.02):
    """sqrt(beta) rises linearly (Rombach et al. 2022); the paper's constants by default."""
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64)
    return from_betas(roots**2)


def linear_schedule(num_train_steps=1000, *, beta_start=1e-4, beta_end=0.02):
    """beta rises linearly (Ho et al. 2020)."""
    return from_betas(torch.linspace(beta_start, beta_end, num_train_steps, dtype=torch.float64))


def cosine_schedule(num_train_steps=1000, *, offset=0.008, max_beta=0.999):
    """alphas_cumprod falls as a squared cosine (Nichol and Dhariwal 2021, eq. 17)."""
    t = torch.arange(num_train_steps + 1, dtype=torch.float64) / num_train_steps
    a = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - a[1:] / a[:-1]).clamp(max=max_beta))
