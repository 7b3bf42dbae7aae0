"""The network against reference numbers computed by the authors' release."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from damm_lite.damm import DAMMNet, DAMMOutput
from damm_lite.fusion import MMFM, UAFM, QueryConfidence
from damm_lite.losses import released_loss, warmup_loss
from damm_lite.release import load_released_state_dict, released_names
from damm_lite.unet import UNetConfig, timestep_embedding
from helpers import relative_error
from record_vectors import seeded_network

TOLERANCE = 1e-5


def entries(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def load(module, weights, names):
    """Fill `module` from `weights`; `names` maps our module prefixes to theirs."""
    state = {}
    for key, value in module.state_dict().items():
        ours = next(name for name in names if key.startswith(name + "."))
        state[key] = weights[names[ours] + key.removeprefix(ours)].reshape(value.shape)
    module.load_state_dict(state)
    return module.eval()


@pytest.fixture(scope="module")
def small(vectors):
    return vectors("unet_small")


@pytest.fixture
def model(small):
    return load_released_state_dict(entries(small, "w."))


def inputs(arrays):
    return arrays["x_t"], arrays["t"], arrays["vessels"], arrays["nuclei"]


@pytest.mark.parametrize("dim, key", [(256, "pos256"), (32, "pos32")])
def test_timestep_embedding(dim, key):
    """To the bound with the rounding of `exp` that the vectors were recorded with: MKL's for every processor. Of its
    others some differ by a last place of a frequency, which at an angle of 1000 makes 6e-5.
    """
    code = "import sys, test_reference_network as own; print(own.embedding_error(int(sys.argv[1]), sys.argv[2]))"
    environment = os.environ | {"MKL_CBWR": "COMPATIBLE"}
    command = [sys.executable, "-c", code, str(dim), key]
    error = subprocess.check_output(command, cwd=Path(__file__).parent, env=environment, text=True)
    assert float(error) <= TOLERANCE


def embedding_error(dim, key):
    with np.load(Path(__file__).parent / "vectors" / "timeemb.npz") as arrays:
        return relative_error(timestep_embedding(torch.as_tensor(arrays["t"]), dim), arrays[key])


@pytest.mark.parametrize("dim", [256, 32])
def test_timestep_embedding_is_exact_to_the_last_bits_of_the_angle(dim):
    """On any processor: a frequency is right to two units in its last place, and so is the angle."""
    t = torch.tensor([0, 1, 10, 500, 999])
    rates = -math.log(10000) * torch.arange(dim // 2).double() / (dim // 2 - 1)
    angles = (t.double()[:, None] * rates.exp()).repeat(1, 2)
    exact = torch.cat([angles[:, : dim // 2].sin(), angles[:, dim // 2 :].cos()], dim=1)
    assert ((timestep_embedding(t, dim) - exact).abs() <= 1e-7 + 8 * 2**-24 * angles).all()


MMFM_NAMES = {
    "mask_uni.gate": "mask_uni.mask_block",
    "mask_multi.gate": "mask_multi.mask_block",
    "excite.gate.1": "conv1.channel_attn.fc.0",
    "excite.gate.3": "conv1.channel_attn.fc.2",
    "merge": "conv1.conv1_block",
}


def test_mmfm(vectors):
    arrays = vectors("mmfm")
    mmfm = load(MMFM(64), entries(arrays, "w."), MMFM_NAMES)
    a, d = arrays["x_uni"], arrays["x_multi"]
    with torch.no_grad():
        masked = torch.cat([mmfm.mask_uni(a), mmfm.mask_multi(d)], dim=1)
        expected = torch.cat([arrays["masked_uni"], arrays["masked_multi"]], dim=1)
        assert relative_error(masked, expected) <= TOLERANCE
        assert relative_error(mmfm.excite(masked), arrays["after_se"]) <= TOLERANCE
        assert relative_error(mmfm(a, d), arrays["out"]) <= TOLERANCE
        assert relative_error(mmfm.train()(a, d), arrays["out_train"]) <= TOLERANCE
    after = entries(arrays, "after_train.")
    for key, value in mmfm.state_dict().items():
        ours = next(name for name in MMFM_NAMES if key.startswith(name + "."))
        theirs = MMFM_NAMES[ours] + key.removeprefix(ours)
        if theirs in after:
            assert relative_error(value, after[theirs]) <= TOLERANCE, key


def test_mmfm_of_one_sample(vectors):
    arrays = vectors("mmfm_eval")
    mmfm = load(MMFM(64), entries(arrays, "w."), MMFM_NAMES)
    with torch.no_grad():
        assert relative_error(mmfm(arrays["x_uni"], arrays["x_multi"]), arrays["out"]) <= TOLERANCE


def test_network_of_a_seed(vectors):
    """Outputs recorded where the network agreed with all of the release's numbers (`record_vectors.py`)."""
    arrays, (model, images) = vectors("unet_seeded"), seeded_network()
    with torch.no_grad():
        out = model(*images)._asdict()
    assert out.keys() == arrays.keys() and arrays["multi"].std() > 0.01
    assert max(relative_error(value, arrays[key]) for key, value in out.items()) <= TOLERANCE


