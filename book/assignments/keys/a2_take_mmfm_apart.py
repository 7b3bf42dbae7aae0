"""The key of A2, in the process of the judge: a function for each question, asked of what students wrote."""

import os

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import damm_lite as dl
from damm_lite.experiments.statistics import equivalence, paired_t
from judge import near
from measures import weights_used

VARIANT = int(os.environ.get("DAMM_VARIANT", "0"))
PARTS, SEEDS, FIRST = ("mask_uni", "mask_multi", "excite"), (0, 1), 21 + VARIANT


def count(channels, height, width):
    excitation = 2 * 2 * channels * (2 * channels // 16)
    return 10 * channels**2 * height * width + excitation


def q1(call):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        dl.MMFM(24).eval()(*torch.zeros(2, 1, 24, 16, 12))
    assert 2 * count(24, 16, 12) == counter.get_total_flops(), "the key itself"
    for sizes in ((24, 16, 16), (32, 4, 20), (64, 1, 1)):
        assert near(call("count", *sizes), count(*sizes), 1e-9 * count(*sizes))
    # Nothing can run these, nor hold them.
    for sizes in ((16 * 10**6, 10**9, 10**9), (48 * 10**6, 10**9, 3 * 10**9)):
        assert near(call("count", *sizes), count(*sizes), 1e-9 * count(*sizes))


def q2_hook(call):
    gate = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(8))
    expected = gate.mean(dim=(0, 2, 3))[None, :, None, None].expand_as(gate)
    assert near(call("constant_gate", gate), expected, 1e-5)


def inputs():
    batch = dl.stack(dl.SyntheticTumours(n=2, size=64, seed=305))
    generator = torch.Generator().manual_seed(12)
    xt = torch.randn(2, 1, 64, 64, generator=generator)
    return xt, torch.full((2,), 700), batch["primary"], batch["secondary"]


def switched_off(model, part):
    def constant(module, given, output):
        return output.mean(dim=(0, 2, 3), keepdim=True).expand_as(output)

    return [getattr(fusion, part).gate.register_forward_hook(constant) for fusion in model.mmfm]


def q2(call):
    images = inputs()
    for part in PARTS:
        model, _ = dl.load_pretrained("tumour-64")
        with torch.inference_mode():
            whole = model(*images)
            switched_off(model, part)
            off = model(*images)
        handles, *found = call("three_times", part, *images)
        assert handles == 9
        for multi, uni, expected in zip(*found, (whole, off, whole), strict=True):
            assert near(multi, expected.multi, 1e-3) and near(uni, expected.uni, 1e-3)


def scores(part, seed):
    batch = dl.stack(dl.SyntheticTumours(n=12, size=64, seed=FIRST))
    model, schedule = dl.load_pretrained("tumour-64")
    if part != "nothing":
        switched_off(model, part)
    x0 = dl.predict(model, schedule, batch["primary"], batch["secondary"], 2, seed, gate="multi").x0
    return dl.ssim(x0, batch["target"])


def q3(call):
    for part, seed in (("excite", 5), ("mask_multi", 6), ("nothing", 5)):
        assert near(call("scores", part, seed), scores(part, seed), 1e-3)


def q3_table(call):
    table = call("table")
    assert len(table) == 4 * len(SEEDS) * 12
    for part in ("nothing", *PARTS):
        for seed in SEEDS:
            rows = table[(table["off"] == part) & (table["seed"] == seed)].sort_values("index")
            assert near(rows["ssim"], scores(part, seed), 1e-3)


def q4(call):
    generator = torch.Generator().manual_seed(2)
    rows = [(part, seed, index) for part in ("nothing", *PARTS) for seed in SEEDS for index in range(12)]
    table = pd.DataFrame(rows, columns=["off", "seed", "index"])
    table["kind"], table["ssim"] = ("none", torch.rand(len(rows), generator=generator).double().numpy())
    means = table.groupby(["off", "index"])["ssim"].mean()
    for part in PARTS:
        expected = mean, low, high = dl.bootstrap_interval(means["nothing"] - means[part])
        found = call("worth", table, part)
        assert near(found, expected, 0.15 * (high - low)) and near(found[0], mean, 1e-6)


def q5(call):
    generator = torch.Generator().manual_seed(1)
    for channels in (16, 32, 64):
        a, d, *others = torch.randn(4, 2, channels, 8, 8, generator=generator)
        m, by_a, by_d, weights, gate = call("measured", channels, a, d, *others)
        assert isinstance(m, torch.Tensor) and m.shape == a.shape, "shape"
        assert (m - by_a).abs().mean() > 1e-3 and (m - by_d).abs().mean() > 1e-3, "depends on both streams"
        assert 0 <= weights <= weights_used(dl.MMFM(channels).eval(), a, d) / 2, "size"
        assert gate > 0.01, "gate"


def q5_trains(call):
    q5(call)
    losses = call("losses")
    assert len(losses) == 12 and sum(losses[-3:]) < sum(losses[:3])


def verdict(differences):
    if equivalence(differences, 0.005) < 0.05:
        return "equal"
    mean, *_, p = paired_t(differences)
    return "cannot be told apart" if p >= 0.05 else "better" if mean > 0 else "worse"


def q6(call):
    lists = (
        [0.001, -0.001, 0.002, 0.0, -0.002],
        [0.002, 0.0025, 0.0015, 0.002, 0.0021],  # not 0, but equal
        [0.02, 0.025, 0.018, 0.03, 0.022],
        [-0.02, -0.025, -0.018, -0.03],
        [0.02, -0.025, 0.018, -0.03, 0.02],
    )
    for differences in lists:
        assert call("verdict", differences) == verdict(differences), f"{differences}: {verdict(differences)}"


def mmfm_of_seed(seed):
    """What `evaluated` makes of MMFM."""
    patches, schedule = list(dl.SyntheticTumours(256, 16, seed=31, divergent_fraction=0)), dl.shifted_schedule()
    unseen = dl.stack(dl.SyntheticTumours(32, 16, 32, divergent_fraction=0))
    torch.manual_seed(seed)
    network = dl.DAMMNet(dl.UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=dl.PredictsImage)
    config = dl.TrainConfig(100, 8, 3e-3, warmup_steps=20, seed=seed)
    *_, last = dl.train(network, schedule, patches, config, progress=False)
    x0 = dl.predict(last.ema.eval(), schedule, unseen["primary"], unseen["secondary"], 2, 0, gate="multi").x0
    return float(dl.ssim(x0, unseen["target"]).mean())


def q6_differences(call):
    given = call("differences")
    assert near(given, [0.0] * 5, 1.0), "expected five differences of SSIM"
    for seed in (1, 3):
        own, mmfm = call("of_seed", seed)
        assert near(mmfm, mmfm_of_seed(seed), 2e-3), f"MMFM, trained here from seed {seed}, has another score"
        assert near(given[seed], own - mmfm, 2e-4), f"the difference of seed {seed} is another"
