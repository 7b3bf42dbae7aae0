"""Latents: the autoencoder's sizes, its training by the common loop, and the network on them."""

import numpy as np
import pytest
import tifffile
import torch
from torch.distributions import Normal, kl_divergence

import damm_lite as dl
from damm_lite.autoencoder import (
    RANGE,
    Autoencoder,
    AutoencoderConfig,
    AutoencoderOutput,
    LatentDAMMNet,
    autoencoder_loss,
    standardise,
)
from damm_lite.data import generator_of
from damm_lite.predict import draw_sample
from damm_lite.whole_slide import Tiling, predict_slide

SMALL = AutoencoderConfig(4, (8, 16, 16))


def images(n=8, size=32, seed=0):
    return [item["target"] for item in dl.SyntheticTumours(n, size, seed)]


@pytest.mark.parametrize("widths, factor", [((8, 8, 16), 4), ((8, 8, 16, 16), 8), ((8, 8, 8, 8, 8), 16)])
def test_latents_are_smaller_by_the_factor(widths, factor):
    config = AutoencoderConfig(8, widths)
    autoencoder, x = Autoencoder(config).eval(), torch.rand(2, 1, 64, 32) * 2 - 1
    latent = autoencoder.encode(x)
    assert config.factor == factor and latent.shape == (2, 8, 64 // factor, 32 // factor)
    assert autoencoder.decode(latent).shape == x.shape
    with pytest.raises(ValueError, match=r"image: expected shape \(B, 1, H, W\)"):
        autoencoder.encode(x.expand(-1, 2, -1, -1))
    if factor > 4:
        with pytest.raises(ValueError, match=f"image: expected sides that are multiples of {factor}"):
            autoencoder.encode(x[..., :4])


@pytest.mark.parametrize(
    "channels, widths, said",
    [(17, (8, 8, 8), "latent_channels: expected 1..16, got 17"), (4, (8,), "widths"), (4, (9, 8), "widths")],
)
def test_sizes_are_checked(channels, widths, said):
    with pytest.raises(ValueError, match=said):
        AutoencoderConfig(channels, widths)


def test_the_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(2, 3, 4, 5, 5)
    x = torch.zeros(3, 1, 20, 20)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    found = autoencoder_loss(AutoencoderOutput(x, mean, log_variance), x, kl_weight=1.0)
    torch.testing.assert_close(found, expected)
    output = AutoencoderOutput(x + 0.25, mean, log_variance)
    assert autoencoder_loss(output, x, kl_weight=0.0).item() == pytest.approx(0.25)
    more = autoencoder_loss(output, x, kl_weight=0.0, perceptual=lambda a, b: (a - b).square().mean())
    assert more.item() == pytest.approx(0.25 + 0.0625)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An autoencoder after a short run of the common loop, standardised."""
    torch.manual_seed(0)
    folder, items = tmp_path_factory.mktemp("autoencoder"), [{"target": image} for image in images(32, 16)]
    config = dl.TrainConfig(num_steps=150, batch_size=8, learning_rate=3e-3, warmup_steps=10)
    *_, last = dl.fit(Autoencoder(SMALL), dl.scaled_linear_schedule(), items, config, autoencoder_loss, folder=folder)
    autoencoder = last.ema.eval()
    standardise(autoencoder, [torch.stack(images(32, 16))])
    return autoencoder, last.losses, folder


def test_the_common_loop_trains_it(trained):
    autoencoder, losses, folder = trained
    x = torch.stack(images(16, 16, seed=5))
    with torch.inference_mode():
        error = (autoencoder.decode(autoencoder.encode(x)) - x).abs().mean()
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:10])
    assert error < 0.5 * (x - x.mean()).abs().mean(), "better than a constant"
    loaded, _ = dl.load_checkpoint(folder / "model.safetensors")
    assert type(loaded) is Autoencoder and loaded.config == SMALL


def test_latents_have_one_scale(trained):
    autoencoder, *_ = trained
    with torch.inference_mode():
        latents = autoencoder.encode(torch.stack(images(32, 16)))
    spread = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(spread.mean(dim=1), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(spread.std(dim=1), torch.full((4,), 1 / RANGE), rtol=1e-3, atol=0)
    assert (latents.abs() <= 1).float().mean() > 0.95, "hardly any lies beyond three standard deviations"


def test_what_a_run_draws_comes_from_its_seed(tmp_path):
    items = [{"target": image} for image in images(8, 16)]
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        config = dl.TrainConfig(num_steps=4, batch_size=4)
        *_, last = dl.train(Autoencoder(SMALL), dl.scaled_linear_schedule(), items, config, autoencoder_loss)
        torch.rand(7)  # what else is drawn in between must not matter
        states.append(last.model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.fixture(scope="module")
def latent_network(trained):
    torch.manual_seed(2)
    network = LatentDAMMNet(dl.UNetConfig(8, 4, (16, 16, 16, 16), 16), widths=SMALL.widths)
    network.autoencoder.load_state_dict(trained[0].state_dict())
    for branch in (network.uni, network.multi):
        torch.nn.init.normal_(branch.out_conv.weight, std=0.1)
    return network.eval()


def test_images_go_in_and_come_out(latent_network):
    batch = dl.stack(dl.SyntheticTumours(3, 32, 0))
    pair, schedule = (batch["primary"], batch["secondary"]), dl.shifted_schedule()
    found = dl.predict(latent_network, schedule, *pair, 3, seed=4, num_samples=2)
    assert found.samples.shape == (2, 3, 1, 32, 32) and found.confidence_map.shape == (3, 2, 2)
    assert not torch.equal(found.samples[0], found.samples[1])
    plain = dl.DAMMNet(latent_network.config, prediction=latent_network.prediction)
    plain.load_state_dict({k: x for k, x in latent_network.state_dict().items() if not k.startswith("autoencoder")})
    with torch.inference_mode():
        latents = [latent_network.to_latent(image) for image in pair]
        decoded = []
        for number in range(2):
            noise = [generator_of(seed, number) for seed in (4, 5, 6)]
            sample, _ = draw_sample(plain.eval(), schedule, latents, noise, 3, dl.DAMMP())
            decoded.append(latent_network.from_latent(sample))
    torch.testing.assert_close(found.samples, torch.stack(decoded), rtol=1e-4, atol=1e-4)


def test_training_moves_the_network_and_not_the_autoencoder(latent_network, tmp_path):
    before = {key: x.clone() for key, x in latent_network.state_dict().items()}
    with torch.inference_mode():
        items = [
            item | {"target": 3 * latent_network.to_latent(item["target"][None])[0]}  # latents may go beyond [-1, 1]
            for item in dl.SyntheticTumours(8, 32, 0)
        ]
    config = dl.TrainConfig(num_steps=3, batch_size=4, warmup_steps=0)
    *_, last = dl.fit(latent_network, dl.shifted_schedule(), items, config, dl.our_loss, folder=tmp_path)
    for key, value in last.ema.state_dict().items():
        if key.startswith("autoencoder"):
            assert torch.equal(value, before[key]), key
    assert not torch.equal(last.ema.state_dict()["uni.in_conv.weight"], before["uni.in_conv.weight"])
    loaded, schedule = dl.load_checkpoint(tmp_path / "model.safetensors")
    pair = torch.rand(2, 1, 1, 32, 32) * 2 - 1
    outputs = [dl.predict(model, schedule, *pair, 2).x0 for model in (last.ema, loaded)]
    assert torch.equal(*outputs) and type(loaded) is LatentDAMMNet


def test_a_slide_is_predicted_in_latents(latent_network, tmp_path):
    rng = np.random.default_rng(0)
    pair = rng.random((2, 1, 64, 80)).astype(np.float32)
    schedule, out = dl.shifted_schedule(), tmp_path / "out.tif"
    predict_slide(latent_network, schedule, *pair, out, 2, tiling=Tiling(32, 8))
    found = tifffile.imread(out)
    assert found.shape == (1, 64, 80) and np.isfinite(found).all() and 0 <= found.min() <= found.max() <= 1
    with pytest.raises(ValueError, match="tile: expected a multiple of 16 pixels, got 36"):
        predict_slide(latent_network, schedule, *pair, tmp_path / "other.tif", 2, tiling=Tiling(36, 8))


def test_channels_must_fit():
    with pytest.raises(ValueError, match="config.in_channels: expected 8, got 5"):
        LatentDAMMNet(dl.UNetConfig(5, 4, (16, 16, 16, 16), 16))
