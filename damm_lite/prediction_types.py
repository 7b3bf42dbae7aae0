"""What a network's output means: the noise, the image, or a mixture of both.

A prediction type says what the network should output for a noised image
(`target`), and which image x0 an output stands for (`to_x0`). One of your own
is a class with the same two functions.
"""

from torch import Tensor

from damm_lite.schedules import NoiseSchedule, Steps


class PredictsNoise:
    """The network's output is eps, as in Ho et al. (2020) and in the paper."""

    @staticmethod
    def target(
        schedule: NoiseSchedule,
        x0: Tensor,
        eps: Tensor,
        t: Steps,
    ) -> Tensor:
        """What the network should output (B, ...) for x0 and eps (B, ...) at
        steps t.
        """
        return eps

    @staticmethod
    def to_x0(
        schedule: NoiseSchedule,
        xt: Tensor,
        output: Tensor,
        t: Steps,
    ) -> Tensor:
        """The x0 (B, ...) that the network's output for xt (B, ...) stands
        for.
        """
        return schedule.predict_x0(xt, output, t)


class PredictsImage:
    """The network's output is x0 itself."""

    @staticmethod
    def target(
        schedule: NoiseSchedule,
        x0: Tensor,
        eps: Tensor,
        t: Steps,
    ) -> Tensor:
        """What the network should output (B, ...) for x0 and eps (B, ...) at
        steps t.
        """
        return x0

    @staticmethod
    def to_x0(
        schedule: NoiseSchedule,
        xt: Tensor,
        output: Tensor,
        t: Steps,
    ) -> Tensor:
        """The x0 (B, ...) that the network's output for xt (B, ...) stands
        for.
        """
        return output


class PredictsVelocity:
    """The network's output is v = sqrt(a) eps - sqrt(1 - a) x0 (Salimans and
    Ho 2022).
    """

    @staticmethod
    def target(
        schedule: NoiseSchedule,
        x0: Tensor,
        eps: Tensor,
        t: Steps,
    ) -> Tensor:
        """What the network should output (B, ...) for x0 and eps (B, ...) at
        steps t.
        """
        signal, noise = schedule.signal_and_noise(t, x0)
        return signal * eps - noise * x0

    @staticmethod
    def to_x0(
        schedule: NoiseSchedule,
        xt: Tensor,
        output: Tensor,
        t: Steps,
    ) -> Tensor:
        """The x0 (B, ...) that the network's output for xt (B, ...) stands
        for.
        """
        signal, noise = schedule.signal_and_noise(t, xt)
        return signal * xt - noise * output


def check_prediction_type(prediction: type) -> None:
    """Raise ValueError unless it has what a prediction type has: `target` and `to_x0`."""
    if not all(callable(getattr(prediction, name, None)) for name in ("target", "to_x0")):
        raise ValueError(f"prediction: expected a class with target and to_x0, got {prediction!r}")