def test_uafm(vectors):
    arrays = vectors("uafm")
    names = {name: name for name in ("norm", "q", "k", "v")} | {"proj": "proj_out", "confidence.linear": "u.0"}
    uafm = load(UAFM(64, QueryConfidence), entries(arrays, "w."), names)
    a, m = arrays["x"], arrays["context"]
    with torch.no_grad():
        u = uafm.confidence_map(a, m)
        assert relative_error(u.flatten(2).transpose(1, 2), arrays["u_map"]) <= TOLERANCE
        assert relative_error(uafm(a, m, u), arrays["out_uncertain"]) <= TOLERANCE
        assert relative_error(uafm(a, m, torch.ones_like(u)), arrays["out_plain"]) <= TOLERANCE
        u_self = uafm.confidence_map(a, a)
        assert relative_error(uafm(a, a, u_self), arrays["out_self_uncertain"]) <= TOLERANCE


def test_network_eval(small, model):
    with torch.no_grad():
        out = model(*inputs(small))
    assert relative_error(out.uni, small["y_s"]) <= TOLERANCE
    assert relative_error(out.multi, small["y_mm"]) <= TOLERANCE
    assert relative_error(out.confidence_map.flatten(1), small["u_map"].squeeze(-1)) <= TOLERANCE
    assert relative_error(out.confidence, small["c"]) <= TOLERANCE


def test_network_without_confidence(small, model):
    model.uafm.confidence = None
    with torch.no_grad():
        out = model(*inputs(small))
    assert relative_error(out.uni, small["y_s_plain"]) <= TOLERANCE
    assert relative_error(out.multi, small["y_mm_plain"]) <= TOLERANCE


def test_network_train_mode_and_running_statistics(small, model):
    names = released_names(model)
    with torch.no_grad():
        out = model.train()(*inputs(small))
    assert relative_error(out.uni, small["y_s_train"]) <= TOLERANCE
    assert relative_error(out.multi, small["y_mm_train"]) <= TOLERANCE
    assert relative_error(out.confidence_map.flatten(1), small["u_map_train"].squeeze(-1)) <= TOLERANCE
    after = entries(small, "after_train.")
    checked = 0
    for key, value in model.state_dict().items():
        if names[key] in after:
            checked += 1
            assert relative_error(value, after[names[key]]) <= TOLERANCE, key
    assert checked == len(after)


