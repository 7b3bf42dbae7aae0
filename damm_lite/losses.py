"""What training asks of both branches and of the confidence: our objective, and the released ones."""

import torch
from torch.nn import functional

from damm_lite.gates import upsample


def damm_loss(output, target, trusted=None, *, alpha=0.01):
    """Our objective: both branches always trained, and u taught which of them is closer; a scalar.

    `target` (B, C, H, W) is what both branches should output; `trusted` (B, 1, H, W) in {0, 1}
    marks where the secondary image is known to be right, and only there the multi-modal branch
    has to be. The last term, alpha BCE(u, y), has for each of the map's cells y = 1 where the
    multi-modal branch errs less: u is the chance that it does, so that u > 1/2 is the better bet.
    """
    trusted = torch.ones_like(target[:, :1]) if trusted is None else trusted
    u = output.confidence_map[:, None]
    l_uni, l_multi = (output.uni - target).square(), (output.multi - target).square()
    gain = (l_uni - l_multi).detach().mean(dim=1, keepdim=True)  # (B, 1, H, W)
    better = functional.adaptive_avg_pool2d(gain, u.shape[2:]) > 0  # (B, 1, h, w)
    gate = functional.binary_cross_entropy(u, better.to(u.dtype))
    return l_uni.mean() + (trusted * l_multi).mean() + alpha * gate


def specialist_loss(output, target, trusted=None, *, alpha=0.01, power=4):
    """`damm_loss` that lets each branch do what it is better at; a scalar.

    The multi-modal branch's errors count with the weight trusted u^power, u upsampled: where its second
    image misleads it, it need not hedge. The last term, alpha times the mean over the map's cells of
    -(l_uni log u + l_multi log(1 - u)), over the patch's mean of l_uni + l_multi, is least where
    u = l_uni / (l_uni + l_multi): still above 1/2 where the multi-modal branch errs less, but cells in
    which both err little hardly count.
    """
    trusted = torch.ones_like(target[:, :1]) if trusted is None else trusted
    u = output.confidence_map[:, None]
    l_uni, l_multi = (output.uni - target).square(), (output.multi - target).square()
    believed = trusted * upsample(u.detach(), 4) ** power
    cost_uni, cost_multi = (
        functional.adaptive_avg_pool2d(each.detach().mean(dim=1, keepdim=True), u.shape[2:])  # (B, 1, h, w)
        for each in (l_uni, l_multi)
    )
    at_stake = (cost_uni + cost_multi).mean(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(u.dtype).tiny)
    gate = functional.binary_cross_entropy(u, torch.ones_like(u), cost_uni / at_stake)  # log clamped: u may be 0 or 1
    gate = gate + functional.binary_cross_entropy(u, torch.zeros_like(u), cost_multi / at_stake)
    return l_uni.mean() + (believed * l_multi).mean() + alpha * gate


def released_loss(output, target, *, alpha=1e-4, gamma=0.5):
    """The released objective of the second phase; a scalar.

    Per sample, l = mean |output - target| of each branch: the uni-modal branch alone where
    c < gamma, else the mean of both; plus alpha [BCE(c, y) / 2 + mean (c - gamma)^2] with
    y = 1 where the multi-modal branch is no worse.
    """
    l_uni, l_multi, c = per_sample_l1(output.uni, target), per_sample_l1(output.multi, target), output.confidence
    branches = torch.where(c < gamma, l_uni, (l_uni + l_multi) / 2)
    better = (l_multi <= l_uni).to(c.dtype)
    gate = 0.5 * functional.binary_cross_entropy(c, better) + (c - gamma).square().mean()
    return branches.mean() + alpha * gate


def warmup_loss(output, target):
    """The released objective of the first phase: the mean of both branches' L1; a scalar."""
    return (per_sample_l1(output.uni, target) + per_sample_l1(output.multi, target)).mean() / 2


def per_sample_l1(output, target):
    """mean |output - target| of each sample; (B,)."""
    return (output - target).abs().flatten(1).mean(dim=1)
