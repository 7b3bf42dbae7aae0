"""The key of A4, in the process of the judge: a function for each question, asked of what students wrote.

The competition's patches are made here and leave as images only; the targets stay. Evaluations are counted in the
notebook, where a cheat may take the counter off; so the time that the notebook's processor spends is measured from
here, too, and compared with that of a fair entry.
"""

import os

import numpy as np
import pandas as pd
import psutil
import torch

import damm_lite as dl
from damm_lite.data import chunks, stack
from damm_lite.experiments.statistics import paired_t
from judge import near

EACH, SEED, EVALUATIONS = 32, 8_240_611, 8  # patches of each kind
BATCH = 32
WORK = 1.75  # times the seconds of the book's gate with as many evaluations


def price(gamma, rows):
    return float(np.where(rows["confidence"] < gamma, rows["ssim_uni"], rows["ssim_multi"]).mean())


def measured():
    """The table of each training, by seed."""
    study, names = dl.load_results("study"), {"ours, uni": "ssim_uni", "ours, multi": "ssim_multi"}
    study = study[study["method"].isin(names)]
    rows = study.pivot(index=["seed", "index", "kind", "confidence"], columns="method", values="ssim")
    return [part for _, part in rows.rename(columns=names).reset_index().groupby("seed")]


def made_up(seed):
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({name: random.random(90).round(2) for name in ("confidence", "ssim_uni", "ssim_multi")})
    rows["kind"] = random.choice(["none", "section", "shift"], 90, p=[0.6, 0.2, 0.2])
    return rows


def q1(call):
    rows = made_up(1)
    # Some confidences are equal to each of these thresholds.
    for gamma in (0.0, *rows["confidence"].head(5), 2.0):
        assert near(call("price", float(gamma), rows), price(gamma, rows), 1e-9)


def gain_of(even, odd):
    best = max(np.linspace(0, 1, 101), key=lambda gamma: price(gamma, even))
    return price(best, odd) - price(0.5, odd)


def q2(call):
    for seed in range(3):
        pair = made_up(seed), made_up(seed + 10)
        assert near(call("gain_of", *pair), gain_of(*pair), 1e-9)
    few = made_up(4).head(3)  # many thresholds are equally good
    assert near(call("gain_of", few, made_up(5)), gain_of(few, made_up(5)), 1e-9)


def q2_gains(call):
    gains = [gain_of(part[part["index"] % 2 == 0], part[part["index"] % 2 == 1]) for part in measured()]
    assert near(call("gains"), gains, 1e-9)
    assert near(call("interval"), list(paired_t(gains)), 1e-6)


def gain_at(p, rows, gamma=0.6):
    consistent = rows["kind"] == "none"
    g0, g1 = (price(gamma, part) - part["ssim_multi"].mean() for part in (rows[consistent], rows[~consistent]))
    return (1 - p) * g0 + p * g1


def q3(call):
    for p, gamma in ((0.25, 0.7), (0.0, 0.85), (1.0, 0.3)):
        rows = made_up(int(100 * gamma))
        assert near(call("gain_at", p, rows, gamma), gain_at(p, rows, gamma), 1e-9)
    assert near(call("gain_at", 0.1, rows), gain_at(0.1, rows), 1e-9)


def q3_break_evens(call):
    found = []
    for part in measured():
        rows = part[part["kind"].isin(["none", "section", "shift"])]
        g0, g1 = gain_at(0, rows), gain_at(1, rows)
        found.append(-g0 / (g1 - g0))
    assert near(call("break_evens"), found, 1e-6)


def hidden_patches():
    """`EACH` patches of each kind of divergence, the kinds in turn."""
    kinds = {kind: [] for kind in dl.tumours.DIVERGENCES}
    for patch in dl.SyntheticTumours(100 * EACH, 64, SEED, divergent_fraction=1.0):
        kinds[patch["kind"]].append(patch)
        if min(map(len, kinds.values())) >= EACH:
            break
    # zip ends with the shortest.
    return stack(patch for group in zip(*kinds.values(), strict=False) for patch in group)


def book(primary, secondary):
    """The gate of chapter 8, all evaluations in one sample."""
    model, schedule = dl.load_pretrained("tumour-64")
    return dl.predict(model, schedule, primary, secondary, EVALUATIONS, 0, gate=dl.SpatialDAMMP()).x0


def seconds_spent(pid):
    """What a notebook's process and all that it started have used of the processor, without this process."""
    notebook = psutil.Process(pid)
    children = [child for child in notebook.children(recursive=True) if child.pid != os.getpid()]
    return sum(sum(process.cpu_times()[:4]) for process in (notebook, *children))


def q4(call):
    """Also keeps the gain for the questions below, and the score of the competition."""
    call.kept.pop("gain", None)
    scores, others, spent, fair = [], [], 0, 0
    call("begin")
    for batch in chunks(hidden_patches(), BATCH):
        images, target = ((batch["primary"], batch["secondary"]), batch["target"])
        before = seconds_spent(call.notebook)
        x0 = call("solve", *images, EVALUATIONS * len(target))
        spent += seconds_spent(call.notebook) - before
        assert isinstance(x0, torch.Tensor) and x0.shape == target.shape and x0.isfinite().all(), "no images"
        before = sum(psutil.Process().cpu_times()[:2])
        others.append(dl.ssim(book(*images).clamp(-1, 1), target))
        fair += sum(psutil.Process().cpu_times()[:2]) - before
        scores.append(dl.ssim(x0.float().clamp(-1, 1), target))
        assert spent <= WORK * fair, f"{spent:.1f} seconds of work, where a fair entry takes {fair:.1f}"
    score, other = (float(torch.cat(some).mean()) for some in (scores, others))
    assert score > other - 0.03, f"{score:.4f}, the gate of chapter 8 {other:.4f}"
    call.kept.update(score=score, gain=score - other)


def gain(call):
    assert "gain" in call.kept, "no entry that counts"
    return call.kept["gain"]


def q4_above(call):
    assert gain(call) > 0.001, f"gain {gain(call):.4f}"


def q4_clear(call):
    assert gain(call) > 0.002, f"gain {gain(call):.4f}"
