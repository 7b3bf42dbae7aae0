"""The key of A3, in the process of the judge: a function for each question, asked of what students wrote."""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

import damm_lite as dl
from judge import near

NAMES, WEIGHTS = ("tumour-64", "tumour-64-released"), 60_000


def q1(call):
    generator = torch.Generator().manual_seed(3)
    for count in (3, 50):
        logits = 3 * torch.randn(count, generator=generator)
        u = torch.rand(count, generator=generator)
        expected = (logits * u).exp() / (logits * u).exp().sum()
        assert near(call("attention_weights", logits, u), expected, 1e-6)


def q2(call):
    for seed in (911, 912):
        batch = dl.stack(dl.SyntheticTumours(n=4, size=64, seed=seed))
        noise = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
        given = {key: batch[key] for key in ("target", "primary", "secondary")}
        for name in NAMES:
            expected = largest_change(name, given, noise)
            assert (expected == 0) == (name == NAMES[1]), "the key itself"
            found = call("largest_change", name, given, noise)
            assert near(found, expected, 1e-3 if expected else 0)


def largest_change(name, batch, noise):
    model, schedule = dl.load_pretrained(name)
    t = torch.full((len(noise),), 500)
    xt, nuclei = (schedule.add_noise(batch["target"], noise, t), batch["secondary"])
    with torch.inference_mode():
        own, other = (model.encode(xt, t, batch["primary"], one).confidence for one in (nuclei, nuclei.roll(1, 0)))
    return float((own - other).abs().max())


def q2_blind(call):
    q2(call)
    assert call("is_blind") == dict(zip(NAMES, (False, True), strict=True))


def by_pairs(rows, network, kind):
    """The share of pairs in the right order; ties count half."""
    own = rows[rows["network"] == network].set_index("kind")["confidence"]
    low, high = own[kind].to_numpy(), own["none"].to_numpy()
    return float(((low[:, None] < high) + 0.5 * (low[:, None] == high)).mean())


def q3(call):
    random = np.random.default_rng(5)
    kinds = random.choice(["none", *dl.tumours.DIVERGENCES], 400)
    rows = pd.DataFrame({"network": NAMES[0], "kind": kinds, "confidence": random.random(400).round(2)})
    rows.loc[rows.index % 2 == 0, "network"] = NAMES[1]
    for name in NAMES:
        for kind in dl.tumours.DIVERGENCES:
            assert near(call("auroc", rows, name, kind), by_pairs(rows, name, kind), 1e-6)


def q3_table(call):
    rows = dl.load_results("patches", means=True)
    found = call("aurocs")
    kinds = list(dl.tumours.DIVERGENCES)
    assert list(found.index) == kinds and list(found) == list(NAMES)
    expected = [[by_pairs(rows, name, kind) for name in NAMES] for kind in kinds]
    assert near(found.to_numpy(), expected, 1e-4)


def features(data, seed, corrupted):
    """a, m (n, 48, 16, 16) and trusted (n, 1, 16, 16), at random steps."""
    model, schedule = dl.load_pretrained(NAMES[0])
    generator = torch.Generator().manual_seed(seed)
    nuclei, trusted = dl.make_mismatches(data["secondary"], generator, corrupted)
    t = torch.randint(300, 1000, (len(nuclei),), generator=generator)
    xt = schedule.add_noise(data["target"], torch.randn(nuclei.shape, generator=generator), t)
    with torch.no_grad():
        encoded = model.encode(xt, t, data["primary"], nuclei)
        a, m = (model.uafm.norm(encoded.uni[-1]), model.uafm.norm(encoded.multi[-1]))
    return a, m, (functional.adaptive_avg_pool2d(trusted, 16) > 0.5).float()


def q4(call):
    generator = torch.Generator().manual_seed(7)
    a, m, other = torch.randn(3, 4, 48, 16, 16, generator=generator)
    for seed in (3, 4):
        u, changed, weights = call("head", seed, a, m, other)
        assert isinstance(u, torch.Tensor) and u.shape == (4, 1, 16, 16), "shape"
        assert u.min() >= 0 and u.max() <= 1, "between 0 and 1"
        assert 0 < weights <= WEIGHTS, "size"
        assert isinstance(changed, torch.Tensor) and not torch.equal(u, changed), "depends on m"


def q4_auroc(call):
    q4(call)
    consistent = dl.SyntheticTumours(96, size=64, seed=1, divergent_fraction=0)
    training = features(dl.stack(consistent), seed=1, corrupted=0.5)
    hidden = dl.stack(dl.SyntheticTumours(n=64, size=64, seed=9_310_417))
    a, m, _ = features(hidden, seed=5, corrupted=0.0)
    whole = torch.tensor([kind in ("none", "section", "shift") for kind in hidden["kind"]])
    found = []
    for seed in (11, 12):
        u, weights = call("trained", seed, *training, a, m)
        assert isinstance(u, torch.Tensor) and u.shape == (64, 1, 16, 16) and 0 < weights <= WEIGHTS
        found.append(dl.gate_auroc(u.mean(dim=(1, 2, 3))[whole], hidden["divergent"][whole]))
    assert sum(found) / 2 > 0.85, f"AUROC {found}"
