"""Signals against magnetisation followed pulse by pulse, closed forms, and what radiologists expect."""

import numpy as np
import pytest
from scipy.stats import rice

from damm_lite.brains.mri import (
    SEQUENCES,
    TISSUES,
    InversionRecovery,
    SpinEcho,
    ghost,
    rician,
    shorten_t1,
    signal,
)


def recover(magnetisation, time, t1):
    """Longitudinal magnetisation after `time` without pulses (Bloch)."""
    return 1 + (magnetisation - 1) * np.exp(-time / t1)


def followed(sequence, pd, t1, t2):
    """The signal after many repetitions, each pulse applied in turn."""
    z, ti = 1.0, getattr(sequence, "ti", 0)
    for _ in range(200):
        if ti:
            z = recover(-z, ti, t1)
        transverse, z = z, 0.0  # 90 degrees
        z = recover(-recover(z, sequence.te / 2, t1), sequence.tr - ti - sequence.te / 2, t1)
    return pd * transverse * np.exp(-sequence.te / t2)


@pytest.mark.parametrize("t1, t2", [(300.0, 40.0), (1084.0, 69.0), (4300.0, 2030.0)])
@pytest.mark.parametrize(
    "sequence", [*SEQUENCES.values(), SpinEcho(600, 12), InversionRecovery(2500, 60, 150)], ids=repr
)
def test_signal_is_the_steady_state_of_the_pulses(sequence, t1, t2):
    assert sequence.signal(0.8, t1, t2) == pytest.approx(followed(sequence, 0.8, t1, t2), rel=1e-9)


def test_limits():
    assert SpinEcho(tr=1e6, te=0).signal(0.7, 1000, 80) == pytest.approx(0.7)
    assert SpinEcho(tr=500, te=0).signal(1, 1000, 80) == pytest.approx(1 - np.exp(-0.5))
    assert InversionRecovery(tr=1e6, te=0, ti=1e5).signal(0.7, 1000, 80) == pytest.approx(0.7)
    assert InversionRecovery(tr=1e6, te=0, ti=1000 * np.log(2)).signal(1, 1000, 80) == pytest.approx(0, abs=1e-9)
    assert InversionRecovery(tr=1e6, te=0, ti=0).signal(1, 1000, 80) == pytest.approx(-1)  # just turned over


def of(contrast):
    return {name: float(signal({name: 1.0}, contrast)) for name in TISSUES}


def test_contrasts_between_tissues():
    t1, t1ce, t2, flair = (of(contrast) for contrast in ("t1", "t1ce", "t2", "flair"))
    assert t1["white"] > 1.3 * t1["grey"] > 2 * t1["csf"]
    assert t1["necrosis"] < t1["rim"] < t1["oedema"] < t1["white"]
    assert t2["csf"] > t2["necrosis"] > t2["oedema"] > t2["rim"] > t2["grey"] > t2["white"]
    assert flair["csf"] < 0.1 * flair["white"]
    assert flair["oedema"] > 1.3 * max(flair[name] for name in ("white", "grey", "rim", "necrosis"))
    assert flair["grey"] > flair["white"]
    assert t1ce["rim"] > 1.5 * max(value for name, value in t1ce.items() if name != "rim")
    assert {name for name in TISSUES if t1ce[name] != t1[name]} == {"rim"}


def test_gadolinium_shortens_t1_as_measured():
    t1 = TISSUES["rim"].t1
    assert shorten_t1(t1, 0) == pytest.approx(t1)
    assert 1 / shorten_t1(t1, 0.2) - 1 / t1 == pytest.approx(4.97e-3 * 0.2)
    # Nöth et al. 2020, enhancing glioblastoma: 838 +- 210 ms
    assert abs((t1 - shorten_t1(t1, 0.15)) - 838) < 2 * 210


def test_mixed_voxels_add_up():
    mixed = signal({"white": 0.25, "oedema": 0.75}, "t2")
    assert mixed == pytest.approx(0.25 * of("t2")["white"] + 0.75 * of("t2")["oedema"])


@pytest.mark.parametrize("level", [0.0, 0.5, 10.0])
def test_noise_has_rices_distribution(level):
    drawn = rician(np.random.default_rng(0), np.full(200_000, level), 1.0)
    expected = rice(level)
    assert drawn.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(expected.std(), abs=0.01)


def test_ghosts():
    rng, n, d = np.random.default_rng(0), 32, 3
    image = rng.random((n, 20))
    np.testing.assert_allclose(ghost(image, np.zeros(n)), image, atol=1e-12)
    np.testing.assert_allclose(ghost(image, np.full(n, d)), np.roll(image, d, axis=0), atol=1e-2)
    moved = ghost(image, rng.normal(0, 2, n))
    assert (moved**2).sum() == pytest.approx((image**2).sum())  # phases keep the energy (Parseval)
    # Every other line taken at another place: both places, and two ghosts half a field of view away.
    g = np.roll(image, d, axis=0)
    far, far_g = np.roll(image, n // 2, axis=0), np.roll(g, n // 2, axis=0)
    every_other = np.where(np.arange(n) % 2, d, 0)
    np.testing.assert_allclose(ghost(image, every_other), np.abs(image + far + g - far_g) / 2, atol=1e-2)


def test_a_longer_t2_fades_less():
    white, te = TISSUES["white"], SEQUENCES["t2"].te
    longer, usual = (signal({"white": 1.0}, "t2", t2_factor=factor) for factor in (1.2, 1.0))
    grown = SpinEcho(SEQUENCES["t2"].tr, te).signal(white.pd, white.t1, 1e12)  # all but the fading
    assert usual == pytest.approx(grown * np.exp(-te / white.t2))
    assert longer == pytest.approx(grown * np.exp(-te / (1.2 * white.t2)))
