"""What training asks of both branches and of the confidence: our loss, and the
released ones.

A loss takes the network's output, the `target` (B, C, H, W) that its
prediction type asks for, and `trusted` (B, 1, H, W) in {0, 1}, which is 0
where the secondary image is known to be wrong (None: nowhere), and returns a
scalar. One of your own is a function of these three.
"""

import torch
from torch import Tensor
from torch.nn import functional

from damm_lite.damm import DAMMOutput
from damm_lite.gates import upsample


def our_loss(
    output: DAMMOutput,
    target: Tensor,
    trusted: Tensor | None = None,
    *,
    alpha: float = 0.01,
    power: float = 4.0,
) -> Tensor:
    """The book's own loss: each branch learns what it is better at, and u
    learns which one that is.

    The uni-modal branch is trained everywhere. The multi-modal branch's errors
    count with the weight trusted u^power, u upsampled: where its second image
    misleads it, it need not hedge (power = 0: they count wherever the second
    image is right). The last term, alpha times the mean over the map's cells
    of -(l_uni log u + l_multi log(1 - u)), over the patch's mean of l_uni +
    l_multi, is least where u = l_uni / (l_uni + l_multi): above 1/2 where the
    multi-modal branch errs less, while cells in which both err little hardly
    count. l_uni and l_multi are squared errors.
    """
    trusted = torch.ones_like(target[:, :1]) if trusted is None else trusted
    u = output.confidence_map[:, None]
    l_uni = (output.uni - target).square()
    l_multi = (output.multi - target).square()
    # A latent is smaller than its images.
    trusted = functional.adaptive_avg_pool2d(trusted, target.shape[2:])
    believed = trusted * upsample(u.detach(), 4) ** power
    cost_uni, cost_multi = mean_of_cells(l_uni, u), mean_of_cells(l_multi, u)
    gate = -(cost_uni * safe_log(u) + cost_multi * safe_log(1 - u))
    at_stake = (cost_uni + cost_multi).mean(dim=(1, 2, 3), keepdim=True)
    gate = gate / at_stake.clamp(min=torch.finfo(u.dtype).tiny)
    return l_uni.mean() + (believed * l_multi).mean() + alpha * gate.mean()


def released_loss(
    output: DAMMOutput, target: Tensor, trusted: Tensor | None = None, *, alpha: float = 1e-4, gamma: float = 0.5
) -> Tensor:
    """The released loss of the second phase, which asks nothing of `trusted`.

    Per sample, l = mean |output - target| of each branch: the uni-modal branch
    alone where c < gamma, else the mean of both; plus alpha [BCE(c, y) / 2 +
    mean (c - gamma)^2] with y = 1 where the multi-modal branch is no worse.
    """
    l_uni, l_multi, c = per_sample_l1(output.uni, target), per_sample_l1(output.multi, target), output.confidence
    branches = torch.where(c < gamma, l_uni, (l_uni + l_multi) / 2)
    better = (l_multi <= l_uni).to(c.dtype)
    gate = -0.5 * (better * safe_log(c) + (1 - better) * safe_log(1 - c)) + (c - gamma).square()
    return branches.mean() + alpha * gate.mean()


def warmup_loss(output: DAMMOutput, target: Tensor, trusted: Tensor | None = None) -> Tensor:
    """The released loss of the first phase: the mean of both branches' L1,
    whatever is `trusted`.
    """
    return (per_sample_l1(output.uni, target) + per_sample_l1(output.multi, target)).mean() / 2


def squared_error(output: Tensor, target: Tensor, trusted: Tensor | None = None) -> Tensor:
    """The mean squared error of a `UNet`'s output (B, C, H, W), whatever is
    `trusted`.
    """
    return (output - target).square().mean()


def per_sample_l1(output: Tensor, target: Tensor) -> Tensor:
    """mean |output - target| of each sample; (B,)."""
    return (output - target).abs().flatten(1).mean(dim=1)


def mean_of_cells(errors: Tensor, u: Tensor) -> Tensor:
    """Errors (B, C, H, W) averaged over each cell of a map u (B, 1, h, w), without gradient; (B, 1, h, w)."""
    errors = errors.detach().mean(dim=1, keepdim=True)
    return functional.adaptive_avg_pool2d(errors, u.shape[2:])


def safe_log(p: Tensor) -> Tensor:
    """log p, and -100 with no gradient at p = 0, as in PyTorch's
    cross-entropy.

    That one stops the process where p is NaN; here NaN stays NaN, and training
    can say at which step it came.
    """
    return p.clamp(min=torch.finfo(p.dtype).tiny).log().masked_fill(p == 0, -100.0)
