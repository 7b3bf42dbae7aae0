"""Does a network sample? Its samples beside exact draws from the simulator.

    python -m damm_lite.experiments.sampling --out runs/sampling OPTIONS

trains a U-Net on vessels alone, samples for vessel fields that it has not
seen, and compares with maps that the simulator draws for the same vessels:
the true conditional distribution (with --prediction exact, further maps take
the network's place). The folder gets a folder for the network, and for each
sampler and number of steps a table with a row for each field; fields.csv holds
all of them, and summary.csv their scores, with intervals over fields. What is
there is not done again, and an interrupted training goes on where it was.

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
from damm_lite.experiments.field_scores import score_field, summarise_fields, with_intervals
from damm_lite.experiments.runs import Kept
from damm_lite.losses import squared_error
from damm_lite.predict import predict_unet
from damm_lite.resumable import fit
from damm_lite.schedules import NoiseSchedule, scaled_linear_schedule, shifted_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours.simulate import simulate_nanoparticles, simulate_nuclei, simulate_vessels
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import RegressionUNet, UNet, UNetConfig

DEVELOPMENT_SEED = 4_000_001
NETWORK = ["prediction", "schedule", "size", "steps", "batch", "seed"]
MEASURED = ["fields", "draws", "samples", "field_seed"]
ABOUT = [*NETWORK, "sampler", "num_steps", *MEASURED]  # columns of the tables
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


def tables_of(folder: Path) -> list[pd.DataFrame]:
    """All tables in the folder, with a row for each field."""
    return [pd.read_csv(path) for path in sorted(folder.glob("*-fields-*.csv"))]


def summarise(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The scores of all tables, with their intervals: a row for each table and score."""
    parts = []
    for table in tables:
        scores = with_intervals(table.drop(columns=ABOUT)).rename_axis("score").reset_index()
        parts.append(scores.assign(**table[ABOUT].iloc[0])[[*ABOUT, *scores]])
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
    tables = tables_of(arguments.out)
    for name, found in (("summary", summarise(tables).round(4)), ("fields", pd.concat(tables).round(5))):
        with atomic_write(arguments.out / f"{name}.csv") as whole:
            found.to_csv(whole, index=False)


if __name__ == "__main__":
    main()
