"""Latents beside pixels, after about as long a training: tables of chapter 13.

    python -m damm_lite.experiments.latents --out _build/latents
    python -m damm_lite.experiments.latents --out _build/latents --slide 4096

The first trains the book's autoencoder, a network on its latents, and one of
the same widths on pixels; `training.csv` says what each took, or, where it had
begun before, what was left of it. `latents.csv` has a row for each way to
predict and each test field of 256 pixels; "round trip" is the field itself,
encoded and decoded, which nothing in latents can be expected to beat. The
second, which needs Linux, predicts a slide in latents, too, and one of a quarter
of its side in pixels; `slides.csv` has seconds and memory. What is there is not
done again, and an interrupted training goes on where it was. With --weights the
network on latents is stored in that file.
"""

import argparse
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import tifffile
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from damm_lite.autoencoder import Autoencoder, LatentDAMMNet
from damm_lite.checkpoint import load_checkpoint, save_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.data import to_tensor
from damm_lite.experiments.autoencoders import (
    BATCH,
    FIELD,
    FIELDS,
    IMAGES,
    SHIPPED,
    SIDE,
    TEST_SEED,
    VARIANTS,
    train_autoencoder,
)  # fmt: skip
from damm_lite.experiments.held_out import gather, once
from damm_lite.experiments.methods import BRANCH, MISMATCHES, Budget, Trained, begin, damm
from damm_lite.experiments.runs import TRAIN_SEED, about_run
from damm_lite.experiments.study import field_patches, folder_name, scored
from damm_lite.losses import our_loss
from damm_lite.resumable import MODEL
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import UNetConfig
from damm_lite.whole_slide import Tiling, predict_slide

SAMPLES, PIXEL = 4, 0.002  # of a field; mm
# Side of the training patches, and steps such that both take about as long on one core.
BUDGETS = {"latents": Budget(size=128, patches=1536, steps=1600), "pixels": Budget(size=64, patches=4096, steps=1000)}


class Way(NamedTuple):
    """How a field is predicted."""

    network: str
    tiling: Tiling
    num_steps: int = 20
    gate: str = "damm"


WHOLE = Tiling(FIELD, 0)
WAYS = {
    "latents, whole": Way("latents", WHOLE),
    "latents, tiles": Way("latents", Tiling(128, 32)),
    "pixels, whole": Way("pixels", WHOLE),
    "pixels, tiles": Way("pixels", Tiling(64, 16)),
    "latents, whole, 2 steps": Way("latents", WHOLE, 2),
    "pixels, whole, 2 steps": Way("pixels", WHOLE, 2),
    "latents, whole, multi": Way("latents", WHOLE, gate="multi"),
    "pixels, whole, multi": Way("pixels", WHOLE, gate="multi"),
}
SLIDES = {"latents": Way("latents", Tiling(FIELD, 32, batch_size=4)), "pixels": WAYS["pixels, tiles"]}


def in_latents(autoencoder: Autoencoder) -> LatentDAMMNet:
    """A network on its latents, of the widths that the study's networks have."""
    channels = autoencoder.config.latent_channels
    network = LatentDAMMNet(UNetConfig(2 * channels, channels, BRANCH, 64), autoencoder.config.widths)
    network.autoencoder.load_state_dict(autoencoder.state_dict())
    return network


def patches_of(budget: Budget) -> SyntheticTumours:
    """The patches of a training, one in ten divergent."""
    return SyntheticTumours(budget.patches, budget.size, TRAIN_SEED, divergent_fraction=0.1)


def own_autoencoder(folder: Path) -> Autoencoder:
    """The book's; trained where it is not there yet."""
    return train_autoencoder(VARIANTS[SHIPPED], folder / "autoencoders" / folder_name(SHIPPED, 0))


def on_latents(folder: Path) -> LatentDAMMNet:
    """A network trained on patches whose target is its latent."""
    autoencoder, budget = own_autoencoder(folder), BUDGETS["latents"]
    with torch.inference_mode():
        items = [item | {"target": autoencoder.encode(item["target"][None])[0]} for item in patches_of(budget)]
    *_, last = begin(partial(in_latents, autoencoder), our_loss, MISMATCHES, budget, items, 0, folder / "latents")
    return last.ema


def on_pixels(folder: Path) -> DAMMNet:
    """The study's network, trained on the patches as they are."""
    budget = BUDGETS["pixels"]
    *_, last = begin(damm, our_loss, MISMATCHES, budget, list(patches_of(budget)), 0, folder / "pixels")
    return last.ema


