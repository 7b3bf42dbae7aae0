"""The study's first networks on other patches: other seeds, sizes and tissue.

    python -m damm_lite.experiments.elsewhere --out _build/elsewhere.csv
    python -m damm_lite.experiments.elsewhere --out mine.csv --seed 5 --size 64 \\
        --patches 64 --physics uptake=4e-3 hindrance=1
    python -m damm_lite.experiments.elsewhere --ship _build/study

The first makes the table of chapter 11, on all of `TISSUES`. The second scores
the networks on tissue of your own. Both print the mean of each score, and how
far the first method is ahead of each other one, with an interval over patches.
The third stores the networks of a study's first seed as weights to ship.
`scores` takes any batch of patches, of any physics and kinds.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from tqdm.auto import tqdm

from damm_lite.checkpoint import load_checkpoint, load_pretrained, save_checkpoint
from damm_lite.data import stack, to_tensor
from damm_lite.experiments.findings import SCORES
from damm_lite.experiments.methods import PIXEL, Budget, Tuned, draw_unet
from damm_lite.experiments.statistics import bootstrap_interval
from damm_lite.experiments.study import confidences, drawn, field_patches, folder_name, sampled, table_of
from damm_lite.teaching.notebook import load_results
from damm_lite.tumours.simulate import Physics, simulate_nanoparticles, simulate_nuclei, simulate_vessels
from damm_lite.tumours.synthetic import DIVERGENCES, consistent_pair

SEED = 7_000_001  # neither training, development, calibration nor test patches
FIRST = "ours, pixel"
NETWORKS = {  # method: (training, what is done with it)
    FIRST: ("ours", PIXEL),
    "regression, both, mismatches": ("regression, both, mismatches", draw_unet),
    "concatenation, mismatches": ("concatenation, mismatches", draw_unet),
    "concatenation": ("concatenation", draw_unet),
    "diffusion, vessels": ("diffusion, vessels", draw_unet),
}
FOR_PLAYGROUND = ("ours, addition", "ours, query head")  # trainings that ship as well
TISSUES = {  # what differs from the patches that the networks were trained on
    "as in training": {},
    "larger patches": {"size": 64},
    "particles half as fast": {"physics": Physics(diffusivity=0.5)},
    "particles twice as fast": {"physics": Physics(diffusivity=2.0)},
    "twice the uptake": {"physics": Physics(uptake=4e-3)},
    "half the hindrance": {"physics": Physics(hindrance=1.0)},
    "no binding": {"physics": Physics(binding=0.0)},
    "noise, few vessels or many": None,
}


def weights_name(training: str) -> str:
    """What the shipped weights of a training are called."""
    return "study-" + folder_name(training, 0).removesuffix("-0")


def noisy_patch(index: int, size: int, seed: int) -> dict:
    """Few vessels or many, other constants of transport, noise in both images."""
    rng = np.random.default_rng([seed, index])
    physics = Physics(
        diffusivity=rng.uniform(0.7, 1.4),
        hindrance=rng.uniform(1.5, 2.5),
        clearance=rng.uniform(2e-4, 4.5e-4),
        uptake=rng.uniform(1.4e-3, 2.8e-3),
        leakage=rng.uniform(3.5e-2, 7e-2),
    )
    kinds = ["none"] * len(DIVERGENCES) + list(DIVERGENCES)
    kind = kinds[index % len(kinds)]
    vessels = simulate_vessels(rng, size, density=rng.choice([150.0, 400.0]))
    imaged, acting = DIVERGENCES.get(kind, consistent_pair)(rng, vessels, simulate_nuclei(rng, vessels), physics)
    images = {"target": simulate_nanoparticles(vessels, acting, physics)}
    for name, image in (("primary", vessels), ("secondary", imaged)):
        images[name] = (image + rng.normal(0, 0.02, image.shape)).clip(0, 1)
    return {name: to_tensor(image) for name, image in images.items()} | dict(kind=kind)


def patches_of(tissue: str, count: int, seed: int) -> dict:
    """`count` patches of one of `TISSUES` as a batch, half of them divergent."""
    about = TISSUES[tissue]
    if about is None:
        return stack(noisy_patch(index, Budget.size, seed) for index in range(count))
    return field_patches(count, seed=seed, **{"size": Budget.size} | about)


def scores(batch: dict, num_samples: int = 8, num_steps: int = 20) -> pd.DataFrame:
    """The four scores of each method of `NETWORKS` on each patch of a batch;
    for `FIRST` the confidence as well.

    `batch` holds target, primary and secondary (B, 1, H, W) in [-1, 1] and
    "kind", a list of B names. What was tuned is as in the study.
    """
    tuned = load_results("study")
    tuned = tuned[tuned["seed"] == 0].groupby("method")[list(Tuned._fields)].first()
    budget, tables = Budget(num_steps=num_steps, num_samples=num_samples), []
    for method, (training, use) in NETWORKS.items():
        model, schedule = load_pretrained(weights_name(training))
        chosen = Tuned(**tuned.loc[method])
        sample = partial(sampled, use, model, schedule, chosen, budget)
        rows = table_of(method, drawn(sample, batch, 1)[0], batch)
        if method == FIRST:
            rows["confidence"] = confidences(model, schedule, batch)[0].numpy()
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def ahead(table: pd.DataFrame) -> pd.DataFrame:
    """For each tissue, rival and score, by how much `FIRST` is better: mean of
    the differences patch by patch, and its 95 % interval over patches (low,
    high), which knows nothing of the luck of a training; "ahead" or "behind"
    where it leaves out 0, else "open".
    """
    rows = []
    for tissue, part in table.groupby("tissue", sort=False):
        for score, about in SCORES.items():
            by_patch = part.pivot(index="index", columns="method", values=score)
            for rival in [name for name in NETWORKS if name != FIRST]:
                gains = about.sign * (by_patch[FIRST] - by_patch[rival])
                mean, low, high = bootstrap_interval(gains)
                sign = "ahead" if low > 0 else "behind" if high < 0 else "open"
                found = dict(difference=mean, low=low, high=high, sign=sign)
                rows.append(dict(tissue=tissue, rival=rival, score=score) | found)
    return pd.DataFrame(rows)


def ship(study: Path, weights: Path) -> None:
    """Store the networks of a study's first seed under the names that
    `load_pretrained` knows.
    """
    weights.mkdir(parents=True, exist_ok=True)
    for training in (*(training for training, _ in NETWORKS.values()), *FOR_PLAYGROUND):
        name = weights_name(training)
        path = study / "clean" / folder_name(training, 0) / "model.safetensors"
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["damm_lite"])["about"]
        command = f'python -m damm_lite.experiments.study --only "{training}" --seeds 0 --out _build/study'
        save_checkpoint(weights / f"{name}.safetensors", *load_checkpoint(path), **about, command=command)


def physics_of(constants: list[str]) -> Physics:
    """`Physics` with some constants changed, as in ["uptake=4e-3"]."""
    pairs, known = [constant.partition("=")[::2] for constant in constants], list(Physics.__dataclass_fields__)
    try:
        values = {known[known.index(name)]: float(value) for name, value in pairs}
    except ValueError:
        expected = f"expected CONSTANT=NUMBER, of the constants {', '.join(known)}"
        raise ValueError(f"physics: {expected}, got {' '.join(constants)}") from None
    return Physics(**values)


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, help="the table to write")
    found.add_argument("--patches", type=int, default=64, help="a multiple of 8")
    found.add_argument("--samples", type=int, default=8)
    found.add_argument("--seed", type=int, default=SEED)
    found.add_argument("--size", type=int, help="side of a patch of your own, in pixels")
    found.add_argument("--physics", nargs="+", default=[], metavar="CONSTANT=NUMBER", help="for tissue of your own")
    found.add_argument("--ship", type=Path, metavar="STUDY", help="only store the weights of this folder's study")
    found.add_argument("--weights", type=Path, default=Path("data/weights"), help="where --ship stores them")
    return found


def main() -> None:
    arguments = parser().parse_args()
    count, size, seed = arguments.patches, arguments.size or Budget.size, arguments.seed
    if count < 8 or count % 8:
        parser().error(f"--patches: expected a multiple of 8, got {count}")
    if arguments.out and (arguments.out.exists() or not arguments.out.parent.is_dir()):
        parser().error(f"--out: expected a new file in a folder that is there, got {arguments.out}")
    if arguments.ship:
        ship(arguments.ship, arguments.weights)
    else:
        if arguments.size or arguments.physics:
            batches = {"yours": field_patches(count, size, seed, physics_of(arguments.physics))}
        else:
            batches = {name: patches_of(name, count, seed) for name in TISSUES}
        tables = [scores(batch, arguments.samples).assign(tissue=name) for name, batch in tqdm(batches.items())]
        table = pd.concat(tables, ignore_index=True)
        print(table.groupby(["tissue", "method"], sort=False)[list(SCORES)].mean().round(4).to_string())
        print(ahead(table).round(4).to_string(index=False))
        if arguments.out:
            table.round(5).to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
