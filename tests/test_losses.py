"""The losses: what they ask of whom."""

import math

import pytest
import torch

from damm_lite.damm import DAMMOutput
from damm_lite.losses import damm_loss, released_loss, specialist_loss


def test_damm_loss_moves_the_map_towards_the_better_branch():
    target = torch.zeros(1, 1, 8, 8)
    uni, multi = torch.full((1, 1, 8, 8), 0.4), torch.zeros(1, 1, 8, 8)
    multi[..., 4:] = 0.8  # right on the left half, worse than uni on the right
    u = torch.full((1, 2, 2), 0.3, requires_grad=True)
    output = DAMMOutput(uni.requires_grad_(), multi.requires_grad_(), u.mean((1, 2)), u)
    trusted = torch.ones_like(target)
    trusted[..., 4:] = 0
    loss = damm_loss(output, target, trusted, alpha=0.5)
    entropy = -(math.log(0.3) + math.log(0.7)) / 2  # y = 1 in the two cells on the left, 0 on the right
    assert loss.item() == pytest.approx(0.4**2 + 0 + 0.5 * entropy)
    loss.backward()
    torch.testing.assert_close(u.grad[0], 0.5 / 4 * torch.tensor([[-1 / 0.3, 1 / 0.7]] * 2))
    assert (multi.grad == 0).all()  # perfect on the left, known to be misled on the right
    torch.testing.assert_close(uni.grad, 2 * uni.detach() / 64)  # and the map's term trains no branch


def test_damm_loss_asks_for_the_chance_that_the_multi_modal_branch_is_closer():
    generator = torch.Generator().manual_seed(0)
    uni, multi = torch.randn(2, 4000, 1, 4, 4, generator=generator)
    output = DAMMOutput(uni, 0.9 * multi, None, torch.full((4000, 1, 1), 0.5, requires_grad=True))
    u = torch.linspace(0.05, 0.95, 181)
    losses = [
        damm_loss(output._replace(confidence_map=torch.full((4000, 1, 1), v)), torch.zeros(4000, 1, 4, 4)) for v in u
    ]
    closer = (0.81 * multi.square().mean((1, 2, 3)) < uni.square().mean((1, 2, 3))).float().mean()
    assert u[torch.stack(losses).argmin()].item() == pytest.approx(closer.item(), abs=0.006)


def two_cells(u_left, u_right):
    """A patch of two cells with these confidences, and its target: errors of 0.4 by uni; 0.2 and 0.8 by multi."""
    uni = torch.full((1, 1, 4, 8), 0.4, requires_grad=True)
    multi = torch.cat([torch.full((1, 1, 4, 4), 0.2), torch.full((1, 1, 4, 4), 0.8)], dim=3).requires_grad_()
    u = torch.tensor([[[u_left, u_right]]], requires_grad=True)
    return DAMMOutput(uni, multi, None, u), torch.zeros(1, 1, 4, 8)


def test_specialist_loss_follows_its_formula():
    output, target = two_cells(0.3, 0.3)
    trusted = torch.ones_like(target)
    trusted[..., 4:] = 0
    loss = specialist_loss(output, target, trusted, alpha=0.5, power=2)
    left, right = 0.16 * math.log(0.3) + 0.04 * math.log(0.7), 0.16 * math.log(0.3) + 0.64 * math.log(0.7)
    at_stake = ((0.16 + 0.04) + (0.16 + 0.64)) / 2
    assert loss.item() == pytest.approx(0.16 + 0.3**2 * 0.04 / 2 - 0.5 * (left + right) / 2 / at_stake)
    loss.backward()
    left, right = 0.04 / 0.7 - 0.16 / 0.3, 0.64 / 0.7 - 0.16 / 0.3
    torch.testing.assert_close(output.confidence_map.grad, 0.5 / 2 / at_stake * torch.tensor([[[left, right]]]))
    torch.testing.assert_close(output.uni.grad, 2 * output.uni.detach() / 32)  # the map's term trains no branch
    assert (output.multi.grad[..., 4:] == 0).all()  # known to be misled
    torch.testing.assert_close(output.multi.grad[..., :4], 0.3**2 * 2 * output.multi.detach()[..., :4] / 32)


def test_specialist_loss_teaches_the_multi_modal_branch_where_it_is_believed():
    output, target = two_cells(0.9, 0.1)
    specialist_loss(output, target).backward()
    by_column = output.multi.grad[0, 0, 0] / output.multi.detach()[0, 0, 0]
    assert (by_column.diff() <= 0).all() and by_column[0] / by_column[-1] == pytest.approx(9**4, rel=1e-3)
    assert (by_column > 0).all(), "nobody starves"


def test_specialist_loss_is_least_at_the_share_of_the_error():
    u = torch.linspace(0.02, 0.98, 193)
    losses = torch.stack([specialist_loss(*two_cells(v.item(), v.item()), power=1e9) for v in u])
    assert u[losses.argmin()].item() == pytest.approx(0.32 / (0.32 + 0.68), abs=0.006)
    left = torch.stack([specialist_loss(*two_cells(v.item(), 0.5), power=1e9) for v in u])
    assert u[left.argmin()].item() == pytest.approx(0.16 / 0.2, abs=0.006)


def test_specialist_loss_is_finite_where_there_is_nothing_to_learn():
    right = torch.rand(2, 1, 8, 8)
    u = torch.full((2, 2, 2), 0.7, requires_grad=True)
    uni, multi = right.clone().requires_grad_(), right.clone().requires_grad_()
    uni.data[1, :, :4] += 0.1  # patch 0 is perfect, patch 1 in half of its cells
    loss = specialist_loss(DAMMOutput(uni, multi, None, u), right)
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in (u, uni, multi))
    assert (u.grad[1, 0] < 0).all() and not u.grad[0].any() and not u.grad[1, 1].any()  # u is to rise where uni errs


def test_released_loss_starves_the_losing_branch():
    uni, multi, target = (torch.randn(2, 1, 4, 4) for _ in range(3))
    multi.requires_grad_()
    output = DAMMOutput(uni, multi, torch.tensor([0.3, 0.8]), torch.full((2, 1, 1), 0.5))
    released_loss(output, target).backward()
    assert (multi.grad[0] == 0).all() and (multi.grad[1] != 0).all()
