"""What holds for every input of the pure functions: inverses, ranges, symmetries, independence of order."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from damm_lite import gates, metrics, prediction_types, schedules
from damm_lite.brains import volumes
from damm_lite.tumours import tiff
from helpers import inputs, tiny

FEW = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**31)
MAKERS = st.sampled_from([schedules.scaled_linear_schedule, schedules.linear_schedule, schedules.cosine_schedule])
PREDICTION_TYPES = st.sampled_from(
    [prediction_types.PredictsNoise, prediction_types.PredictsImage, prediction_types.PredictsVelocity]
)


def images(seed, count=2, size=16):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@FEW
@given(MAKERS, st.integers(10, 1000))
def test_schedules_fall_inside_the_unit_interval(make, num_steps):
    a = make(num_steps).alphas_cumprod
    assert len(a) == num_steps and ((a > 0) & (a < 1)).all() and (a.diff() < 0).all()


@FEW
@given(MAKERS, PREDICTION_TYPES, st.integers(10, 300), SEEDS, st.data())
def test_noise_can_be_taken_off_again(make, prediction, num_steps, seed, data):
    schedule = make(num_steps)
    t = torch.tensor([data.draw(st.integers(0, num_steps - 1))])
    a = schedule.alphas_cumprod[t].item()
    assume(1e-3 < a < 1 - 1e-3)  # closer to the ends float32 has too few digits
    x0, eps = images(seed, 1).double(), images(seed + 1, 1).double()
    xt = schedule.add_noise(x0, eps, t)
    torch.testing.assert_close(schedule.predict_x0(xt, eps, t), x0)
    torch.testing.assert_close(schedule.predict_eps(xt, x0, t), eps)
    output = prediction.target(schedule, x0, eps, t)
    torch.testing.assert_close(prediction.to_x0(schedule, xt, output, t), x0)


@FEW
@given(SEEDS, st.floats(-1e4, 1e4), st.floats(1, 1e4))
def test_intensities_come_back(seed, low, width):
    volume = low + width * np.random.default_rng(seed).random((6, 7, 8))
    mask = np.random.default_rng(seed + 1).random(volume.shape) < 0.7
    scale = volumes.robust_scale(volume, mask)
    x = scale.normalise(volume, mask)
    assert np.abs(x).max() <= 1 and (x[~mask] == -1).all()
    clipped = volume.clip(scale.intensities[0], scale.intensities[-1])
    np.testing.assert_allclose(scale.restore(x, mask)[mask], clipped[mask], atol=2e-5 * (abs(low) + width))


@FEW
@given(SEEDS, st.sampled_from(["uint8", "int16", "uint32"]))
def test_integers_become_unit_values_and_back(seed, dtype):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, top, (5, 6), dtype=dtype, endpoint=True)
    image = tiff.unit_range("x", pixels)
    assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
    np.testing.assert_allclose(image * np.float64(top), pixels, rtol=1e-6, atol=1e-6)


@FEW
@given(SEEDS, st.integers(4, 40), st.integers(4, 40), st.integers(-20, 20), st.integers(-20, 20), st.integers(4, 40))
def test_what_a_frame_cut_is_pasted_where_it_was(seed, height, width, top, left, size):
    slices = np.random.default_rng(seed).random((2, height, width)).astype(np.float32)
    assume(top < height and top + size > 0 and left < width and left + size > 0)
    frame = volumes.Frame(slices.shape, (top, top + size), (left, left + size), size)
    cut = frame.cut(slices, fill=-1)
    back = frame.paste(cut, np.ones_like(cut), fill=-1)
    inside = np.zeros((height, width), bool)
    inside[max(top, 0) : top + size, max(left, 0) : left + size] = True
    np.testing.assert_array_equal(back, np.where(inside, slices, -1))


@FEW
@given(SEEDS)
def test_metrics_know_no_first_and_second_and_no_direction(seed):
    a, b = images(seed), images(seed + 1)
    for metric in (metrics.psnr, metrics.ssim, metrics.mae):
        score = metric(a, b)
        torch.testing.assert_close(metric(b, a), score, rtol=1e-4, atol=1e-5)
        for turn in (lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.transpose(2, 3)):
            torch.testing.assert_close(metric(turn(a), turn(b)), score, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(metric(a.flip(0), b.flip(0)), score.flip(0), rtol=1e-4, atol=1e-5)


@FEW
@given(SEEDS, st.integers(1, 8), st.integers(1, 8))
def test_auroc_counts_both_ways_and_only_order(seed, agree, diverge):
    c = torch.randperm(agree + diverge, generator=torch.Generator().manual_seed(seed)) / 16
    divergent = torch.arange(agree + diverge) < diverge
    area = metrics.gate_auroc(c, divergent)
    assert 0 <= area <= 1 and metrics.gate_auroc(c**3, divergent) == pytest.approx(area)
    assert metrics.gate_auroc(c, ~divergent) == pytest.approx(1 - area)


MODEL = tiny()


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.permutations(range(4)), st.floats(0, 1))
def test_dammp_decides_for_each_sample_alone(seed, order, gamma):
    torch.manual_seed(seed)
    args, order = inputs(4, 8, 8), torch.tensor(order)
    with torch.inference_mode():
        whole, shuffled = (gates.DAMMP(gamma)(MODEL, MODEL.encode(*a)) for a in (args, [x[order] for x in args]))
    assume((whole.confidence - gamma).abs().min() > 1e-4)  # rounding may decide nearer to the threshold
    assert torch.equal(whole.trust[order], shuffled.trust)
    torch.testing.assert_close(whole.output[order], shuffled.output, rtol=1e-3, atol=1e-4)
