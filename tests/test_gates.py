"""The gates: which branch they believe."""

import pytest
import torch

from damm_lite.checkpoint import load_pretrained
from damm_lite.data import stack
from damm_lite.gates import DAMMP, AlwaysMulti, AlwaysUni, HardSpatialDAMMP, MeanOfBranches, SpatialDAMMP
from damm_lite.metrics import ssim
from damm_lite.predict import predict
from damm_lite.tumours.synthetic import HELD_OUT_SEED, SyntheticTumours
from helpers import inputs, tiny


def encoded_with(model, confidence, args):
    """The model's own encoding, with confidences put in by hand."""
    encoded = model.encode(*args)
    maps = torch.tensor(confidence).view(-1, 1, 1, 1).expand_as(encoded.confidence_map)
    return encoded._replace(confidence_map=maps)


def test_dammp_takes_the_branch_that_confidence_names():
    model, args = tiny(), inputs()
    confidence = [0.9, 0.5, 0.49, 0.1]  # the paper: uni-modal strictly below gamma
    encoded = encoded_with(model, confidence, args)
    uni, multi = model.decode_uni(encoded), model.decode_multi(encoded)
    decision = DAMMP()(model, encoded)
    assert decision.trust.tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(decision.output, torch.cat([multi[:2], uni[2:]]), rtol=1e-4, atol=1e-5)
    assert DAMMP(gamma=0.05)(model, encoded).trust.tolist() == [1] * 4
    assert DAMMP(gamma=1.0)(model, encoded).trust.tolist() == [0] * 4
    torch.testing.assert_close(AlwaysUni()(model, encoded).output, uni)
    torch.testing.assert_close(AlwaysMulti()(model, encoded).output, multi)


def test_dammp_decides_on_the_cells_of_its_region():
    model, args = tiny(), inputs()
    encoded = model.encode(*args)
    b, _, h, w = encoded.confidence_map.shape
    maps = torch.full((b, 1, h, w), 0.1)
    maps[1, :, : h // 2] = 0.9
    encoded = encoded._replace(confidence_map=maps)
    region = torch.zeros(b, 1, 4 * h, 4 * w)
    region[:3, :, : 2 * h] = 1  # the upper half; nothing at all in the last sample
    decision = DAMMP(region=region)(model, encoded)
    torch.testing.assert_close(decision.confidence, torch.tensor([0.1, 0.9, 0.1, 0.1]))
    assert decision.trust.tolist() == [0, 1, 0, 0] and DAMMP(gamma=0.51)(model, encoded).trust.sum() == 0
    torch.testing.assert_close(decision.output[1:2], model.decode_multi(encoded)[1:2], rtol=1e-4, atol=1e-5)
    region = region[0]
    region[:, 2 * h : 2 * h + 2] = 1  # half of the next row of cells, which therefore counts half
    expected = (0.9 * h / 2 + 0.1 / 2) / (h / 2 + 1 / 2)
    decision = DAMMP(region=region)(model, encoded)
    torch.testing.assert_close(decision.confidence, torch.tensor([0.1, expected, 0.1, 0.1]))
    with pytest.raises(ValueError, match=f"region: expected images of {4 * h} x {4 * w}, got shape"):
        DAMMP(region=region[:, 1:])(model, encoded)


def test_gates_do_not_mind_the_order_of_a_batch():
    model, args, order = tiny(), inputs(), torch.tensor([2, 0, 3, 1])
    encoded = encoded_with(model, [0.9, 0.2, 0.7, 0.1], args)
    for gate in (DAMMP(), SpatialDAMMP(), AlwaysUni(), AlwaysMulti()):
        whole, shuffled = gate(model, encoded), gate(model, encoded.select(order))
        torch.testing.assert_close(whole.output[order], shuffled.output, rtol=1e-4, atol=1e-5)
        assert torch.equal(whole.trust[order], shuffled.trust)


def test_gates_mix_by_pixel():
    model, args = tiny(), inputs()
    encoded = encoded_with(model, [1.0, 0.0, 0.25, 0.5], args)
    uni, multi = model.decode_uni(encoded), model.decode_multi(encoded)
    expected = {
        SpatialDAMMP(sharpness=1): [1, 0, 1 / 4, 1 / 2],
        SpatialDAMMP(): [1, 0, 1 / 10, 1 / 2],  # (1/4)^2 to (3/4)^2 is 1 to 9
        SpatialDAMMP(sharpness=3): [1, 0, 1 / 28, 1 / 2],
        SpatialDAMMP(sharpness=400): [1, 0, 0, 1 / 2],
        HardSpatialDAMMP(): [1, 0, 0, 1],
        HardSpatialDAMMP(gamma=0.2): [1, 0, 1, 1],
        MeanOfBranches(): [1 / 2] * 4,
    }
    for gate, shares in expected.items():
        decision, share = gate(model, encoded), torch.tensor(shares, dtype=torch.float32).view(-1, 1, 1, 1)
        torch.testing.assert_close(decision.output, share * multi + (1 - share) * uni, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decision.trust, share.flatten())


@pytest.mark.parametrize("sharpness", [0, -1.0, float("nan")])
def test_a_mix_is_sharpened_by_a_positive_number(sharpness):
    with pytest.raises(ValueError, match="sharpness: expected a number above 0, got"):
        SpatialDAMMP(sharpness)


def test_early_decision_is_the_whole_network():
    model, args = tiny(), inputs(6)
    out = model(*args)
    decision = DAMMP()(model, model.encode(*args))
    expected = torch.where((out.confidence >= 0.5).view(-1, 1, 1, 1), out.multi, out.uni)
    torch.testing.assert_close(decision.output, expected, rtol=1e-4, atol=1e-5)


def test_the_right_nuclei_help_the_shipped_network():
    model, schedule = load_pretrained("tumour-64")
    batch = stack(SyntheticTumours(8, 64, HELD_OUT_SEED, divergent_fraction=0.0))
    images = batch["primary"], batch["secondary"]
    uni, multi = (
        ssim(predict(model, schedule, *images, 2, gate=gate).x0, batch["target"]) for gate in ("uni", "multi")
    )
    assert (multi - uni).mean() > 0.05