def training(train: Callable[[Path], nn.Module], steps: int, size: int, folder: Path) -> pd.DataFrame:
    """The row of a training: processor seconds, simulation included, and the area of its batches, repeats included."""
    start = time.process_time()
    network = train(folder)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    seconds, tissue = time.process_time() - start, steps * BATCH * (PIXEL * size) ** 2
    return pd.DataFrame([dict(parameters=parameters, steps=steps, size=size, square_mm=tissue, seconds=seconds)])


def trainings() -> dict[str, Callable[[Path], pd.DataFrame]]:
    """{network: its `training`}, in the order in which they need each other."""
    found = {"autoencoder": partial(training, own_autoencoder, VARIANTS[SHIPPED].steps, SIDE)}
    for name, train in {"latents": on_latents, "pixels": on_pixels}.items():
        found[name] = partial(training, train, BUDGETS[name].steps, BUDGETS[name].size)
    return found


def in_unit_range(image: Tensor) -> np.ndarray:
    """An image (C, H, W) in [-1, 1], in [0, 1]."""
    return ((image + 1) / 2).numpy()


def drawn_by_tiles(network: Trained, way: Way, field: dict) -> Tensor:
    """Samples (S, 1, 1, H, W) of one field, each from its own noise."""
    samples, pair = [], [in_unit_range(field[role]) for role in ("primary", "secondary")]
    with TemporaryDirectory() as folder:
        for seed in range(SAMPLES):
            path = Path(folder) / f"{seed}.tif"
            predict_slide(*network, *pair, path, way.num_steps, way.gate, replace(way.tiling, seed=seed))
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
    fields = list(SyntheticTumours(16, FIELD, TEST_SEED, 0.0))
    for role in ("primary", "secondary"):
        images = [in_unit_range(field[role])[0] for field in fields]
        mosaic = np.block([images[4 * row : 4 * row + 4] for row in range(4)])
        repeated = np.tile(mosaic, (-(-side // len(mosaic)),) * 2)[:side, :side]
        tifffile.imwrite(folder / f"{role}-{side}.tif", repeated.astype(np.float32))


def peak_memory() -> float:
    """The most that this process has held, in MB; `resource` would count what its parent held, too."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def predict_one_slide(way: Way, side: int, folder: Path) -> dict:
    """Seconds and memory, in MB over what the process had before; for a process of its own."""
    network = load_checkpoint(folder / way.network / MODEL)
    pair = [tifffile.memmap(folder / f"{role}-{side}.tif", mode="r")[None] for role in ("primary", "secondary")]
    path, before, start = folder / f"{way.network}-{side}.tif", peak_memory(), time.perf_counter()
    predict_slide(*network, *pair, path, way.num_steps, way.gate, way.tiling)
    seconds, more = time.perf_counter() - start, peak_memory() - before
    path.unlink()
    return dict(side=side, tile=way.tiling.tile, seconds=seconds, megabytes=more, threads=torch.get_num_threads())


def slide(name: str, side: int, folder: Path) -> pd.DataFrame:
    """The row of a slide of this side in latents, or of a quarter of it in pixels."""
    side = side if name == "latents" else side // 4
    write_slide(side, folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return pd.DataFrame([alone.submit(predict_one_slide, SLIDES[name], side, folder).result()])


def store(path: Path, network: Trained, took: pd.DataFrame) -> None:
    """Write the network on latents as the book ships it."""
    took = took.set_index("network").loc[["autoencoder", "latents"]]
    minutes, steps = round(took["seconds"].sum() / 60, 1), took["steps"].tolist()
    save_checkpoint(path, *network, **about_run(torch.device("cpu"), seed=0, steps=steps, minutes=minutes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slide", type=int, help="side of a slide in pixels, a multiple of 4096")
    parser.add_argument("--weights", type=Path, help="where to store the network on latents")
    arguments = parser.parse_args()
    folder, batch = arguments.out, field_patches(FIELDS, FIELD, TEST_SEED)
    for name, train in trainings().items():
        once(folder / "training" / name, partial(train, folder), network=name)
    gather(folder / "training.csv", "training/*/scores.csv")
    networks = {name: load_checkpoint(folder / name / MODEL) for name in BUDGETS}
    if arguments.weights:
        store(arguments.weights, networks["latents"], pd.read_csv(folder / "training.csv"))
    ways = {name: partial(drawn_by_tiles, networks[way.network], way) for name, way in WAYS.items()}
    for name, draw in ({"round trip": partial(round_trip, networks["latents"][0])} | ways).items():
        once(folder / "fields" / folder_name(name, 0), partial(scores, draw, batch), method=name)
        gather(folder / "latents.csv", "fields/*/scores.csv")
    for name in SLIDES if arguments.slide else ():
        once(folder / "slides" / name, partial(slide, name, arguments.slide, folder), network=name)
        gather(folder / "slides.csv", "slides/*/scores.csv")


if __name__ == "__main__":
    main()
