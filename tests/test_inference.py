"""A network made ready for use is the same function."""

import pytest
import torch
from torch import nn

from damm_lite.checkpoint import load_pretrained
from damm_lite.damm import DAMMNet
from damm_lite.fusion import MMFM
from damm_lite.inference import for_inference
from damm_lite.unet import UNetConfig
from helpers import inputs, randomised, tiny


@pytest.fixture
def model():
    """A network whose batch norms have seen something: none of their numbers is 0 or 1."""
    model = tiny()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def test_the_copy_computes_the_same(model):
    args = inputs()
    for out, expected in zip(for_inference(model)(*args), model(*args), strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_the_shipped_network_agrees_to_a_millionth():
    model, _ = load_pretrained("tumour-64")
    args = inputs(2, 32, 32)
    with torch.inference_mode():
        for out, expected in zip(for_inference(model)(*args), model(*args), strict=True):
            torch.testing.assert_close(out, expected, rtol=0, atol=2e-6)


def test_no_batch_norm_is_left_and_weights_lie_channels_last(model):
    fast = for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert fast.uni.in_conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_model_itself_is_not_touched(model):
    before = {name: tensor.clone() for name, tensor in model.train().state_dict().items()}
    fast = for_inference(model)
    assert model.training and not fast.training
    assert model.uni.in_conv.weight.is_contiguous()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(*inputs()).multi.sum().backward()  # and it can go on training


def test_other_fusions_are_made_ready_too():
    class Twice(MMFM):
        """A fusion of the reader's own."""

        def forward(self, a, d):
            return super().forward(a, d) * 2

    model = randomised(DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), fusion=Twice))
    args = inputs(2, 8, 8)
    torch.testing.assert_close(for_inference(model)(*args).multi, model(*args).multi, rtol=1e-4, atol=1e-5)


def test_only_what_a_layer_has_just_computed_is_overwritten(model):
    activations = [m for m in for_inference(model).modules() if isinstance(m, (nn.SiLU, nn.ReLU))]
    assert activations and all(m.inplace for m in activations)
    assert not any(m.inplace for m in model.modules() if isinstance(m, (nn.SiLU, nn.ReLU)))
    x = torch.randn(1, 2, 4, 4)
    before, first = x.clone(), nn.Sequential(nn.SiLU(), nn.Conv2d(2, 2, 1))
    after_nothing = for_inference(nn.Sequential(nn.Identity(), nn.SiLU()))
    with torch.inference_mode():
        torch.testing.assert_close(for_inference(first)(x), first(x))
        after_nothing(x)
    assert torch.equal(x, before)
