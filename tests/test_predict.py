"""Prediction: what comes back, from which noise, and what is refused."""

import copy

import pytest
import torch

from damm_lite.damm import DAMMNet
from damm_lite.data import chunks, stack
from damm_lite.gates import DAMMP, MultiModal, SpatialDAMMP
from damm_lite.inference import for_inference
from damm_lite.predict import predict, predict_slices, predict_unet
from damm_lite.samplers import ddim_sampler, dpm_sampler
from damm_lite.schedules import PredictsImage, scaled_linear_schedule
from damm_lite.tumours import SyntheticTumours
from damm_lite.unet import UNet, UNetConfig
from test_damm import tiny

SCHEDULE = scaled_linear_schedule()


@pytest.fixture(scope="module")
def conditions():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 1, 16, 16, generator=generator) * 2 - 1 for _ in "ab"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny()


@pytest.mark.parametrize("branch", ["uni", "multi"])
@pytest.mark.parametrize("sampler", [ddim_sampler, dpm_sampler])
def test_a_branch_is_the_sampler_with_that_branch(model, conditions, branch, sampler):
    result = predict(model, SCHEDULE, *conditions, num_steps=3, seed=4, branch=branch, sampler=sampler)
    noise = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(4))

    network = for_inference(model)  # with the same rounding: the first step divides by sqrt(a) = 0.02

    def denoiser(xt, t):
        return getattr(network(xt, t, *conditions), branch)

    with torch.no_grad():
        expected = sampler(denoiser, SCHEDULE, noise, 3).clamp(-1, 1)
    torch.testing.assert_close(result.x0, expected, rtol=1e-4, atol=1e-4)
    assert result.branch == [branch] * 3 and (result.spread == 0).all()


def test_the_uni_modal_branch_runs_without_the_second_image(model, conditions):
    primary, secondary = conditions
    result = predict(model, SCHEDULE, *conditions, num_steps=2, branch="uni")
    crippled = copy.deepcopy(model)
    crippled.multi = crippled.mmfm = crippled.uafm = None  # calling any of them is an error
    alone = predict(crippled, SCHEDULE, primary, -secondary, num_steps=2, branch="uni")
    assert torch.equal(alone.x0, result.x0)
    assert (alone.confidence == 0).all() and (alone.confidence_map == 0).all()


def test_a_network_with_an_encoder_of_its_own_is_asked(model, conditions):
    class Reversed(DAMMNet):
        """A reader's network, which sees the second image the other way round."""

        def encode(self, xt, t, primary, secondary):
            return super().encode(xt, t, primary, secondary.flip(-1))

    own = copy.deepcopy(model)
    own.__class__ = Reversed
    primary, secondary = conditions
    expected = predict(model, SCHEDULE, primary, secondary.flip(-1), num_steps=2, branch="multi")
    asked = predict(own, SCHEDULE, primary, secondary, num_steps=2, branch="multi")
    plain = predict(model, SCHEDULE, primary, secondary, num_steps=2, branch="multi")
    assert torch.equal(asked.x0, expected.x0) and not torch.equal(asked.x0, plain.x0)


def test_shapes_ranges_and_mode(model, conditions):
    model.train()
    statistics = {k: v.clone() for k, v in model.state_dict().items()}
    result = predict(model, SCHEDULE, *conditions, num_steps=2)
    assert model.training
    assert all(torch.equal(v, statistics[k]) for k, v in model.state_dict().items())
    model.eval()
    assert result.x0.shape == (3, 1, 16, 16) and result.x0.abs().max() <= 1
    assert result.confidence.shape == (3,) and result.confidence_map.shape == (3, 4, 4)
    assert (result.confidence >= 0).all() and (result.confidence <= 1).all()
    assert set(result.branch) <= {"uni", "multi"} and len(result.branch) == 3


def test_several_samples_give_mean_and_spread(model, conditions):
    generator = torch.Generator().manual_seed(4)
    singles = []
    for _ in range(3):
        noise = torch.randn(3, 1, 16, 16, generator=generator)

        def denoiser(xt, t):
            return model(xt, t, *conditions).uni

        with torch.no_grad():
            singles.append(ddim_sampler(denoiser, SCHEDULE, noise, 2).clamp(-1, 1))
    result = predict(model, SCHEDULE, *conditions, num_steps=2, seed=4, branch="uni", num_samples=3)
    torch.testing.assert_close(result.x0, torch.stack(singles).mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.spread, torch.stack(singles).std(0, correction=0), rtol=1e-3, atol=1e-3)


