"""Ablations: one factor at a time, trained and measured alike."""

import sys

import pandas as pd
import pytest
import torch

from damm_lite.damm import DAMMNet
from damm_lite.data import generator_of
from damm_lite.experiments import ablate as ablate_function
from damm_lite.experiments.ablate import ablate, summarise
from damm_lite.experiments.factors import FACTORS, Budget, Level, Network, train_network
from damm_lite.fusion import UAFM, Addition, PlainAttention
from damm_lite.gates import AlwaysMulti, DecideOnce
from damm_lite.predict import predict
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.train import train
from damm_lite.unet import UNetConfig

TINY = Budget(size=16, widths=(16, 16, 16, 16), patches=8, steps=3, batch_size=4, test_patches=12)


def test_a_table_has_a_row_for_each_level_seed_and_patch():
    factors = {"fusion": {"MMFM": Level(num_steps=2), "addition": Level(Network(fusion=Addition), num_steps=2)}}
    table = ablate("fusion", seeds=(0, 1), budget=TINY, factors=factors)
    assert len(table) == 2 * 2 * 12 and not table.isna().any().any()
    assert set(table.level) == {"MMFM", "addition"} and set(table.seed) == {0, 1}
    train_network.cache_clear()
    again = ablate("fusion", seeds=(0,), budget=TINY, factors=factors)
    pd.testing.assert_frame_equal(again, table[table.seed == 0].reset_index(drop=True))
    summary = summarise(table)
    expected = table[table.level == "MMFM"].ssim.mean()
    assert summary.loc[("fusion", "MMFM"), "ssim"] == pytest.approx(expected)


def test_levels_that_differ_in_use_share_one_training(monkeypatch):
    runs = []
    monkeypatch.setattr(sys.modules["damm_lite.experiments.factors"], "train", lambda *a: runs.append(a) or train(*a))
    factors = {
        "gate": {"every step": Level(num_steps=2), "multi": Level(gate=AlwaysMulti, num_steps=2)},
        "num_steps": {"2": Level(num_steps=2), "3": Level(num_steps=3)},
    }
    train_network.cache_clear()
    for factor in factors:
        ablate(factor, seeds=(0,), budget=TINY, factors=factors)
    assert len(runs) == 1
    ablate("gate", seeds=(1,), budget=TINY, factors=factors)
    assert len(runs) == 2


@pytest.mark.parametrize("factor", FACTORS)
def test_every_factor_starts_from_the_book_or_says_so(factor):
    levels = list(FACTORS[factor].values())
    assert Level() in levels or factor in ("gamma", "num_steps")
    assert len(levels) >= 2


def test_plain_attention_ignores_the_confidence():
    torch.manual_seed(0)
    plain, scaled = PlainAttention(16, None), UAFM(16, None)
    scaled.load_state_dict(plain.state_dict())
    a, m, u = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4), torch.rand(2, 1, 4, 4)
    q, k, v = plain.q(plain.norm(a)).flatten(2), plain.k(plain.norm(m)).flatten(2), plain.v(plain.norm(m)).flatten(2)
    weights = torch.einsum("bci,bcj->bij", q / 16**0.5, k).softmax(dim=-1)
    expected = a + plain.proj(torch.einsum("bij,bcj->bci", weights, v).view_as(a))
    torch.testing.assert_close(plain(a, m, u), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(plain(a, m, u), plain(a, m, 1 - u))
    assert not torch.allclose(scaled(a, m, u), expected, atol=1e-3)


def test_deciding_once_keeps_to_the_first_decision():
    torch.manual_seed(0)
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16)).eval()
    images = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    t = torch.full((3,), 999)
    noise = torch.stack([torch.randn(1, 16, 16, generator=generator_of(seed, 0)) for seed in range(3)])
    c = model.encode(noise, t, *images).confidence.sort().values
    gamma, schedule, seen = c[:2].mean().item(), scaled_linear_schedule(), []

    class Watched(DecideOnce):
        def __call__(self, model, encoded):
            decision = super().__call__(model, encoded)
            seen.append(decision.trust.tolist())
            return decision

    result = predict(model, schedule, *images, num_steps=3, gate=Watched(gamma))
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2] and len(set(seen[0])) == 2
    assert [name == "multi" for name in result.branch] == [trust == 1 for trust in seen[0]]


def test_unknown_factors_are_named():
    with pytest.raises(ValueError, match="factor: expected one of fusion, .*, got 'fusoin'"):
        ablate("fusoin")
    assert ablate_function is ablate
