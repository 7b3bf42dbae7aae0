"""Measure the trained networks on held-out patches, and store the tables that
the chapters show.

    python -m damm_lite.experiments.measure             # all; three hours of CPU
    python -m damm_lite.experiments.measure patches     # one of them

Parts of the tables are kept in _build/measured as soon as they are there, so
it may be interrupted and started again. Other weights, or another package, are
measured anew.

patches.csv has a row for each network and each of 256 patches, half of them
divergent: the confidence, at the first step and on average over 20, and SSIM,
PSNR (dB) and MAE of each gate, of one sample of 20 steps and of the mean of
four samples of five (`ssim_damm`, `ssim_damm_mean`), which costs the same.
dial.csv has a row for each kind and strength of divergence and each of 128
patches, which are the same throughout, and the scores of one sample of five
steps and of the mean of four. Strength is in µm for "shift", a fraction of the
patch for "dropout" and "necrosis". steps.csv has DAMM's scores for 1 to 1000
sampling steps.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

import damm_lite as dl
from damm_lite.atomic import atomic_write
from damm_lite.experiments.runs import sample_unet
from damm_lite.tumours.simulate import Physics
from damm_lite.tumours.synthetic import (
    HELD_OUT_SEED,
    consistent_pair,
    dropout_pair,
    necrosis_pair,
    section_pair,
    shift_pair,
)

SIZE, DIAL_SEED = 64, 2_000_001
ROOT = Path(__file__).resolve().parents[2]
RESULTS, MANIFEST = ROOT / "data" / "results", ROOT / "damm_lite" / "manifest.txt"
KEPT = ROOT / "_build" / "measured"  # parts of tables
GATES = {
    "uni": dl.AlwaysUni(),
    "multi": dl.AlwaysMulti(),
    "damm": dl.DAMMP(),
    "soft": dl.SpatialDAMMP(),
    "plain": dl.SpatialDAMMP(sharpness=1),
    "hard": dl.HardSpatialDAMMP(),
    "both": dl.MeanOfBranches(),
}
METRICS = {"ssim": dl.ssim, "psnr": dl.psnr, "mae": dl.mae}
DIAL = {
    "none": (consistent_pair, [0.0]),
    "shift": (lambda micrometres: partial(shift_pair, micrometres=(micrometres,) * 2), [2.0, 4.0, 8.0, 16.0, 32.0]),
    "dropout": (lambda share: partial(dropout_pair, fraction=(share,) * 2), [0.25, 0.5, 0.75]),
    "necrosis": (lambda share: partial(necrosis_pair, fraction=(share,) * 2), [0.25, 0.5, 0.75]),
    "section": (section_pair, [1.0]),
}


def kept(name: str, make: Callable) -> pd.DataFrame:
    """The table that `make()` returns, kept for these weights and this package."""
    measured = tuple(f"weights/{network}" for network in ("tumour-64", "concat-64"))
    weights = [line for line in MANIFEST.read_text().splitlines() if line.startswith(measured)]
    digest = hashlib.sha256("\n".join(weights).encode())
    for source in sorted((ROOT / "damm_lite").rglob("*.py")):
        digest.update(source.read_bytes())
    path = KEPT / digest.hexdigest()[:12] / f"{name}.csv"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as whole:
            make().round(4).to_csv(whole, index=False)
    return pd.read_csv(path)


def by_gate(model: dl.DAMMNet, schedule: dl.NoiseSchedule, gate: Callable) -> Callable:
    """A function (part of a batch, num_steps, seed, num_samples) -> samples
    (S, B, C, H, W).
    """

    def sample(part, num_steps, seed, num_samples):
        images = part["primary"], part["secondary"]
        return dl.predict(model, schedule, *images, num_steps, seed, gate, num_samples).samples

    return sample


def samples_of(sample: Callable, batch: dict, num_steps: int, num_samples: int = 1) -> torch.Tensor:
    """x0 (n, S, C, H, W) of a batch of n, drawn 16 patches at a time; patch i
    has the seed i.
    """
    parts = tqdm(list(dl.chunks(batch, 16)), leave=False)
    drawn = [sample(part, num_steps, 16 * i, num_samples) for i, part in enumerate(parts)]
    return torch.cat(drawn, dim=1).transpose(0, 1)


def scored(name: str, x0: torch.Tensor, target: torch.Tensor) -> dict:
    """Scores of every patch, as columns: of the first sample, and of the mean
    where there are several.
    """
    predictions = {name: x0[:, 0]} | ({f"{name}_mean": x0.mean(dim=1)} if x0.shape[1] > 1 else {})
    return {
        f"{metric}_{prediction}": score(x, target).numpy()
        for prediction, x in predictions.items()
        for metric, score in METRICS.items()
    }


def confidences(network: str, batch: dict) -> pd.DataFrame:
    """The confidence that DAMMP decides on, on average over 20 steps and at
    the first, as columns.
    """
    model, schedule = dl.load_pretrained(network)
    images, columns = [(part["primary"], part["secondary"]) for part in dl.chunks(batch, 16)], {"kind": batch["kind"]}
    for column, num_steps in (("confidence", 20), ("confidence_first", 1)):
        predictions = [dl.predict(model, schedule, *pair, num_steps) for pair in images]
        columns[column] = torch.cat([prediction.confidence for prediction in predictions]).numpy()
    return pd.DataFrame(columns)


def scored_gate(network: str, gate: str, batch: dict) -> pd.DataFrame:
    """A gate's scores of a sample of 20 steps, and of the mean of 4 x 5, as
    columns.
    """
    sample = by_gate(*dl.load_pretrained(network), GATES[gate])
    columns = scored(gate, samples_of(sample, batch, num_steps=5, num_samples=4), batch["target"])
    return pd.DataFrame(columns | scored(gate, samples_of(sample, batch, num_steps=20), batch["target"]))


def scored_gates(table: str, network: str, batch: dict, gates: Iterable[str]) -> pd.DataFrame:
    """Both of these, for every gate, each kept as a part of the table of this
    name.
    """
    name = f"{table}, {len(batch['kind'])}, {network}"
    parts = [kept(f"{name}, confidence", partial(confidences, network, batch))]
    parts += [kept(f"{name}, {gate}", partial(scored_gate, network, gate, batch)) for gate in gates]
    return pd.concat(parts, axis=1)


def measure_patches(n: int) -> pd.DataFrame:
    """The table of patches.csv."""
    batch = dl.stack(dl.SyntheticTumours(n, SIZE, HELD_OUT_SEED))
    tables = []
    for name, gates in (("tumour-64", GATES), ("tumour-64-released", ("uni", "multi", "damm"))):
        columns = scored_gates("patches", name, batch, gates)
        tables.append(pd.DataFrame({"network": name, "index": range(n)}).join(columns))
    return pd.concat(tables)


def turned_to(pair: Callable, n: int) -> dict:
    """n patches that all have this kind of divergence; the same vessels and
    nuclei for every kind.
    """
    physics, items = Physics(), []
    for index in range(n):
        rng = np.random.default_rng([DIAL_SEED, index])
        vessels = dl.simulate_vessels(rng, SIZE)
        imaged, acting = pair(rng, vessels, dl.simulate_nuclei(rng, vessels), physics)
        images = dict(target=dl.simulate_nanoparticles(vessels, acting), primary=vessels, secondary=imaged)
        items.append({key: dl.to_tensor(image) for key, image in images.items()})
    return dl.stack(items)


def scored_dial(kind: str, strength: float, uni: torch.Tensor, samplers: dict) -> pd.DataFrame:
    """The rows of dial.csv for one setting."""
    n, (pair, _) = len(uni), DIAL[kind]
    batch = turned_to(pair(strength) if kind in ("shift", "dropout", "necrosis") else pair, n)
    columns = scored("uni", uni, batch["target"])
    for name, sample in samplers.items():
        columns |= scored(name, samples_of(sample, batch, num_steps=5, num_samples=4), batch["target"])
    return pd.DataFrame({"kind": kind, "strength": strength, "index": range(n)} | columns)


def measure_dial(n: int) -> pd.DataFrame:
    """The table of dial.csv; the uni-modal branch never sees the nuclei, so it
    predicts once.
    """
    model, schedule = dl.load_pretrained("tumour-64")
    samplers = {name: by_gate(model, schedule, GATES[name]) for name in ("multi", "damm")}
    samplers["concat"] = partial(sample_unet, *dl.load_pretrained("concat-64"))
    uni = samples_of(by_gate(model, schedule, GATES["uni"]), turned_to(consistent_pair, n), num_steps=5, num_samples=4)
    settings = [(kind, strength) for kind, (_, strengths) in DIAL.items() for strength in strengths]
    return pd.concat([kept(f"dial, {n}, {k} {x:g}", partial(scored_dial, k, x, uni, samplers)) for k, x in settings])


def measure_steps(n: int) -> pd.DataFrame:
    """The table of steps.csv, of one sample each."""
    batch = dl.stack(dl.SyntheticTumours(n, SIZE, HELD_OUT_SEED))
    sample, tables = by_gate(*dl.load_pretrained("tumour-64"), GATES["damm"]), []
    for steps in (1, 2, 5, 10, 20, 50, 100, 1000):
        columns = scored("damm", samples_of(sample, batch, steps), batch["target"])
        tables.append(pd.DataFrame({"num_steps": steps, "index": range(n), "kind": batch["kind"]} | columns))
    return pd.concat(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="which to make: patches, dial, steps; default all")
    parser.add_argument("--patches", type=int, default=256, help="half as many for dial.csv, a sixteenth for steps.csv")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    n = arguments.patches
    makers = {
        "patches": (measure_patches, n),
        "dial": (measure_dial, n // 2),
        "steps": (measure_steps, n // 16),
    }
    if unknown := set(arguments.tables) - set(makers):
        parser.error(f"tables: expected {', '.join(makers)}, got {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.tables or makers:
        maker, n = makers[name]
        maker(n).round(4).to_csv(arguments.out / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
