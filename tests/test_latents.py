"""The tables of latents: tiny runs of the commands that make them, and what the stored ones say."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import structural_similarity

import damm_lite as dl
from damm_lite.autoencoder import Autoencoder, AutoencoderConfig, LatentDAMMNet
from damm_lite.experiments import autoencoders, latents
from damm_lite.experiments.autoencoders import Variant
from damm_lite.experiments.methods import Budget
from damm_lite.whole_slide import Tiling

TINY = Variant(4, (8, 8), steps=3)


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both commands, of fields of 64 pixels and three training steps."""
    folder = tmp_path_factory.mktemp("latents")
    with pytest.MonkeyPatch.context() as patch:
        for module in (autoencoders, latents):
            patch.setattr(module, "FIELD", 64)
            patch.setattr(module, "VARIANTS", {autoencoders.SHIPPED: TINY, "no KL": TINY._replace(kl_weight=0.0)})
        patch.setattr(autoencoders, "PATCHES", 8)
        tiny = {"latents": Budget(size=32, patches=8, steps=2), "pixels": Budget(size=16, patches=8, steps=2)}
        patch.setattr(latents, "BUDGETS", tiny)
        ways = {"latents, whole": ("latents", Tiling(64, 0)), "pixels, tiles": ("pixels", Tiling(32, 8))}
        patch.setattr(latents, "WAYS", ways)
        patch.setattr(latents, "STEPS", 2)
        brains = dl.fetch("brain_sample")
        run(autoencoders, patch, "--out", folder / "autoencoders", "--fields", 8, "--brains", brains)
        run(latents, patch, "--out", folder, "--fields", 8)
    return folder


def test_rows_of_all_images_that_come_back(folder):
    found = pd.read_csv(folder / "autoencoders" / "reconstructions.csv")
    counts = found.groupby(["autoencoder", "image"]).size()
    simulated = counts.loc[:, ["NP", "vessels", "nuclei"]]
    assert len(simulated) == 6 and (simulated == 8).all()
    assert (counts.loc[autoencoders.SHIPPED, ["FLAIR", "T1", "T2"]] == 4).all(), "a slice of each phantom"
    assert (found["numbers"] == 64 * 64).all(), "4 channels at half the side"
    assert found[["ssim", "psnr", "ssim_noise", "seconds"]].notna().all(axis=None)


def test_rows_of_both_networks_and_of_the_round_trip(folder):
    found = pd.read_csv(folder / "latents.csv")
    assert sorted(found["method"].unique()) == ["latents, whole", "pixels, tiles", "round trip"]
    assert (found.groupby("method")["kind"].value_counts().unstack()["none"] == 4).all()
    training = pd.read_csv(folder / "training.csv").set_index("network")
    assert training.loc["latents", "parameters"] == pytest.approx(training.loc["pixels", "parameters"], rel=0.02)
    network, _ = dl.load_checkpoint(folder / "latents" / "model.safetensors")
    assert isinstance(network, LatentDAMMNet)


def test_reconstruction_scores_are_of_the_images_that_come_back():
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(4, (8, 16))).eval()
    images = torch.rand(3, 1, 32, 32) * 2 - 1
    found = autoencoders.reconstructed(autoencoder, images)
    with torch.inference_mode():
        back = autoencoder.decode(autoencoder.encode(images))
    arrays = [(x.squeeze(1).numpy() + 1) / 2 for x in (back, images)]
    choices = dict(data_range=1.0, gaussian_weights=True, use_sample_covariance=False)
    expected = [structural_similarity(*pair, **choices) for pair in zip(*arrays, strict=True)]
    np.testing.assert_allclose(found["ssim"], expected, atol=1e-5)
    assert (found["ssim_noise"] != found["ssim"]).all()


@pytest.mark.parametrize("name", ["reconstructions", "latents", "latent_training", "latent_slides"])
def test_stored_tables_are_whole(name):
    assert dl.load_results(name).drop(columns="psnr", errors="ignore").notna().all(axis=None)


def test_the_shipped_network_reconstructs_as_its_table_says():
    network, _ = dl.load_pretrained("tumour-latent")
    images = dl.stack(dl.SyntheticTumours(4, 256, 77))
    table = dl.load_results("reconstructions")
    table = table[table["autoencoder"] == autoencoders.SHIPPED].groupby("image")["ssim"]
    for role, kind in autoencoders.IMAGES.items():
        found = autoencoders.reconstructed(network.autoencoder, images[role])["ssim"].mean()
        assert found == pytest.approx(table.mean()[kind], abs=max(4 * table.std()[kind], 0.01)), kind
