"""The tables of latents: tiny runs of the commands that make them, and what the stored ones say."""

import subprocess
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
from damm_lite.experiments.latents import Way
from damm_lite.experiments.methods import Budget
from damm_lite.whole_slide import Tiling

TINY = Variant(4, (8, 8), steps=3)


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both commands, of fields of 64 pixels and a few training steps."""
    folder = tmp_path_factory.mktemp("latents")
    with pytest.MonkeyPatch.context() as patch:
        for module in (autoencoders, latents):
            patch.setattr(module, "FIELD", 64)
            patch.setattr(module, "VARIANTS", {autoencoders.SHIPPED: TINY, "no KL": TINY._replace(kl_weight=0.0)})
        patch.setattr(autoencoders, "PATCHES", 8)
        tiny = {"latents": Budget(size=32, patches=8, steps=2), "pixels": Budget(size=16, patches=8, steps=2)}
        patch.setattr(latents, "BUDGETS", tiny)
        ways = {"latents, whole": Way("latents", Tiling(64, 0), 2), "pixels, tiles": Way("pixels", Tiling(32, 8), 2)}
        patch.setattr(latents, "WAYS", ways)
        patch.setattr(latents, "SLIDES", {way.network: way for way in ways.values()})
        patch.setattr(sys.modules["__main__"], "__spec__", latents.__spec__)
        brains = dl.fetch("brain_sample")
        run(autoencoders, patch, "--out", folder / "autoencoders", "--brains", brains)
        weights = folder / "weights.safetensors"
        run(latents, patch, "--out", folder, "--slide", 256, "--weights", weights)
    return folder


def test_rows_of_all_images_that_come_back(folder):
    found = pd.read_csv(folder / "autoencoders" / "reconstructions.csv")
    counts = found.groupby(["fields", "autoencoder", "image"]).size()
    assert len(counts["development"]) == 6 and (counts["development"] == 8).all()
    assert counts["test"].to_dict() == {(autoencoders.SHIPPED, kind): 8 for kind in ("NP", "vessels", "nuclei")}
    assert counts["patients"].to_dict() == {(autoencoders.SHIPPED, kind): 4 for kind in ("FLAIR", "T1", "T2")}
    numbers = found.groupby("fields")["numbers"].unique()
    assert numbers["test"] == [4 * 32 * 32] and numbers["patients"] == [4 * 64 * 64], "4 channels at half the side"
    own = found[found["autoencoder"] == autoencoders.SHIPPED].set_index("fields")["ssim"]
    assert set(own["test"]).isdisjoint(own["development"]), "tested on other fields than it was chosen on"
    assert found[["ssim", "psnr", "ssim_noise"]].notna().all(axis=None)


def test_rows_of_both_networks_and_of_the_round_trip(folder):
    found = pd.read_csv(folder / "latents.csv")
    assert sorted(found["method"].unique()) == ["latents, whole", "pixels, tiles", "round trip"]
    assert (found.groupby("method")["kind"].value_counts().unstack()["none"] == 4).all()
    training = pd.read_csv(folder / "training.csv").set_index("network")
    assert list(training.index) == ["autoencoder", "latents", "pixels"]
    assert training.loc["latents", "parameters"] == pytest.approx(training.loc["pixels", "parameters"], rel=0.02)
    assert training.loc["latents", "square_mm"] == pytest.approx(2 * 16 * 0.064**2, abs=1e-5)
    slides = pd.read_csv(folder / "slides.csv").set_index("network")["side"]
    assert slides.to_dict() == {"latents": 256, "pixels": 64} and not list(folder.glob("latents-*.tif"))


def test_memory_is_of_the_process_alone():
    """What its parent held does not count; `resource` counts it."""
    ballast = np.ones((2**20, 64))  # 512 MB
    call = "from damm_lite.experiments.latents import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    assert ballast.nbytes / 2**20 < latents.peak_memory()
    assert 50 < float(child.stdout) < latents.peak_memory() - 200


def test_the_network_that_is_stored_is_the_one_that_was_trained(folder):
    stored, own = (
        dl.load_checkpoint(folder / name)[0] for name in ("weights.safetensors", "latents/model.safetensors")
    )
    assert isinstance(stored, LatentDAMMNet)
    assert all(torch.equal(x, own.state_dict()[key]) for key, x in stored.state_dict().items())


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


def test_what_lies_outside_the_region_does_not_count():
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(4, (8, 16))).eval()
    images, region = torch.rand(2, 1, 32, 32) * 2 - 1, torch.zeros(2, 1, 32, 32)
    region[..., :16] = 1
    found = autoencoders.reconstructed(autoencoder, images, region)
    with torch.inference_mode():
        error = (autoencoder.decode(autoencoder.encode(images)) - images)[..., :16].square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(4 / error), rtol=1e-5)


@pytest.mark.parametrize("name", ["reconstructions", "latents", "latent_training", "latent_slides"])
def test_stored_tables_are_whole(name):
    assert dl.load_results(name).drop(columns="psnr", errors="ignore").notna().all(axis=None)


def test_the_shipped_network_reconstructs_as_its_table_says():
    """The table's first fields, again."""
    network, _ = dl.load_pretrained("latent-128")
    images = autoencoders.simulated_fields(autoencoders.TEST_SEED)
    table = dl.load_results("reconstructions").set_index(["fields", "image"]).loc["test"]
    for kind, (x,) in images.items():
        found = autoencoders.reconstructed(network.autoencoder, x[:2])
        for score in ("ssim", "ssim_noise"):
            np.testing.assert_allclose(found[score], table.loc[kind, score][:2], atol=1e-3)
