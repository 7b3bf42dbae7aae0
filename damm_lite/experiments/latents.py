"""Latents beside pixels, at equal training time: the tables of chapter 13.

    python -m damm_lite.experiments.latents --out _build/latents
    python -m damm_lite.experiments.latents --out _build/latents --slide 4096

The first trains the book's autoencoder, a network on its latents, and one of
the same widths on pixels. `latents.csv` has a row for each way to predict and
each held-out field of 256 pixels; "round trip" is the field itself, encoded
and decoded, above which nothing in latents can come. The second predicts a
slide in latents, and one of a quarter of its side in pixels; `slide.csv` has
seconds and memory. What is there is not done again, and an interrupted
training goes on where it was.
"""

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import tifffile
import torch
from torch import Tensor
from tqdm.auto import tqdm

from damm_lite.autoencoder import Autoencoder, LatentDAMMNet
from damm_lite.checkpoint import load_checkpoint
from damm_lite.data import to_tensor
from damm_lite.experiments.autoencoders import FIELD, FIELD_SEED, IMAGES, SHIPPED, VARIANTS, train_autoencoder
from damm_lite.experiments.held_out import gather, once
from damm_lite.experiments.methods import BRANCH, MISMATCHES, Budget, Trained, begin, damm
from damm_lite.experiments.runs import TRAIN_SEED
from damm_lite.experiments.study import field_patches, folder_name, scored
from damm_lite.losses import our_loss
from damm_lite.resumable import MODEL
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import UNetConfig
from damm_lite.whole_slide import Tiling, predict_slide

NETWORKS = "latents", "pixels"
STEPS, SAMPLES = 20, 4
# Side of the training patches, and steps such that both take as long on one core.
BUDGETS = {"latents": Budget(size=128, patches=1536, steps=1600), "pixels": Budget(size=64, patches=4096, steps=1000)}


def in_latents(autoencoder: Autoencoder) -> LatentDAMMNet:
    """A network on its latents, of the widths that the study's networks have."""
    channels = autoencoder.config.latent_channels
    network = LatentDAMMNet(UNetConfig(2 * channels, channels, BRANCH, 64), autoencoder.config.widths)
    network.autoencoder.load_state_dict(autoencoder.state_dict())
    return network


@torch.inference_mode()
def latent_items(autoencoder: Autoencoder) -> list[dict]:
    """The training's patches, whose target is its latent."""
    return [item | {"target": autoencoder.encode(item["target"][None])[0]} for item in patches_of(BUDGETS["latents"])]


def patches_of(budget: Budget) -> SyntheticTumours:
    """The patches of a training, one in ten divergent."""
    return SyntheticTumours(budget.patches, budget.size, TRAIN_SEED, divergent_fraction=0.1)


def how_trained(name: str, folder: Path) -> tuple[Callable, list[dict]]:
    """What is trained for as long as the other, and on what."""
    if name == "pixels":
        return damm, list(patches_of(BUDGETS[name]))
    autoencoder = train_autoencoder(VARIANTS[SHIPPED], folder / "autoencoders" / folder_name(SHIPPED, 0))
    return partial(in_latents, autoencoder), latent_items(autoencoder)


def training(name: str, folder: Path) -> pd.DataFrame:
    """Train one network, in the folder of its name; a row with what it took."""
    start = time.process_time()
    build, items = how_trained(name, folder)
    budget, prepared = BUDGETS[name], time.process_time()
    *_, last = begin(build, our_loss, MISMATCHES, budget, items, 0, folder / name)
    seconds = dict(preparing=prepared - start, training=time.process_time() - prepared)
    numbers = sum(p.numel() for p in last.ema.parameters() if p.requires_grad)
    return pd.DataFrame([dict(parameters=numbers, steps=budget.steps, size=budget.size, **seconds)])


WAYS = {
    "latents, tiles": ("latents", Tiling(128, 32)),
    "latents, whole": ("latents", Tiling(FIELD, 0)),
    "pixels, tiles": ("pixels", Tiling(64, 16)),
    "pixels, whole": ("pixels", Tiling(FIELD, 0)),
}
SLIDE_TILES = {"latents": Tiling(FIELD, 32, batch_size=4), "pixels": Tiling(64, 16)}


def in_unit_range(image: Tensor) -> np.ndarray:
    """An image (C, H, W) in [-1, 1], in [0, 1]."""
    return ((image + 1) / 2).numpy()


