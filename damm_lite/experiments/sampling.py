"""Does a network sample? Its samples beside exact draws from the simulator.

    python -m damm_lite.experiments.sampling --out runs/sampling OPTIONS

trains a U-Net on vessels alone, samples for vessel fields that it has not
seen, and compares with maps that the simulator draws for the same vessels:
the true conditional distribution (with --prediction exact, further maps take
the network's place). The folder gets a folder for the network, and for each
sampler and number of steps a table with a row for each field; summary.csv
holds the scores of all of them, with intervals over fields. What is there is
not done again, and an interrupted training goes on where it was.

The fields of DEVELOPMENT_SEED, the default, are for choosing a recipe; to test
one, give another --field-seed. `make sampling` makes the book's table.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from damm_lite import prediction_types, samplers
from damm_lite.atomic import atomic_write
from damm_lite.checkpoint import load_checkpoint
from damm_lite.data import to_tensor
from damm_lite.distributions import coverage, crps, rank_histogram, variance_by_frequency
from damm_lite.experiments.runs import Kept
from damm_lite.losses import squared_error
from damm_lite.metrics import psnr, ssim
from damm_lite.predict import predict_unet
from damm_lite.resumable import fit
from damm_lite.schedules import NoiseSchedule, scaled_linear_schedule, shifted_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours.simulate import simulate_nanoparticles, simulate_nuclei, simulate_vessels
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import RegressionUNet, UNet, UNetConfig

DEVELOPMENT_SEED = 4_000_001
EDGES = [0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 0.75]  # of bands of spatial frequency, cycles a pixel
NETWORK = ["prediction", "schedule", "size", "steps", "batch", "seed"]
MEASURED = ["fields", "draws", "samples", "field_seed"]
ABOUT = [*NETWORK, "sampler", "num_steps", *MEASURED]  # columns of the tables
OPEN = 0.05  # pixels whose true spread exceeds this are open: the vessels do not settle them
COVERING = 39  # samples between whose extremes the truth should lie: 38 of 40 times, 95 %
TYPES = {
    "noise": prediction_types.PredictsNoise,
    "velocity": prediction_types.PredictsVelocity,
    "image": prediction_types.PredictsImage,
    "flow": prediction_types.PredictsFlow,
    "preconditioned": prediction_types.PredictsPreconditioned,
}
SCHEDULES = {"scaled-linear": scaled_linear_schedule, "shifted": shifted_schedule}
SAMPLERS = {
    "ddim": samplers.ddim_sampler,
    "ddpm": samplers.ddpm_sampler,
    "dpm": samplers.dpm_sampler,
    "sde": partial(samplers.dpm_sampler, eta=1.0),
    "heun": samplers.heun_sampler,
}


def exact_draws(index: int, size: int, count: int, seed: int = DEVELOPMENT_SEED) -> tuple[Tensor, Tensor]:
    """Vessels (1, H, W) of a field, and `count` maps (D, 1, H, W) that belong to them: other nuclei each time."""
    rng = np.random.default_rng([seed, index])
    vessels = simulate_vessels(rng, size)
    maps = [simulate_nanoparticles(vessels, simulate_nuclei(rng, vessels)) for _ in range(count)]
    return to_tensor(vessels), torch.stack([to_tensor(x) for x in maps])


def score_field(samples: Tensor, draws: Tensor) -> dict[str, float]:
    """Scores of samples (S, 1, H, W) for one field, given exact draws (D, 1, H, W).

    `crps` and `coverage` (of the first 39 samples) take every draw as the
    truth in turn; `crps_exact` is what the draws themselves would score. All
    but SSIM and PSNR are over the field's open pixels. Variances are sums, to
    be pooled.
    """
    samples, draws = samples[:, None], draws[:, None]  # a batch of one
    region = draws.std(dim=0) > OPEN
    truths = list(draws)
    ranks = torch.stack([rank_histogram(samples, truth, region, seed=i) for i, truth in enumerate(truths)]).mean(dim=0)
    places = (torch.arange(len(ranks)) + 0.5).double() / len(ranks) * 2 - 1  # middles of the ranks' shares
    density = ranks * len(ranks)  # 1 where flat
    slope, curvature = (density * places).mean() * 3, (density * (3 * places**2 - 1) / 2).mean() * 5
    found = {"mean": samples.mean(dim=0), "sample": samples[0]}
    return {
        "open": float(region.float().mean()),
        "crps": float(torch.stack([crps(samples, y)[region].mean() for y in truths]).mean()),
        "crps_exact": float(_half_spread(draws)[region].mean()),
        "variance": float(samples.var(dim=0)[region].sum()),
        "variance_exact": float(draws.var(dim=0)[region].sum()),
        **_bands("band", samples),
        **_bands("exact_band", draws),
        "coverage": float(np.mean([coverage(samples[:COVERING], y, region) for y in truths])),
        "slope": float(slope),
        "curvature": float(curvature),
        **{f"ssim_{name}": float(torch.cat([ssim(x, y) for y in truths]).mean()) for name, x in found.items()},
        **{f"psnr_{name}": float(torch.cat([psnr(x, y) for y in truths]).mean()) for name, x in found.items()},
    }


def _bands(name, samples):
    variances = variance_by_frequency(samples, torch.tensor(EDGES)).tolist()
    return {f"{name}_{i}": variance for i, variance in enumerate(variances)}


def _half_spread(draws):
    """Half the mean |y - y'| over pairs of draws: the CRPS of the true distribution; (B, C, H, W)."""
    ordered, count = draws.sort(dim=0).values, len(draws)
    places = torch.arange(count) * 2 - count + 1
    return torch.einsum("s,s...->...", places.to(ordered.dtype), ordered) / (count * (count - 1))


