"""What a network's output means: the noise, the image, or a mixture of both.

Whatever it is, it and xt together give the image, by

    x0 = skip xt + scale output,

so that a prediction type is two coefficients that depend on the step alone.
Training counts errors of the output, which weighs errors of x0 by 1 / scale².
`signal` and `noise` are sqrt(a) and sqrt(1 - a): what xt holds of x0 and
of eps. A type of your own is a subclass with its own `coefficients`.
"""

import torch
from torch import Tensor

from damm_lite.schedules import NoiseSchedule, Steps

SD_OF_DATA = 0.5  # of pixels in [-1, 1], as in Karras et al. (2022)


class PredictionType:
    """What is common to all: from output to image, and from image to output."""

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, scale) for signal and noise of any one shape."""
        raise NotImplementedError

    @classmethod
    def to_x0(
        cls,
        schedule: NoiseSchedule,
        xt: Tensor,
        output: Tensor,
        t: Steps,
    ) -> Tensor:
        """The x0 (B, ...) that the output (B, ...) for xt stands for."""
        skip, scale = cls.coefficients(*_signal_and_noise(schedule, xt, t))
        return skip.to(xt) * xt + scale.to(xt) * output

    @classmethod
    def target(
        cls,
        schedule: NoiseSchedule,
        x0: Tensor,
        eps: Tensor,
        t: Steps,
    ) -> Tensor:
        """What the network should output (B, ...) for x0 and eps at steps t."""
        signal, noise = _signal_and_noise(schedule, x0, t)
        skip, scale = cls.coefficients(signal, noise)
        of_x0, of_eps = (1 - skip * signal) / scale, -skip * noise / scale
        return of_x0.to(x0) * x0 + of_eps.to(x0) * eps


class PredictsNoise(PredictionType):
    """The output is eps, as in Ho et al. (2020) and in the paper."""

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = (xt - noise eps) / signal."""
        return 1 / signal, -noise / signal


class PredictsImage(PredictionType):
    """The output is x0 itself."""

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = output."""
        return torch.zeros_like(signal), torch.ones_like(signal)


class PredictsVelocity(PredictionType):
    """The output is v = signal eps - noise x0 (Salimans and Ho 2022)."""

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = signal xt - noise v."""
        return signal, -noise


class PredictsFlow(PredictionType):
    """The output is u = eps - x0, the velocity along the straight path
    (1 - tau) x0 + tau eps from the image to the noise (Lipman et al. 2023).

    At tau = noise / (signal + noise) that path passes through
    xt / (signal + noise), whatever the schedule.
    """

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x0 = (xt - noise u) / (signal + noise)."""
        return 1 / (signal + noise), -noise / (signal + noise)


class PredictsPreconditioned(PredictionType):
    """The output is what xt does not tell, of unit size at every step.

    The best linear guess of x0 from xt, for data of standard deviation
    `SD_OF_DATA`, comes for free; the output is the rest of x0, divided by its
    size (Karras et al. 2022, eq. 7, with sigma = noise / signal). Where little
    noise is left the network copies xt without having to learn it.
    """

    @staticmethod
    def coefficients(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """skip = s² signal / (s² signal² + noise²), scale = s noise / root."""
        variance = (SD_OF_DATA * signal) ** 2 + noise**2  # of xt
        skip = SD_OF_DATA**2 * signal / variance
        return skip, SD_OF_DATA * noise / variance.sqrt()


def check_prediction_type(prediction: type) -> None:
    """Raise ValueError unless it is a subclass of `PredictionType`."""
    if not isinstance(prediction, type) or not issubclass(prediction, PredictionType):
        raise ValueError(f"prediction: expected a PredictionType such as PredictsImage, got {prediction!r}")


def _signal_and_noise(schedule, like, t):
    """sqrt(a) and sqrt(1 - a) at steps t, float64, shaped to multiply `like`."""
    a = schedule.at(t, like)
    return a.sqrt(), (1 - a).sqrt()
