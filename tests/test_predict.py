"""Prediction: what comes back, from which noise, and what is refused."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from damm_lite.damm import DAMMNet
from damm_lite.data import chunks, generator_of, stack
from damm_lite.gates import DAMMP, AlwaysMulti, DecideOnce, SpatialDAMMP
from damm_lite.inference import for_inference
from damm_lite.predict import predict, predict_slices, predict_unet
from damm_lite.prediction_types import PredictsImage
from damm_lite.samplers import ddim_sampler, ddpm_sampler, dpm_sampler
from damm_lite.schedules import cosine_schedule, scaled_linear_schedule
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import UNet, UNetConfig
from helpers import tiny

SCHEDULE = scaled_linear_schedule()


@pytest.fixture(scope="module")
def conditions():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 1, 16, 16, generator=generator) * 2 - 1 for _ in "ab"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny()


def noise_of(seeds, number=0):
    """Where sample `number` of patches with these seeds begins."""
    return torch.stack([torch.randn(1, 16, 16, generator=generator_of(seed, number)) for seed in seeds])


@pytest.mark.parametrize("branch", ["uni", "multi"])
@pytest.mark.parametrize("sampler", [ddim_sampler, dpm_sampler])
def test_a_branch_is_the_sampler_with_that_branch(model, conditions, branch, sampler):
    result = predict(model, SCHEDULE, *conditions, num_steps=3, seed=4, gate=branch, sampler=sampler)
    network = for_inference(model)  # with the same rounding: the first step divides by sqrt(a) = 0.02

    def denoiser(xt, t):
        return SCHEDULE.predict_x0(xt, getattr(network(xt, t, *conditions), branch), t).clamp(-1, 1)

    with torch.no_grad():
        expected = sampler(denoiser, SCHEDULE, noise_of([4, 5, 6]), 3)
    torch.testing.assert_close(result.x0, expected, rtol=1e-4, atol=1e-4)
    assert result.branch == [branch] * 3 and (result.spread == 0).all()


STOCHASTIC = [ddpm_sampler, partial(ddim_sampler, eta=1.0)]


@pytest.mark.parametrize("sampler", [*STOCHASTIC, ddim_sampler, dpm_sampler])
def test_a_patch_does_not_depend_on_its_batch(conditions, sampler):
    model = tiny(prediction=PredictsImage)  # where nothing multiplies the rounding of other batch sizes
    options = dict(num_steps=3, num_samples=2, sampler=sampler)
    whole = predict(model, SCHEDULE, *conditions, seed=[7, 8, 5], **options)
    alone = predict(model, SCHEDULE, *(x[2:] for x in conditions), seed=5, **options)
    torch.testing.assert_close(whole.samples[:, 2:], alone.samples, rtol=0, atol=1e-5)
    counted = predict(model, SCHEDULE, *conditions, seed=3, **options)  # 3, 4, 5
    torch.testing.assert_close(counted.samples[:, 2:], alone.samples, rtol=0, atol=1e-5)
    assert not torch.allclose(counted.samples[:, 0], whole.samples[:, 0])


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_all_noise_comes_from_the_seed(model, conditions, sampler):
    first, again, other = (predict(model, SCHEDULE, *conditions, 3, s, sampler=sampler).x0 for s in (4, 4, 40))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_every_sample_has_a_new_gate_and_the_given_one_stays_as_it_was(model, conditions):
    gate = DecideOnce(gamma=0.5)
    predict(model, SCHEDULE, *conditions, num_steps=2, num_samples=2, gate=gate)
    predict(model, SCHEDULE, *(x[:1] for x in conditions), num_steps=2, gate=gate)  # another batch size
    predict_slices(model, SCHEDULE, *conditions, num_steps=1, num_samples=2, gate=gate)
    assert gate.use_multi is None


def test_estimates_stay_in_range_at_every_step(model, conditions):
    seen = []

    def sampler(denoiser, schedule, noise, num_steps, generators):
        callback = lambda t, xt, x0: seen.append(x0.abs().max().item())  # noqa: E731
        return ddim_sampler(denoiser, schedule, noise, num_steps, generators, callback=callback)

    result = predict(model, cosine_schedule(), *conditions, num_steps=8, sampler=sampler)
    assert len(seen) == 8 and max(seen) <= 1 and result.x0.abs().max() <= 1


def test_the_uni_modal_branch_runs_without_the_second_image(model, conditions):
    primary, secondary = conditions
    result = predict(model, SCHEDULE, *conditions, num_steps=2, gate="uni")
    crippled = copy.deepcopy(model)
    crippled.multi = crippled.mmfm = crippled.uafm = None  # calling any of them is an error
    alone = predict(crippled, SCHEDULE, primary, -secondary, num_steps=2, gate="uni")
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
    expected = predict(model, SCHEDULE, primary, secondary.flip(-1), num_steps=2, gate="multi")
    asked = predict(own, SCHEDULE, primary, secondary, num_steps=2, gate="multi")
    plain = predict(model, SCHEDULE, primary, secondary, num_steps=2, gate="multi")
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
    singles = []
    for number in range(3):

        def denoiser(xt, t):
            return SCHEDULE.predict_x0(xt, model(xt, t, *conditions).uni, t).clamp(-1, 1)

        with torch.no_grad():
            singles.append(ddim_sampler(denoiser, SCHEDULE, noise_of([4, 5, 6], number), 2))
    result = predict(model, SCHEDULE, *conditions, num_steps=2, seed=4, gate="uni", num_samples=3)
    torch.testing.assert_close(result.samples, torch.stack(singles), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(result.x0, torch.stack(singles).mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result.spread, torch.stack(singles).std(0, correction=0), rtol=1e-3, atol=1e-3)


def test_a_gate_may_stand_for_a_branch(model, conditions):
    damm = predict(model, SCHEDULE, *conditions, num_steps=2)
    assert torch.equal(predict(model, SCHEDULE, *conditions, num_steps=2, gate=DAMMP()).x0, damm.x0)
    always = predict(model, SCHEDULE, *conditions, num_steps=2, gate=DAMMP(gamma=0.0))
    assert always.branch == ["multi"] * 3
    assert predict(model, SCHEDULE, *conditions, num_steps=2, gate=SpatialDAMMP()).x0.shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    "primary, secondary, options, message",
    [
        (torch.zeros(1, 16, 16), torch.zeros(1, 1, 16, 16), {}, r"primary: expected shape \(B, C, H, W\)"),
        (torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 255.0), {}, r"secondary: .*\[-1, 1\].*255"),
        (torch.full((1, 1, 16, 16), torch.nan), torch.zeros(1, 1, 16, 16), {}, "primary: .*NaN"),
        (torch.zeros(1, 1, 18, 16), torch.zeros(1, 1, 18, 16), {}, "multiples of 4.*18 x 16"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 20), {}, "secondary: .*16 x 16.*16 x 20"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(2, 1, 16, 16), {}, "secondary: .*batch of 1.*2"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {"gate": "best"}, "damm, uni, multi.*best"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {"num_samples": 0}, "num_samples: expected"),
    ],
)
def test_bad_input_is_named(model, primary, secondary, options, message):
    with pytest.raises(ValueError, match=message):
        predict(model, SCHEDULE, primary, secondary, num_steps=1, **options)


def test_a_plain_unet_predicts_from_the_same_noise():
    torch.manual_seed(0)
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=PredictsImage).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    twin = UNet(model.config, PredictsImage).eval()  # the uni-modal branch, as a network of its own
    twin.time.load_state_dict(model.time.state_dict())
    twin.backbone.load_state_dict(model.uni.state_dict())
    primary, secondary = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    options = dict(num_steps=4, seed=3, num_samples=2)
    expected = predict(model, SCHEDULE, primary, secondary, gate="uni", **options).samples
    torch.testing.assert_close(predict_unet(twin, SCHEDULE, primary, **options), expected)


def test_a_batch_in_parts_is_the_whole_batch():
    batch = stack(SyntheticTumours(n=5, size=16, seed=0))
    parts = list(chunks(batch, 2))
    assert [len(part["kind"]) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part["target"] for part in parts]), batch["target"])
    assert sum((part["kind"] for part in parts), []) == batch["kind"]


def test_a_volume_is_its_slices_with_the_same_noise_for_all(model, conditions):
    model = copy.deepcopy(model).double()  # float32 rounds batches of another size differently on some processors
    primary, secondary = (x[[0, 1, 0]] for x in conditions)
    volume = predict_slices(model, SCHEDULE, primary, secondary, num_steps=2, seed=5, num_samples=4)
    assert volume.samples.shape == (4, 3, 1, 16, 16) and volume.confidence_map.shape == (3, 4, 4)
    assert torch.equal(volume.samples[:, 0], volume.samples[:, 2])
    one = predict(model, SCHEDULE, *(x[:1] for x in conditions), num_steps=2, seed=5, num_samples=4)
    torch.testing.assert_close(volume.samples[:, :1], one.samples)
    torch.testing.assert_close(volume.confidence[:1], one.confidence)
    torch.testing.assert_close(volume.confidence_map[:1], one.confidence_map)
    names = {branch: predict_slices(model, SCHEDULE, *conditions, 1, gate=branch).branch for branch in ("uni", "multi")}
    assert names == {branch: [branch] * 3 for branch in names}
    own = predict_slices(model, SCHEDULE, *conditions, 1, gate=["uni", AlwaysMulti(), "uni"])
    assert own.branch == ["uni", "multi", "uni"]
    with pytest.raises(ValueError, match="shorter"):
        predict_slices(model, SCHEDULE, *conditions, 1, gate=["uni"])


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.half, torch.Tensor.bfloat16])
def test_real_numbers_of_any_type_are_taken_as_the_networks(model, conditions, change):
    expected = predict(model, SCHEDULE, *conditions, num_steps=2, gate="uni")
    found = predict(model, SCHEDULE, *map(change, conditions), num_steps=2, gate="uni")
    assert found.x0.dtype == torch.float32 and (found.x0 - expected.x0).abs().mean() < 0.05


def test_a_network_of_half_precision_predicts(conditions):
    half = tiny(prediction=PredictsImage).bfloat16()
    found = predict(half, SCHEDULE, *conditions, num_steps=3)
    assert found.x0.dtype == torch.bfloat16 and found.x0.isfinite().all()


@pytest.mark.parametrize("wrapper", [torch.nn.DataParallel, AveragedModel])
def test_a_wrapped_network_is_the_network(model, conditions, wrapper):
    wrapped = wrapper(model)
    expected = predict(model, SCHEDULE, *conditions, num_steps=2)
    assert torch.equal(predict(wrapped, SCHEDULE, *conditions, num_steps=2).x0, expected.x0)


@pytest.mark.parametrize("array", [tuple, np.array, torch.tensor])
def test_seeds_may_be_any_whole_numbers(model, conditions, array):
    options = dict(num_steps=2, gate="uni")
    expected = predict(model, SCHEDULE, *conditions, seed=[7, 8, 5], **options).x0
    assert torch.equal(predict(model, SCHEDULE, *conditions, seed=array([7, 8, 5]), **options).x0, expected)
    with pytest.raises(TypeError):
        predict(model, SCHEDULE, *conditions, seed=array([7.0, 8.0, 5.5]), **options)


@pytest.mark.parametrize("change", [torch.Tensor.numpy, torch.Tensor.long, lambda x: x[0]])
def test_what_is_no_image_is_named(model, conditions, change):
    primary, secondary = conditions
    with pytest.raises(ValueError, match="primary: expected"):
        predict(model, SCHEDULE, change(primary), secondary, num_steps=1)
    with pytest.raises(ValueError, match="secondary: expected"):
        predict(model, SCHEDULE, primary, change(secondary), num_steps=1)


def test_every_way_to_predict_wants_a_sample(model, conditions):
    unet = UNet(UNetConfig(2, 1, (16, 16, 16, 16), 16))
    for call in (
        lambda: predict_slices(model, SCHEDULE, *conditions, num_samples=0),
        lambda: predict_unet(unet, SCHEDULE, conditions[0], num_samples=0),
    ):
        with pytest.raises(ValueError, match="num_samples: expected at least 1, got 0"):
            call()


@pytest.mark.parametrize("run", [predict, predict_slices, predict_unet])
def test_a_network_of_the_other_kind_is_named(conditions, run):
    of_two, of_one = tiny(), UNet(UNetConfig(2, 1, (16, 16, 24, 32), 32))
    wrong, images = (of_two, [torch.cat(conditions, dim=1)]) if run is predict_unet else (of_one, conditions)
    with pytest.raises(ValueError, match=f"model: .*got {type(wrong).__name__}"):
        run(wrong, scaled_linear_schedule(), *images, 1)
