"""The key of A1, in the process of the judge: a function for each question, asked of what students wrote."""

import os

import numpy as np
import torch
from scipy.stats import wasserstein_distance

import damm_lite as dl
from judge import near

WEIGHTS, MEANS, WIDTH = (torch.tensor([0.7, 0.3]), torch.tensor([-0.6, 0.5]), 0.15)
VARIANT = int(os.environ.get("DAMM_VARIANT", "0"))
NUM_STEPS, SEEDS, N = (2, 5, 10, 20, 50, 100, 200), range(VARIANT, VARIANT + 8), 2000
SCHEDULE = dl.scaled_linear_schedule()
ALPHAS = SCHEDULE.alphas_cumprod


def draw_pixels(n, seed):
    generator = torch.Generator().manual_seed(seed)
    peak = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    return MEANS[peak] + WIDTH * torch.randn(n, generator=generator)


def best_x0(xt, t):
    a = ALPHAS[t]
    v = a * WIDTH**2 + 1 - a
    off = xt[:, None] - a.sqrt() * MEANS
    chances = (WEIGHTS.log() - off**2 / (2 * v)).softmax(dim=1)
    return (chances * (MEANS + a.sqrt() * WIDTH**2 / v * off)).sum(dim=1)


def error(num_steps, seed, n=N):
    """By the package's sampler, not by steps of one's own."""
    noise = torch.randn(n, generator=torch.Generator().manual_seed(1000 + seed))
    samples = dl.ddim_sampler(lambda xt, t: best_x0(xt, int(t[0])), SCHEDULE, noise, num_steps)
    return wasserstein_distance(samples.numpy(), draw_pixels(n, seed).numpy())


def q1(call):
    generator = torch.Generator().manual_seed(11)
    x0, eps = torch.randn(2, 500, generator=generator)
    for schedule in (SCHEDULE, dl.cosine_schedule()):
        t = torch.randint(1000, (500,), generator=generator)
        expected = schedule.add_noise(x0, eps, t)
        assert near(call("add_noise", schedule.alphas_cumprod, x0, eps, t), expected, 1e-5)


def q2(call):
    variance, first = call("found")
    assert near(variance, 0.15**2 + 0.7 * 0.3 * 1.1**2, 1e-5)
    assert first == int((ALPHAS < 1 / (1 + 0.0225 + 0.2541)).nonzero()[0])


def q2_function(call):
    falling = torch.linspace(0.999, 0.001, 500)
    for variance in (0.3, 1.0, 4.5):  # signal and noise are equal where alphas_cumprod is 1 / (1 + variance)
        expected = int((falling < 1 / (1 + variance)).nonzero()[0])
        assert call("first_noisy_step", falling, variance) == expected


def q3_limits(call):
    xt = torch.randn(40, generator=torch.Generator().manual_seed(3)).clamp(-1, 0.8)
    assert near(call("best_x0", xt, 0), xt, 0.06)
    assert near(call("best_x0", xt, 999), torch.full((40,), -0.27), 0.1)
    middle = call("best_x0", torch.linspace(-3, 3, 50), 300)
    assert isinstance(middle, torch.Tensor) and middle.shape == (50,) and (middle.diff() > 0).all()
    far = call("best_x0", torch.tensor([-30.0, 30.0]), 1)
    assert isinstance(far, torch.Tensor) and far.shape == (2,) and far.isfinite().all()


def q3(call):
    q3_limits(call)
    generator = torch.Generator().manual_seed(6)
    x0 = draw_pixels(400_000, seed=5)
    eps = torch.randn(400_000, generator=generator)
    for t in (60, 250, 480):
        xt = ALPHAS[t].sqrt() * x0 + (1 - ALPHAS[t]).sqrt() * eps
        found = call("best_x0", xt, t)
        assert isinstance(found, torch.Tensor) and found.shape == xt.shape
        # In each bin of xt, the conditional mean is right on average.
        bins = torch.bucketize(xt, torch.linspace(-3, 3, 41))
        for b in bins.unique()[1:-1]:
            here = bins == b
            if here.sum() > 3000:
                off = (x0 - found)[here]
                assert off.mean().abs() < 5 * off.std() / here.sum() ** 0.5 + 1e-4


def q4_steps(call):
    generator = torch.Generator().manual_seed(4)
    for t, t_next in ((999, 400), (700, 300), (400, 20), (20, 19)):
        xt, x0 = torch.randn(2, 50, generator=generator)
        assert near(call("ddim_step", xt, x0, t, t_next), dl.ddim_step(SCHEDULE, xt, x0, t, t_next), 1e-5)


def q4(call):
    q4_steps(call)
    xt, x0 = torch.randn(2, 50, generator=torch.Generator().manual_seed(5))
    for t in (0, 30):
        assert near(call("ddim_step", xt, x0, t, -1), x0, 1e-6)


def q5(call):
    for num_steps, seed, n in ((7, 3, 500), (2, 11, 500), (40, 6, 700)):
        assert near(call("error", num_steps, seed, n), error(num_steps, seed, n), 1e-4)


def q5_table(call):
    table = call("table")
    found = {(row.num_steps, row.seed): row.error for row in table.itertuples()}
    expected = {(num_steps, seed): error(num_steps, seed) for num_steps in NUM_STEPS for seed in SEEDS}
    assert len(table) == len(expected) and found.keys() == expected.keys()
    assert all(near(found[run], expected[run], 1e-3) for run in expected)


def q6(call):
    # Their mean is 1.5, its standard error 0.866, and Student's point 3.18: the limit is 2.76.
    differences, zeros = np.array([0.0, 0.0, 3.0, 3.0]), np.zeros(4)
    for first, second, expected in (
        (differences + 1.3, zeros, True),
        (differences + 1.2, zeros, False),
        (zeros, differences + 1.3, True),
        (differences + [5, 6, 7, 8], np.array([5.2, 6, 7, 8]), False),
        (np.arange(9) + 0.1, np.arange(9) + [0.01, *8 * [0.0]], True),
    ):
        assert call("is_real", first, second) is expected


def q6_scores(call):
    found = call("scores")
    assert found.keys() == set(NUM_STEPS)
    for num_steps in NUM_STEPS:
        assert near(found[num_steps], [error(num_steps, seed) for seed in SEEDS], 1e-3)
