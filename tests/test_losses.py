"""The losses: what they ask of whom."""

import math

import pytest
import torch

from damm_lite.damm import DAMMOutput
from damm_lite.losses import damm_loss, released_loss


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


def test_released_loss_starves_the_losing_branch():
    uni, multi, target = (torch.randn(2, 1, 4, 4) for _ in range(3))
    multi.requires_grad_()
    output = DAMMOutput(uni, multi, torch.tensor([0.3, 0.8]), torch.full((2, 1, 1), 0.5))
    released_loss(output, target).backward()
    assert (multi.grad[0] == 0).all() and (multi.grad[1] != 0).all()