def test_losses_and_gradients(small, model):
    out = model(*inputs(small))
    loss_uni = (out.uni - small["target"]).abs().flatten(1).mean(1)
    loss_multi = (out.multi - small["target"]).abs().flatten(1).mean(1)
    assert relative_error(loss_uni.detach(), small["loss_s_i"]) <= TOLERANCE
    assert relative_error(loss_multi.detach(), small["loss_m_i"]) <= TOLERANCE
    loss = released_loss(out, small["target"])
    assert relative_error(loss.detach(), small["loss"]) <= TOLERANCE
    loss.backward()
    expected = {k: v for k, v in entries(small, "gradnorm.").items() if not k.startswith("unet_S.time_embedder")}
    names = released_names(model)
    norms = {names[key]: p.grad.norm() for key, p in model.named_parameters()}
    assert norms.keys() == expected.keys()
    got, ref = (torch.stack([d[key].double() for key in expected]) for d in (norms, expected))
    assert relative_error(got, ref) <= TOLERANCE
    # One by one too, but for gradients that cancel to rounding error.
    real = ref > 1e-5
    assert real.sum() > 500
    assert ((got - ref).abs() / ref)[real].max() <= 2 * TOLERANCE


@pytest.mark.parametrize("group", ["mix_a0.0001", "mix_a1", "sat_a1"])
def test_released_loss(vectors, group):
    arrays = entries(vectors("damm_loss"), f"{group}.")
    out = output_with(arrays)
    total = released_loss(out, arrays["target"], alpha=float(arrays["alpha"]))
    assert relative_error(total, arrays["total"]) <= TOLERANCE


def test_warmup_loss(vectors):
    arrays = entries(vectors("damm_loss"), "mix_pretrain.")
    assert relative_error(warmup_loss(output_with(arrays), arrays["target"]), arrays["total"]) <= TOLERANCE


def output_with(arrays):
    return DAMMOutput(arrays["o_s"], arrays["o_mm"], arrays["c"], arrays["u_map"].squeeze(-1))


def test_published_size():
    with torch.device("meta"):
        model = DAMMNet(UNetConfig(16, 8, (64, 128, 256, 512), 1024), confidence=QueryConfidence)
    assert sum(p.numel() for p in model.parameters()) == 111_457_617


def as_released(model, prefix=""):
    """The state dict of `model` under the release's names, with its linear layers' shapes."""
    names = released_names(model)
    state = {}
    for key, value in model.state_dict().items():
        if names[key].endswith(("fc.0.weight", "fc.2.weight", "u.0.weight")):
            value = value.flatten(1)
        state[prefix + names[key]] = value.clone()
    return state


@pytest.mark.parametrize(
    "config, secondary, shape",
    [
        (UNetConfig(2, 1, (32, 32, 64, 96), 64), 1, (20, 36)),
        (UNetConfig(5, 2, (64, 32, 32, 64), 256), 2, (8, 64)),
    ],
)
def test_released_names_carry_any_size(config, secondary, shape, caplog):
    model = DAMMNet(config, confidence=QueryConfidence, secondary_channels=secondary).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = as_released(model, prefix="noise_estimator.")
    state["noise_estimator.unet_S.time_embedder.time_emb.1.weight"] = torch.zeros(3)
    with caplog.at_level(logging.WARNING):
        copy = load_released_state_dict(state)
    assert "1 keys of the checkpoint are not used" in caplog.text
    assert not copy.training and copy.config == config
    args = (
        torch.randn(2, config.out_channels, *shape),
        torch.tensor([0, 999]),
        torch.randn(2, config.in_channels - config.out_channels, *shape),
        torch.randn(2, secondary, *shape),
    )
    with torch.no_grad():
        for ours, theirs in zip(model(*args), copy(*args), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_missing_and_misshapen_keys_are_named():
    model = DAMMNet(UNetConfig(2, 1, (32, 32, 32, 32), 64), confidence=QueryConfidence)
    state = as_released(model)
    lost = state.pop("un_crs_attn.q.weight")
    with pytest.raises(KeyError, match="un_crs_attn.q.weight"):
        load_released_state_dict(state)
    state["un_crs_attn.q.weight"] = lost[:-1]
    with pytest.raises(ValueError, match=r"un_crs_attn.q.weight.*\(32, 32, 1, 1\).*\(31, 32, 1, 1\)"):
        load_released_state_dict(state)