def test_a_gate_may_stand_for_a_branch(model, conditions):
    damm = predict(model, SCHEDULE, *conditions, num_steps=2)
    assert torch.equal(predict(model, SCHEDULE, *conditions, num_steps=2, branch=DAMMP()).x0, damm.x0)
    always = predict(model, SCHEDULE, *conditions, num_steps=2, branch=DAMMP(gamma=0.0))
    assert always.branch == ["multi"] * 3
    assert predict(model, SCHEDULE, *conditions, num_steps=2, branch=SpatialDAMMP()).x0.shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    "primary, secondary, options, message",
    [
        (torch.zeros(1, 16, 16), torch.zeros(1, 1, 16, 16), {}, r"primary: expected shape \(B, C, H, W\)"),
        (torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 255.0), {}, r"secondary: .*\[-1, 1\].*255"),
        (torch.full((1, 1, 16, 16), torch.nan), torch.zeros(1, 1, 16, 16), {}, "primary: .*NaN"),
        (torch.zeros(1, 1, 18, 16), torch.zeros(1, 1, 18, 16), {}, "multiples of 4.*18 x 16"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 20), {}, "secondary: .*16 x 16.*16 x 20"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(2, 1, 16, 16), {}, "secondary: .*batch of 1.*2"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {"branch": "best"}, "damm, uni, multi.*best"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {"num_samples": 0}, "num_samples: expected"),
    ],
)
def test_bad_input_is_named(model, primary, secondary, options, message):
    with pytest.raises(ValueError, match=message):
        predict(model, SCHEDULE, primary, secondary, num_steps=1, **options)


def test_a_plain_unet_predicts_from_the_same_noise():
    torch.manual_seed(0)
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), objective=PredictsImage).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    twin = UNet(model.config, PredictsImage).eval()  # the uni-modal branch, as a network of its own
    twin.time.load_state_dict(model.time.state_dict())
    twin.backbone.load_state_dict(model.uni.state_dict())
    primary, secondary = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    expected = predict(model, SCHEDULE, primary, secondary, num_steps=4, seed=3, branch="uni").x0
    torch.testing.assert_close(predict_unet(twin, SCHEDULE, primary, num_steps=4, seed=3), expected)


def test_a_batch_in_parts_is_the_whole_batch():
    batch = stack(SyntheticTumours(n=5, size=16, seed=0))
    parts = list(chunks(batch, 2))
    assert [len(part["kind"]) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["target"] for part in parts]), batch["target"])
    assert sum((part["kind"] for part in parts), []) == batch["kind"]


def test_a_volume_is_its_slices_with_the_same_noise_for_all(model, conditions):
    primary, secondary = (x[[0, 1, 0]] for x in conditions)
    volume = predict_slices(model, SCHEDULE, primary, secondary, num_steps=2, seed=5, num_samples=4)
    assert volume.samples.shape == (4, 3, 1, 16, 16) and volume.confidence_map.shape == (3, 4, 4)
    assert torch.equal(volume.samples[:, 0], volume.samples[:, 2])
    one = predict(model, SCHEDULE, *(x[:1].repeat(4, 1, 1, 1) for x in conditions), num_steps=2, seed=5)
    assert torch.equal(volume.samples[:, 0], one.x0)
    torch.testing.assert_close(volume.confidence[0], one.confidence.mean())
    torch.testing.assert_close(volume.confidence_map[0], one.confidence_map.mean(dim=0))
    names = {
        branch: predict_slices(model, SCHEDULE, *conditions, 1, branch=branch).branch for branch in ("uni", "multi")
    }
    assert names == {branch: [branch] * 3 for branch in names}
    own = predict_slices(model, SCHEDULE, *conditions, 1, branch=["uni", MultiModal(), "uni"])
    assert own.branch == ["uni", "multi", "uni"]
    with pytest.raises(ValueError, match="shorter"):
        predict_slices(model, SCHEDULE, *conditions, 1, branch=["uni"])
