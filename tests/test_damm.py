"""The network: what it promises."""

import pytest
import torch

from damm_lite.damm import DAMMNet
from damm_lite.fusion import (
    MMFM,
    UAFM,
    Addition,
    Concatenation,
    JointConfidence,
    PlainAttention,
    QueryConfidence,
    SqueezeExcitation,
)
from damm_lite.unet import Backbone, UNet, UNetConfig
from helpers import inputs, randomised, tiny


@pytest.mark.parametrize("shape", [(4, 4), (20, 12), (64, 64)])
@pytest.mark.parametrize("head", [JointConfidence, QueryConfidence, None])
@pytest.mark.parametrize("secondary", [1, 3])
def test_shapes_and_ranges(shape, head, secondary):
    out = tiny(head, secondary)(*inputs(3, *shape, secondary))
    assert out.uni.shape == out.multi.shape == (3, 1, *shape)
    assert out.confidence.shape == (3,) and out.confidence_map.shape == (3, shape[0] // 4, shape[1] // 4)
    assert (out.confidence_map >= 0).all() and (out.confidence_map <= 1).all()
    torch.testing.assert_close(out.confidence, out.confidence_map.flatten(1).mean(1))
    if head is None:
        assert (out.confidence == 1).all()


@pytest.mark.parametrize("widths", [(16, 16, 16, 16), (16, 24, 40, 48), (32, 64, 96, 128)])
def test_any_width(widths):
    assert DAMMNet(UNetConfig(2, 1, widths, 16))(*inputs(2, 8, 8)).multi.shape == (2, 1, 8, 8)


def test_a_fresh_network_predicts_zero():
    out = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16))(*inputs(2, 8, 8))
    assert (out.uni == 0).all() and (out.multi == 0).all()


def test_who_sees_what():
    xt, t, primary, secondary = inputs()
    for head, sees in ((QueryConfidence, False), (JointConfidence, True)):
        model = tiny(head)
        out, other = model(xt, t, primary, secondary), model(xt, t, primary, -secondary)
        assert torch.equal(out.uni, other.uni)
        assert not torch.allclose(out.multi, other.multi)
        assert torch.equal(out.confidence, other.confidence) != sees


def test_the_encoders_without_the_second_image():
    xt, t, primary, secondary = inputs()
    model = tiny()
    both, alone = model.encode(xt, t, primary, secondary), model.encode_uni(xt, t, primary)
    assert torch.equal(model.decode_uni(alone), model.decode_uni(both)) and alone.multi == []
    assert alone.confidence_map.shape == (4, 1, 4, 6) and (alone.confidence_map == 0).all()


def test_the_confidence_is_asked_of_the_last_of_both_encoders():
    model = tiny()
    encoded = model.encode(*inputs())
    a, last, before = (model.uafm.norm(x) for x in (encoded.uni[-1], encoded.multi[-1], encoded.multi[-2]))
    assert torch.equal(encoded.confidence_map, model.uafm.confidence(a, last))
    assert not torch.equal(encoded.confidence_map, model.uafm.confidence(a, before))


def test_selected_samples_are_those_samples():
    args, rows = inputs(), torch.tensor([True, False, True, False])
    model = tiny()
    some, chosen = model.encode(*args).select(rows), model.encode(*(x[rows] for x in args))
    torch.testing.assert_close(some.confidence, chosen.confidence)
    torch.testing.assert_close(model.decode_multi(some), model.decode_multi(chosen), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode_uni(some), model.decode_uni(chosen), rtol=1e-4, atol=1e-5)


def test_plain_attention_is_attention_whatever_the_confidence():
    plain = randomised(PlainAttention(32, JointConfidence))
    a, m = torch.randn(2, 32, 3, 5), torch.randn(2, 32, 3, 5)
    uafm = UAFM(32, JointConfidence).eval()
    uafm.load_state_dict(plain.state_dict())
    assert torch.equal(plain(a, m, torch.rand(2, 1, 3, 5)), uafm(a, m, torch.ones(2, 1, 3, 5)))


def test_gates_have_no_bias():
    assert [name for name, _ in SqueezeExcitation(16, 4).named_parameters() if "bias" in name] == []


def test_scaled_keys_are_scaled_logits():
    uafm = randomised(UAFM(32, QueryConfidence))
    a, m = torch.randn(2, 32, 3, 5), torch.randn(2, 32, 3, 5)
    u = uafm.confidence_map(a, m)
    flat = [x.flatten(2).transpose(1, 2) for x in (uafm.q(uafm.norm(a)), uafm.k(uafm.norm(m)), uafm.v(uafm.norm(m)))]
    logits = flat[0] @ flat[1].transpose(1, 2) / 32**0.5 * u.flatten(2)  # scaled after the product
    expected = a + uafm.proj((logits.softmax(-1) @ flat[2]).transpose(1, 2).unflatten(2, (3, 5)))
    torch.testing.assert_close(uafm(a, m, u), expected, rtol=1e-4, atol=1e-5)


