"""What do samples of two branches say of a second image that is right, or wrong?

    python -m damm_lite.experiments.second_image --weights FILE ... --out TABLE

For each network and each field of vessels that it has not seen: samples of both
branches with the nuclei that belong to the vessels, and with those of another
tissue. With the right nuclei the truth is one map, so error and spread should
be small together. With the wrong ones nothing but the vessels is known, so the
samples are compared with exact draws for the vessels alone, as in `sampling`.
All scores are over the pixels that the vessels leave open.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from damm_lite.atomic import atomic_write
from damm_lite.checkpoint import load_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.data import to_tensor
from damm_lite.distributions import crps
from damm_lite.experiments.field_scores import OPEN, score_field
from damm_lite.experiments.sampling import SAMPLERS
from damm_lite.predict import predict
from damm_lite.schedules import NoiseSchedule
from damm_lite.tumours import simulate_nanoparticles, simulate_nuclei, simulate_vessels

FIELD_SEED = 6_000_017


def field_of(index: int, size: int, count: int, seed: int = FIELD_SEED) -> dict[str, Tensor]:
    """One field: `vessels`, `consistent` and `other` nuclei (1, H, W), and
    `draws` (D, 1, H, W), maps for these vessels; the first is that of the
    consistent nuclei.
    """
    rng = np.random.default_rng([seed, index])
    vessels = simulate_vessels(rng, size)
    nuclei = [simulate_nuclei(rng, vessels) for _ in range(count)]
    other = simulate_nuclei(rng, simulate_vessels(rng, size))
    draws = torch.stack([to_tensor(simulate_nanoparticles(vessels, each)) for each in nuclei])
    images = {"vessels": vessels, "consistent": nuclei[0], "other": other}
    return {name: to_tensor(image) for name, image in images.items()} | {"draws": draws}


def score_consistent(samples: Tensor, draws: Tensor) -> dict[str, float]:
    """Scores of samples (S, 1, H, W) whose truth is the first draw: `crps`, root mean square `error` of their
    mean, and their `spread`, with what the mean of S samples adds to it: where the samples are right, the two
    are equal.
    """
    region, truth = draws.std(dim=0) > OPEN, draws[0]
    variance = samples.var(dim=0)[region].mean() * (1 + 1 / len(samples))
    return {
        "crps": float(crps(samples[:, None], truth[None])[0][region].mean()),
        "error": float((samples.mean(dim=0) - truth)[region].square().mean().sqrt()),
        "spread": float(variance.sqrt()),
    }


def measure(
    model: DAMMNet, schedule: NoiseSchedule, fields: list[dict], num_samples: int = 40, num_steps: int = 20
) -> pd.DataFrame:
    """A row of scores for each field, kind of nuclei and branch."""
    rows = []
    for index, field in enumerate(tqdm(fields, desc="fields")):
        seeds = [1000 * index + number for number in range(num_samples)]
        for nuclei, score in (("consistent", score_consistent), ("other", score_field)):
            pair = [field[name].expand(num_samples, -1, -1, -1) for name in ("vessels", nuclei)]
            for branch in ("uni", "multi"):
                samples = predict(model, schedule, *pair, num_steps, seeds, branch, sampler=SAMPLERS["sde"]).x0
                rows.append(dict(field=index, nuclei=nuclei, branch=branch) | score(samples, field["draws"]))
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--num-steps", type=int, default=20)
    arguments = parser.parse_args()
    networks = {path: load_checkpoint(path) for path in arguments.weights}  # all can be read before one is run
    fields = [field_of(index, arguments.size, arguments.draws) for index in range(arguments.fields)]
    tables = []
    for path, (model, schedule) in networks.items():
        found = measure(model, schedule, fields, arguments.samples, arguments.num_steps)
        tables.append(found.assign(network=path.parent.name or path.stem))
    with atomic_write(arguments.out) as whole:
        pd.concat(tables).round(6).to_csv(whole, index=False)


if __name__ == "__main__":
    main()