def measure_fields(sample: Callable[[Tensor, list[int]], Tensor], fields: list, num_samples: int) -> pd.DataFrame:
    """A row of `score_field` for each of the fields, (vessels, draws), of what
    sample(vessels, seeds) returns.
    """
    rows = []
    for index, (vessels, draws) in enumerate(tqdm(fields, desc="fields", leave=False)):
        seeds = [1000 * index + number for number in range(num_samples)]
        rows.append({"field": index} | score_field(sample(vessels, seeds), draws))
    return pd.DataFrame(rows)


def samples_of(
    model: UNet, schedule: NoiseSchedule, num_steps: int, sampler: Callable, vessels: Tensor, seeds: list[int]
) -> Tensor:
    """A network's samples (S, 1, H, W), one for each seed, for the vessels (1, H, W) of a field."""
    conditions = vessels.expand(len(seeds), *vessels.shape)
    return predict_unet(model, schedule, conditions, num_steps, seeds, sampler=sampler)[0]


def more_draws(vessels: Tensor, seeds: list[int]) -> Tensor:
    """Exact draws in the place of a network's samples; as `samples_of`."""
    image, maps = (vessels[0].numpy() + 1) / 2, []
    for seed in seeds:
        nuclei = simulate_nuclei(np.random.default_rng([DEVELOPMENT_SEED, 1, seed]), image)
        maps.append(to_tensor(simulate_nanoparticles(image, nuclei)))
    return torch.stack(maps)


def summarise_fields(table: pd.DataFrame) -> pd.Series:
    """What the bounds are about: ratios of spreads (also by band, of those with 1 % of the variance) and of CRPS,
    pooled over fields, and means of the rest.
    """
    sums = table.sum(numeric_only=True)
    found = {"spread ratio": (sums.variance / sums.variance_exact) ** 0.5, "CRPS ratio": sums.crps / sums.crps_exact}
    exact = sums.filter(like="exact_band")
    for i, share in enumerate(exact / exact.sum()):
        if share >= 0.01:
            found[f"spread ratio, band {i}"] = (sums[f"band_{i}"] / exact.iloc[i]) ** 0.5
    means = table[["coverage", "slope", "curvature", *table.filter(regex="ssim|psnr")]].mean()
    return pd.concat([pd.Series(found), means])


