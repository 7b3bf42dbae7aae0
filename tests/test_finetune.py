"""Networks that go on with more images: they begin where the old one would be with their mean."""

from functools import partial

import pytest
import torch

from damm_lite.damm import DAMMNet
from damm_lite.experiments.train_brains import coarse_to_fine
from damm_lite.finetune import expand_input_channels
from damm_lite.fusion import Addition, QueryConfidence
from damm_lite.predict import predict
from damm_lite.prediction_types import PredictsImage, PredictsVelocity
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.unet import RegressionUNet, UNet, UNetConfig

CONFIG = UNetConfig(2, 1, (16, 16, 16, 24), 32)


def images(channels, seed=0, side=16):
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def shaken(model):
    """The model with random numbers in every parameter: a new one answers 0 to everything."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_damm_net_begins_with_the_mean_of_the_channels(channels):
    torch.manual_seed(0)
    old = shaken(DAMMNet(CONFIG, prediction=PredictsImage, confidence=QueryConfidence, fusion=Addition))
    new = expand_input_channels(old, channels).eval()
    assert new.secondary_channels == channels and new.arguments["fusion"] is Addition
    xt, t, primary, secondary = images(1), torch.tensor([1, 500, 999]), images(1, 1), images(channels, 2)
    with torch.no_grad():
        wanted = old(xt, t, primary, secondary.mean(dim=1, keepdim=True))
        found = new(xt, t, primary, secondary)
    assert wanted.multi.std() > 0.05
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [partial(UNet, prediction=PredictsVelocity), RegressionUNet])
def test_a_unet_begins_with_the_mean_of_its_last_channels(make):
    torch.manual_seed(0)
    old = shaken(make(UNetConfig(3, 1, (16, 16, 16, 24), 32)))
    new = expand_input_channels(old, 2).eval()
    assert new.config.in_channels == 4 and type(new) is type(old) and new.prediction is old.prediction
    xt, t, primary, secondary = images(1), torch.tensor([1, 500, 999]), images(1, 1), images(2, 2)
    with torch.no_grad():
        wanted = old(xt, t, primary, secondary.mean(dim=1, keepdim=True))
        assert wanted.std() > 0.05
        torch.testing.assert_close(new(xt, t, primary, secondary), wanted, rtol=1e-4, atol=1e-5)


def test_the_old_network_is_left_alone_and_the_new_one_learns_to_tell_channels_apart():
    torch.manual_seed(0)
    old = shaken(DAMMNet(CONFIG, prediction=PredictsImage))
    before = {key: value.clone() for key, value in old.state_dict().items()}
    new = expand_input_channels(old, 2)
    first = new.multi.in_conv.weight
    new(images(1), torch.tensor([3, 4, 5]), images(1, 1), images(2, 2)).multi.square().mean().backward()
    assert not torch.equal(first.grad[:, 1], first.grad[:, 2])
    shaken(new)
    assert all(torch.equal(value, before[key]) for key, value in old.state_dict().items())


def test_it_predicts_as_any_network():
    new = expand_input_channels(DAMMNet(CONFIG, prediction=PredictsImage), 2)
    found = predict(new.eval(), scaled_linear_schedule(), images(1), images(2), num_steps=2)
    assert found.x0.shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    "size, num_steps, stages",
    [
        (32, 100, [(32, 100)]),
        (64, 100, [(64, 100)]),
        (68, 100, [(64, 100), (68, 4)]),
        (128, 4, [(64, 4), (128, 4)]),
        (128, 192, [(64, 192), (128, 8)]),
    ],
)
def test_smaller_pixels_come_after_known_ones(size, num_steps, stages):
    assert list(coarse_to_fine(size, num_steps).items()) == stages


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="channels: expected at least 1, got 0"):
        expand_input_channels(DAMMNet(CONFIG), 0)
    with pytest.raises(ValueError, match="expected one secondary channel, got 2"):
        expand_input_channels(DAMMNet(CONFIG, secondary_channels=2), 3)
