"""How tissue becomes an image: relaxation, pulse sequences, gadolinium, coil,
noise and motion.

All times in ms, at 3 T. A voxel with several tissues gives the sum of their
signals.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import fft, fftfreq, ifft, ifftshift

Numbers = float | np.ndarray


@dataclass(frozen=True)
class Tissue:
    """Proton density (1 is water) and relaxation times in ms."""

    pd: float
    t1: float
    t2: float


# White and grey matter: Stanisz et al., Magn Reson Med 54:507 (2005), 3 T,
# with the water content of Oros-Peusquens et al., Front Neurol 10:1333 (2019),
# 3 T. Fluid: T1 of Rooney et al., Magn Reson Med 57:308 (2007), T2 of
# Spijkerman et al., MAGMA 31:415 (2018), 3 T. Gliomas vary; T1 of the solid
# part lies near 1.9 s and of the white matter around it near 1.3 s in de Blank
# et al., Pediatr Neurosurg 54:310 (2019), MR fingerprinting at 3 T. The rest
# of the last three is chosen to give the contrasts radiologists expect: oedema
# watery, dead tissue half way to fluid.
TISSUES = {
    "csf": Tissue(pd=1.00, t1=4300, t2=2030),
    "grey": Tissue(pd=0.84, t1=1820, t2=99),
    "white": Tissue(pd=0.69, t1=1084, t2=69),
    "oedema": Tissue(pd=0.85, t1=1500, t2=150),
    "rim": Tissue(pd=0.85, t1=1860, t2=110),
    "necrosis": Tissue(pd=0.95, t1=3000, t2=300),
}
# Gadobutrol in plasma at 3 T, 37 C: Szomolanyi et al., Invest Radiol 54:559
# (2019); in 1/(mmol/l s).
RELAXIVITY = 4.97


@dataclass(frozen=True)
class SpinEcho:
    """90 - TE/2 - 180 - TE/2 - echo, repeated every TR (both in ms)."""

    tr: float
    te: float

    def signal(self, pd: Numbers, t1: Numbers, t2: Numbers) -> Numbers:
        """PD (1 - 2 exp(-(TR - TE/2) / T1) + exp(-TR / T1)) exp(-TE / T2).

        With TE far below TR this is PD (1 - exp(-TR / T1)) exp(-TE / T2).
        """
        after_180 = self.tr - self.te / 2
        recovered = 1 - 2 * np.exp(-after_180 / t1) + np.exp(-self.tr / t1)
        return pd * recovered * np.exp(-self.te / t2)


@dataclass(frozen=True)
class InversionRecovery:
    """180 - TI - spin echo, repeated every TR (all in ms). FLAIR: TI at which
    the signal of fluid is zero.
    """

    tr: float
    te: float
    ti: float

    def signal(self, pd: Numbers, t1: Numbers, t2: Numbers) -> Numbers:
        """PD (1 - 2 exp(-TI / T1) + 2 exp(-(TR - TE/2) / T1) - exp(-TR / T1))
        exp(-TE / T2); it can be negative.
        """
        after_180 = self.tr - self.te / 2
        recovered = 1 - 2 * np.exp(-self.ti / t1)
        recovered = recovered + 2 * np.exp(-after_180 / t1)
        recovered = recovered - np.exp(-self.tr / t1)
        return pd * recovered * np.exp(-self.te / t2)


# T1 by inversion recovery, since at 3 T a plain spin echo hardly tells grey
# from white matter.
SEQUENCES = {
    "t1": InversionRecovery(tr=2000, te=10, ti=1000),
    "t1ce": InversionRecovery(tr=2000, te=10, ti=1000),
    "t2": SpinEcho(tr=5000, te=100),
    "flair": InversionRecovery(tr=9000, te=100, ti=2500),
}


def shorten_t1(t1: float, concentration: float) -> float:
    """T1 in ms with a contrast agent of `concentration` C in mmol/l: its
    inverse is 1 / T1 + r1 C, with the relaxivity r1.

    >>> round(shorten_t1(1860, 0.15))
    779
    """
    return 1 / (1 / t1 + RELAXIVITY * concentration / 1000)


def signal(
    fractions: dict[str, np.ndarray], contrast: str, gadolinium: float = 0.15, t2_factor: Numbers = 1.0
) -> np.ndarray:
    """Signal without noise (...,) of tissue `fractions` {name: (...,)}, by the
    sequence `contrast` of `SEQUENCES`.

    `gadolinium` is the contrast agent's concentration in mmol/l in the rim of
    a tumour, the only place it leaks into; it counts for "t1ce" alone. The
    default shortens T1 by 1.1 s; in enhancing glioblastoma 0.84 +- 0.21 s were
    measured (Nöth et al., NMR Biomed 33:e4242 (2020)). `t2_factor` (...,)
    multiplies the T2 of all tissues: T2 differs within a tissue (iron, myelin,
    gliosis).
    """
    total = 0.0
    for name, fraction in fractions.items():
        tissue = TISSUES[name]
        enhanced = name == "rim" and contrast == "t1ce"
        t1 = shorten_t1(tissue.t1, gadolinium) if enhanced else tissue.t1
        t2 = tissue.t2 * t2_factor
        alone = SEQUENCES[contrast].signal(tissue.pd, t1, t2)
        total = total + fraction * alone
    return np.abs(total)


def rician(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of `image` (...,) with Gaussian noise of standard deviation
    `sigma` in the real and the imaginary channel.

    Gudbjartsson and Patz, Magn Reson Med 34:910 (1995).
    """
    real, imaginary = rng.normal(0, sigma, (2, *image.shape))
    return np.hypot(image + real, imaginary)


def ghost(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Magnitude image (H, W) of a head that moved while it was scanned.

    `shift` (H,), in pixels along the first axis, is the head's displacement
    when each line of k-space was taken, from the most negative frequency k to
    the highest; it turns the line's phase by 2 pi k shift. A periodic shift
    leaves ghosts; a constant one only moves the image.
    """
    lines = fft(image, axis=0)
    phase = np.exp(-2j * np.pi * fftfreq(len(image)) * ifftshift(shift))
    return np.abs(ifft(lines * phase[:, None], axis=0))