def with_intervals(table: pd.DataFrame, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """The summary with its 95 % bootstrap intervals over fields: columns value, low, high."""
    rng = np.random.default_rng(seed)
    drawn = [summarise_fields(table.iloc[rng.integers(len(table), size=len(table))]) for _ in range(resamples)]
    low, high = np.nanpercentile(pd.DataFrame(drawn), [2.5, 97.5], axis=0)
    return pd.DataFrame({"value": summarise_fields(table), "low": low, "high": high})


def train_branch(arguments: argparse.Namespace, folder: Path) -> tuple[UNet, NoiseSchedule]:
    """The network of these options, trained on consistent pairs or taken from its folder."""
    schedule = SCHEDULES[arguments.schedule]()
    config = UNetConfig(2, 1, tuple(arguments.widths), 64)
    torch.manual_seed(arguments.seed)
    regression = arguments.prediction == "regression"
    model = RegressionUNet(config) if regression else UNet(config, TYPES[arguments.prediction])
    patches = SyntheticTumours(arguments.patches, arguments.size, arguments.seed + 1, divergent_fraction=0.0)
    patches = Kept(patches, ("target", "primary"))
    settings = TrainConfig(
        num_steps=arguments.steps,
        batch_size=arguments.batch,
        learning_rate=arguments.learning_rate,
        ema_decay=arguments.ema,
        seed=arguments.seed,
    )
    for _ in fit(model, schedule, patches, settings, squared_error, folder=folder):
        pass
    return load_checkpoint(folder / "model.safetensors")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prediction", choices=[*TYPES, "regression", "exact"], default="preconditioned")
    parser.add_argument("--schedule", choices=SCHEDULES, default="shifted")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--widths", type=int, nargs=4, default=(16, 16, 32, 64))
    parser.add_argument("--patches", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fields", type=int, default=64)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--sampler", nargs="+", default=["sde:20"], help=f"NAME:STEPS of {', '.join(SAMPLERS)}")
    parser.add_argument("--field-seed", type=int, default=DEVELOPMENT_SEED)
    return parser.parse_args()


def summarise_folder(folder: Path) -> pd.DataFrame:
    """The scores of all tables in the folder, with their intervals: a row for each table and score."""
    parts = []
    for path in sorted(folder.glob("*-fields-*.csv")):
        table = pd.read_csv(path)
        about = table[ABOUT].iloc[0]
        scores = with_intervals(table.drop(columns=ABOUT)).rename_axis("score").reset_index()
        parts.append(scores.assign(**about)[[*ABOUT, *scores]])
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    arguments = parse()
    name, measured = ("-".join(str(getattr(arguments, x)) for x in names) for names in (NETWORK, MEASURED))
    if arguments.prediction != "exact":
        model, schedule = train_branch(arguments, arguments.out / name)
    fields = [
        exact_draws(index, arguments.size, arguments.draws, arguments.field_seed)
        for index in tqdm(range(arguments.fields), desc="exact draws")
    ]
    for chosen in ["exact:0"] if arguments.prediction == "exact" else arguments.sampler:
        sampler, _, num_steps = chosen.partition(":")
        path = arguments.out / f"{name}-{sampler}-{num_steps}-fields-{measured}.csv"
        if not path.is_file():
            sample = more_draws
            if arguments.prediction != "exact":
                sample = partial(samples_of, model, schedule, int(num_steps), SAMPLERS[sampler])
            table = measure_fields(sample, fields, arguments.samples)
            about = vars(arguments) | dict(sampler=sampler, num_steps=int(num_steps))
            with atomic_write(path) as whole:
                table.assign(**{column: about[column] for column in ABOUT}).to_csv(whole, index=False)
        print(path.stem, summarise_fields(pd.read_csv(path)).round(3).to_dict())
    with atomic_write(arguments.out / "summary.csv") as whole:
        summarise_folder(arguments.out).round(4).to_csv(whole, index=False)


if __name__ == "__main__":
    main()
