"""What several tests need: small networks in which everything matters, and inputs for them."""

import torch

from damm_lite.damm import DAMMNet
from damm_lite.fusion import JointConfidence
from damm_lite.unet import UNetConfig


def relative_error(out, ref):
    """Largest absolute difference over the largest reference value."""
    out, ref = torch.as_tensor(out).double(), torch.as_tensor(ref).double()
    assert out.shape == ref.shape, (out.shape, ref.shape)
    return float((out - ref).abs().max() / ref.abs().max())


def randomised(model):
    """No layer left at zero, so that everything matters."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def tiny(confidence=JointConfidence, secondary=1, **parts):
    return randomised(DAMMNet(UNetConfig(2, 1, (16, 16, 24, 32), 32), confidence, secondary, **parts))


def inputs(batch=4, height=16, width=24, secondary=1):
    """(xt, t, primary, secondary) for such a network."""
    return (
        torch.randn(batch, 1, height, width),
        torch.randint(1000, (batch,)),
        torch.rand(batch, 1, height, width) * 2 - 1,
        torch.rand(batch, secondary, height, width) * 2 - 1,
    )
