"""The losses: what they ask of whom."""

import math

import pytest
import torch

from damm_lite.damm import DAMMOutput
from damm_lite.losses import our_loss, released_loss, safe_log, warmup_loss


def two_cells(u_left, u_right):
    """A patch of two cells with these confidences, and its target: errors of 0.4 by uni; 0.2 and 0.8 by multi."""
    uni = torch.full((1, 1, 4, 8), 0.4, requires_grad=True)
    multi = torch.cat([torch.full((1, 1, 4, 4), 0.2), torch.full((1, 1, 4, 4), 0.8)], dim=3).requires_grad_()
    u = torch.tensor([[[u_left, u_right]]], requires_grad=True)
    return DAMMOutput(uni, multi, None, u), torch.zeros(1, 1, 4, 8)


def test_our_loss_follows_its_formula():
    output, target = two_cells(0.3, 0.3)
    trusted = torch.ones_like(target)
    trusted[..., 4:] = 0
    loss = our_loss(output, target, trusted, alpha=0.5, power=2)
    left, right = 0.16 * math.log(0.3) + 0.04 * math.log(0.7), 0.16 * math.log(0.3) + 0.64 * math.log(0.7)
    at_stake = ((0.16 + 0.04) + (0.16 + 0.64)) / 2
    assert loss.item() == pytest.approx(0.16 + 0.3**2 * 0.04 / 2 - 0.5 * (left + right) / 2 / at_stake)
    loss.backward()
    left, right = 0.04 / 0.7 - 0.16 / 0.3, 0.64 / 0.7 - 0.16 / 0.3
    torch.testing.assert_close(output.confidence_map.grad, 0.5 / 2 / at_stake * torch.tensor([[[left, right]]]))
    torch.testing.assert_close(output.uni.grad, 2 * output.uni.detach() / 32)  # the map's term trains no branch
    assert (output.multi.grad[..., 4:] == 0).all()  # known to be misled
    torch.testing.assert_close(output.multi.grad[..., :4], 0.3**2 * 2 * output.multi.detach()[..., :4] / 32)


def test_our_loss_teaches_the_multi_modal_branch_where_it_is_believed():
    output, target = two_cells(0.9, 0.1)
    our_loss(output, target).backward()
    by_column = output.multi.grad[0, 0, 0] / output.multi.detach()[0, 0, 0]
    assert (by_column.diff() <= 0).all() and by_column[0] / by_column[-1] == pytest.approx(9**4, rel=1e-3)
    assert (by_column > 0).all(), "nobody starves"


def test_our_loss_is_least_at_the_share_of_the_error():
    u = torch.linspace(0.02, 0.98, 193)
    losses = torch.stack([our_loss(*two_cells(v.item(), v.item()), power=1e9) for v in u])
    assert u[losses.argmin()].item() == pytest.approx(0.32 / (0.32 + 0.68), abs=0.006)
    left = torch.stack([our_loss(*two_cells(v.item(), 0.5), power=1e9) for v in u])
    assert u[left.argmin()].item() == pytest.approx(0.16 / 0.2, abs=0.006)


def test_our_loss_is_finite_where_there_is_nothing_to_learn():
    right = torch.rand(2, 1, 8, 8)
    u = torch.full((2, 2, 2), 0.7, requires_grad=True)
    uni, multi = right.clone().requires_grad_(), right.clone().requires_grad_()
    uni.data[1, :, :4] += 0.1  # patch 0 is perfect, patch 1 in half of its cells
    loss = our_loss(DAMMOutput(uni, multi, None, u), right)
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in (u, uni, multi))
    assert (u.grad[1, 0] < 0).all() and not u.grad[0].any() and not u.grad[1, 1].any()  # u is to rise where uni errs


def test_released_loss_starves_the_losing_branch():
    uni, multi, target = (torch.randn(2, 1, 4, 4) for _ in range(3))
    multi.requires_grad_()
    output = DAMMOutput(uni, multi, torch.tensor([0.3, 0.8]), torch.full((2, 1, 1), 0.5))
    released_loss(output, target).backward()
    assert (multi.grad[0] == 0).all() and (multi.grad[1] != 0).all()


def test_the_safe_logarithm_makes_pytorchs_cross_entropy():
    p = torch.tensor([0.0, 1e-6, 0.3, 0.999999, 1.0], requires_grad=True)
    y = torch.tensor([1.0, 0.0, 0.4, 1.0, 0.0])
    ours = -(y * safe_log(p) + (1 - y) * safe_log(1 - p)).mean()
    expected = torch.nn.functional.binary_cross_entropy(p, y)
    torch.testing.assert_close(ours, expected)
    for gradient, wanted in zip(*(torch.autograd.grad(x, p)[0][1:4] for x in (ours, expected)), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [our_loss, released_loss])
def test_a_confidence_that_is_not_a_number_gives_a_loss_that_says_so(loss):
    images, u = torch.zeros(2, 1, 8, 8), torch.full((2, 2, 2), math.nan)
    assert loss(DAMMOutput(images, images + 1, u.mean((1, 2)), u), images).isnan()


def test_the_multi_modal_branch_need_not_be_right_where_the_second_image_is_known_to_be_wrong():
    output, target = two_cells(0.7, 0.2)
    trusted = torch.zeros_like(target)
    our_loss(output, target, trusted, power=0.0).backward()
    assert not output.multi.grad.any() and output.uni.grad.all()
    output, target = two_cells(0.7, 0.2)
    our_loss(output, target, power=0.0).backward()  # trusted, and not specialising: all pixels count alike
    torch.testing.assert_close(output.multi.grad, 2 * output.multi.detach() / 32)


def test_the_released_losses_ask_nothing_of_the_mismatches():
    output, target = two_cells(0.7, 0.2)
    output = output._replace(confidence=torch.tensor([0.6]))
    for loss in (released_loss, warmup_loss):
        assert torch.equal(loss(output, target), loss(output, target, torch.zeros_like(target)))