def test_mmfm_gates_lie_between_zero_and_one():
    mmfm = randomised(MMFM(16))
    a, d = torch.randn(2, 16, 6, 6), torch.randn(2, 16, 6, 6)
    for mask, x in ((mmfm.mask_uni, a), (mmfm.mask_multi, d)):
        gate = mask(x) / x
        assert (gate > 0).all() and (gate < 1).all()


def test_backbone_feature_channels():
    backbone = Backbone(UNetConfig(2, 1, (16, 24, 40, 48), 32))
    features = backbone.encode(torch.randn(1, 2, 16, 16), torch.randn(1, 32))
    assert [f.shape[1] for f in features] == backbone.feature_channels == [16, 24, 24, 24, 40, 40, 40, 48, 48]
    assert [f.shape[2] for f in features] == [16, 16, 16, 8, 8, 8, 4, 4, 4]


@pytest.mark.parametrize("fusion", [Addition, Concatenation])
def test_other_fusions_fit_in(fusion):
    model = randomised(DAMMNet(UNetConfig(2, 1, (16, 16, 24, 32), 32), fusion=fusion))
    args = inputs()
    out = model(*args)
    assert out.multi.shape == args[0].shape
    other = model(*args[:3], args[3].flip(0))
    assert torch.equal(out.uni, other.uni) and not torch.equal(out.multi, other.multi)


def test_addition_and_concatenation_are_what_they_say():
    a, d = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    assert torch.equal(Addition(16)(a, d), a + d)
    merge = Concatenation(16).eval()
    weight, bias = merge.merge[0].weight[:, :, 0, 0], merge.merge[0].bias
    expected = torch.einsum("oc,bchw->bohw", weight, torch.cat([a, d], 1)) + bias[:, None, None]
    torch.testing.assert_close(merge(a, d), expected / (1 + 1e-5) ** 0.5, rtol=1e-4, atol=1e-5)
    merge.train()
    assert (merge(a + 3, d).mean(dim=(0, 2, 3)).abs() < 1e-5).all(), "normalised over the batch"


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(xt=torch.zeros(2, 1, 18, 16)), "^xt: .*multiples of 4.*18 x 16"),
        (dict(primary=torch.zeros(2, 3, 16, 16)), r"primary: expected shape \(B, 1, H, W\), got \(2, 3, 16, 16\)"),
        (dict(secondary=torch.zeros(2, 16, 16)), r"secondary: expected shape .*got \(2, 16, 16\)"),
        (dict(primary=torch.zeros(3, 1, 16, 16)), "primary: expected a batch of 2, got 3"),
        (dict(secondary=torch.zeros(2, 1, 16, 20)), "secondary: expected 16 x 16, got 16 x 20"),
    ],
)
def test_bad_inputs_are_named(change, message):
    args = dict(xt=torch.zeros(2, 1, 16, 16), t=torch.zeros(2, dtype=torch.long), primary=torch.zeros(2, 1, 16, 16))
    args |= dict(secondary=torch.zeros(2, 1, 16, 16)) | change
    with pytest.raises(ValueError, match=message):
        tiny()(**args)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((2, 1, (16, 16, 16), 32), "four multiples of 8"),
        ((2, 1, (8, 16, 16, 16), 32), "from 16 up"),
        ((2, 1, (16, 16, 16, 20), 32), "multiples of 8"),
        ((0, 1, (16, 16, 16, 16), 32), "in_channels"),
        ((2, 1, (16, 16, 16, 16), 30), "time_dim"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(*arguments)


def test_unet_is_one_branch():
    config = UNetConfig(3, 1, (16, 16, 24, 32), 32)
    unet = randomised(UNet(config))
    out = unet(torch.randn(2, 1, 8, 12), torch.tensor([1, 2]), torch.randn(2, 2, 8, 12))
    assert out.shape == (2, 1, 8, 12)
    with pytest.raises(ValueError, match=r"expected shape \(B, 3, H, W\), got \(2, 2, 8, 12\)"):
        unet(torch.randn(2, 1, 8, 12), torch.tensor([1, 2]), torch.randn(2, 1, 8, 12))
    with pytest.raises(ValueError, match="^config.in_channels: expected xt and at least one primary"):
        DAMMNet(UNetConfig(1, 1, (16, 16, 16, 16), 16))


def test_a_network_says_what_it_is_made_of():
    """So that it can be saved and made again, and a slide's channels checked."""
    config = UNetConfig(2, 1, (16, 16, 16, 16), 16)
    model = DAMMNet(config, QueryConfidence, 2, fusion=Addition, attention=PlainAttention)
    again = DAMMNet(model.config, **model.arguments)
    assert again.state_dict().keys() == model.state_dict().keys() and type(again.uafm) is PlainAttention
    assert again.image_channels == (1, 1, 2) and tiny().image_channels == (1, 1, 1)