def drawn_by_tiles(network: Trained, tiling: Tiling, field: dict) -> Tensor:
    """Samples (S, 1, 1, H, W) of one field, each from its own noise."""
    samples, pair = [], [in_unit_range(field[role]) for role in ("primary", "secondary")]
    with TemporaryDirectory() as folder:
        for seed in range(SAMPLES):
            path = Path(folder) / f"{seed}.tif"
            predict_slide(*network, *pair, path, STEPS, tiling=replace(tiling, seed=seed))
            samples.append(to_tensor(tifffile.imread(path)))
    return torch.stack(samples)


def scores(draw: Callable[[dict], Tensor], batch: dict) -> pd.DataFrame:
    """A row for each field of a batch."""
    rows = []
    for i, kind in enumerate(tqdm(batch["kind"], "fields")):
        field = {role: batch[role][i] for role in IMAGES}
        start = time.process_time()
        samples = draw(field)
        found = {name: x.item() for name, x in scored(samples, field["target"][None]).items()}
        rows.append(dict(index=i, kind=kind, **found, seconds=(time.process_time() - start) / len(samples)))
    return pd.DataFrame(rows)


@torch.inference_mode()
def round_trip(network: LatentDAMMNet, field: dict) -> Tensor:
    """The field itself as it comes back of its latent; (1, 1, 1, H, W)."""
    return network.from_latent(network.to_latent(field["target"][None]))[None]


def write_slide(side: int, folder: Path) -> None:
    """Vessels and nuclei of a slide: sixteen simulated fields, repeated."""
    fields = list(SyntheticTumours(16, FIELD, FIELD_SEED, 0.0))
    for role in ("primary", "secondary"):
        images = [in_unit_range(field[role])[0] for field in fields]
        mosaic = np.block([images[4 * row : 4 * row + 4] for row in range(4)])
        repeated = np.tile(mosaic, (-(-side // len(mosaic)),) * 2)[:side, :side]
        tifffile.imwrite(folder / f"{role}-{side}.tif", repeated.astype(np.float32))


def predict_one_slide(name: str, side: int, tiling: Tiling, folder: Path) -> dict:
    """Seconds and memory, in MB over what the process had before; for a process of its own."""
    network = load_checkpoint(folder / name / MODEL)
    pair = [tifffile.memmap(folder / f"{role}-{side}.tif", mode="r")[None] for role in ("primary", "secondary")]
    path, before = folder / f"{name}-{side}.tif", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    predict_slide(*network, *pair, path, STEPS, tiling=tiling)
    seconds, path_size = time.perf_counter() - start, path.stat().st_size
    path.unlink()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return dict(side=side, tile=tiling.tile, seconds=seconds, megabytes=more, file=path_size / 2**20)


def slide(name: str, side: int, folder: Path) -> pd.DataFrame:
    """The row of a slide of this side in latents, or of a quarter of it in pixels."""
    side = side if name == "latents" else side // 4
    write_slide(side, folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        row = alone.submit(predict_one_slide, name, side, SLIDE_TILES[name], folder).result()
    return pd.DataFrame([row]).assign(threads=torch.get_num_threads())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--fields", type=int, default=8, help="of the test, a multiple of 8")
    parser.add_argument("--slide", type=int, help="side of a slide in pixels, a multiple of 4096")
    arguments = parser.parse_args()
    folder, batch = arguments.out, field_patches(arguments.fields, FIELD, FIELD_SEED)
    for name in arguments.only:
        once(folder / "training" / name, partial(training, name, folder), network=name)
        network = load_checkpoint(folder / name / MODEL)
        ways = {way: partial(drawn_by_tiles, network, tiling) for way, (key, tiling) in WAYS.items() if key == name}
        if name == "latents":
            ways["round trip"] = partial(round_trip, network[0])
        for way, draw in ways.items():
            once(folder / "fields" / folder_name(way, 0), partial(scores, draw, batch), method=way)
        if arguments.slide:
            once(folder / "slides" / name, partial(slide, name, arguments.slide, folder), network=name)
    tables = {"training": "training", "latents": "fields"} | ({"slides": "slides"} if arguments.slide else {})
    for table, parts in tables.items():
        gather(folder / f"{table}.csv", f"{parts}/*/scores.csv")


if __name__ == "__main__":
    main()
