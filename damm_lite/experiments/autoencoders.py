"""Autoencoders, and what comes back of images: a table of chapter 13.

    python -m damm_lite.experiments.autoencoders --out _build/latents/autoencoders
    python -m damm_lite.experiments.autoencoders --out FOLDER --brains CASES

Trains the autoencoders of `VARIANTS` on simulated images of all three kinds.
`reconstructions.csv` has a row for each autoencoder, kind of image and image.
By the fields "development" a variant is chosen. The one that is shipped is then
tested on others, and with --brains on the middle slice of each real patient of
a folder, inside the brain; no autoencoder has seen one. What is there is not
done again, and an interrupted training goes on where it was.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from damm_lite.autoencoder import RANGE, Autoencoder, AutoencoderConfig, autoencoder_loss, standardise
from damm_lite.brains.brats import BraTSSliceDataset
from damm_lite.data import stack
from damm_lite.experiments.held_out import gather, once
from damm_lite.experiments.runs import TRAIN_SEED
from damm_lite.experiments.study import field_patches, folder_name
from damm_lite.metrics import evaluate_inside, psnr, ssim
from damm_lite.resumable import fit
from damm_lite.schedules import shifted_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours.synthetic import SyntheticTumours

IMAGES = {"target": "NP", "primary": "vessels", "secondary": "nuclei"}
FIELD, FIELDS = 256, 8  # side of a field in pixels of 2 µm, and how many are measured
DEVELOPMENT_SEED, TEST_SEED = 6_000_001, 5_000_001  # of the fields
SIDE, PATCHES, BATCH = 32, 2048, 16  # of the training
NOISE = 0.05  # what is added to latents, those of NP maps having a spread of 1/3, to see what a small error becomes


class Variant(NamedTuple):
    """An autoencoder, and how it is trained."""

    latent_channels: int = 8
    widths: tuple = (16, 32, 64)
    kl_weight: float = 1e-3
    steps: int = 6000


SHIPPED = "KL, long"
VARIANTS = {
    SHIPPED: Variant(),
    "KL": Variant(steps=2000),
    "no KL": Variant(kl_weight=0.0, steps=2000),
    "KL x 30": Variant(kl_weight=3e-2, steps=2000),
    "2 channels": Variant(2, steps=2000),
}


def train_autoencoder(variant: Variant, folder: Path) -> Autoencoder:
    """Train one on three images of each patch, resumably in `folder`, and
    bring its latents to the scale of nanoparticle maps.
    """
    items = [{"target": item[role]} for item in SyntheticTumours(PATCHES, SIDE, TRAIN_SEED) for role in IMAGES]
    config = TrainConfig(variant.steps, BATCH, learning_rate=2e-3, seed=0)
    loss = partial(autoencoder_loss, kl_weight=variant.kl_weight)
    torch.manual_seed(0)
    network = Autoencoder(AutoencoderConfig(variant.latent_channels, variant.widths))
    *_, last = fit(network, shifted_schedule(), items, config, loss, folder=folder)
    autoencoder = last.ema.eval()
    standardise(autoencoder, torch.stack([item["target"] for item in items[:: len(IMAGES)]]).split(256))
    return autoencoder


def image_scores(back: Tensor, images: Tensor, region: Tensor | None) -> pd.DataFrame:
    """SSIM and PSNR, a row for each of the images (B, 1, H, W), whole or where `region`, of their shape, is 1."""
    if region is None:
        return pd.DataFrame({"ssim": ssim(back, images).numpy(), "psnr": psnr(back, images).numpy()})
    parts = zip(*(x.split(1) for x in (back, images, region)), strict=True)
    return pd.DataFrame([evaluate_inside(*part) for part in parts])


@torch.inference_mode()
def reconstructed(autoencoder: Autoencoder, images: Tensor, region: Tensor | None = None) -> pd.DataFrame:
    """`image_scores` of what comes back of images (B, 1, H, W), with the SSIM
    after noise on the latents, and how many numbers a latent has.
    """
    latents = torch.cat([autoencoder.encode(image) for image in images.split(4)])
    noise = NOISE * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    back, disturbed = (torch.cat([autoencoder.decode(part) for part in x.split(4)]) for x in (latents, latents + noise))
    noisy = image_scores(disturbed, images, region)["ssim"]
    return image_scores(back, images, region).assign(ssim_noise=noisy, numbers=latents[0].numel())


def reconstructions(name: str, folder: Path, images: dict[str, tuple]) -> pd.DataFrame:
    """Rows of `reconstructed` for each kind of images, with their region if there is one, by the autoencoder of this
    name; with its latents' spread before they were scaled.
    """
    autoencoder = train_autoencoder(VARIANTS[name], folder)
    tables = [reconstructed(autoencoder, *pair).assign(image=kind) for kind, pair in images.items()]
    return pd.concat(tables).assign(autoencoder=name, spread=(autoencoder.scale / RANGE).mean().item())


def simulated_fields(seed: int) -> dict[str, tuple[Tensor]]:
    """Images (B, 1, H, W) of each kind."""
    batch = field_patches(FIELDS, FIELD, seed)
    return {kind: (batch[role],) for role, kind in IMAGES.items()}


def middle_slices(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The middle slice of each patient of a folder of cases, 1.5 mm a pixel, by contrast, to score in the brain."""
    slices = BraTSSliceDataset(folder, "flair", "t1", "t2", 128, slices_per_case=3, skip_bad=True)
    batch = stack(slices[i] for i in range(1, len(slices), 3))
    roles = {"FLAIR": "target", "T1": "primary", "T2": "secondary"}
    return {name: (batch[role], batch["mask"]) for name, role in roles.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="AUTOENCODER")
    parser.add_argument("--brains", type=Path, help="a folder of real cases")
    arguments = parser.parse_args()
    place = arguments.out / folder_name(SHIPPED, 0)
    development, test = simulated_fields(DEVELOPMENT_SEED), simulated_fields(TEST_SEED)
    for name in arguments.only:
        own = arguments.out / folder_name(name, 0)
        once(own, partial(reconstructions, name, own, development), fields="development")
    once(arguments.out / "test", partial(reconstructions, SHIPPED, place, test), fields="test")
    if arguments.brains:
        brains = middle_slices(arguments.brains)
        once(arguments.out / "patients", partial(reconstructions, SHIPPED, place, brains), fields="patients")
    gather(arguments.out / "reconstructions.csv", "*/scores.csv")


if __name__ == "__main__":
    main()
