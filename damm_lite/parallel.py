"""Batch statistics across processes: what makes a batch shared by several equal to one batch.

PyTorch's own `SyncBatchNorm` does this on GPUs; on CPUs, where it refuses, we do it here.
"""

import torch.distributed
from torch import nn


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is that of the sum of their losses."""

    @staticmethod
    def forward(context, x):
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(context, gradient):
        return SumOverProcesses.apply(gradient)


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` whose batch is that of all processes, each holding an equal part of it."""

    def forward(self, x):
        if not (self.training and torch.distributed.is_initialized()):
            return super().forward(x)
        processes = torch.distributed.get_world_size()
        mean = SumOverProcesses.apply(x.mean(dim=(0, 2, 3))) / processes  # (C,)
        centred = x - mean[:, None, None]
        variance = SumOverProcesses.apply(centred.square().mean(dim=(0, 2, 3))) / processes
        n = processes * x.numel() / len(mean)
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * n / (n - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def share_batch_statistics(model, device):
    """Make every batch norm of `model`, in place, one over all processes."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                new = nn.SyncBatchNorm if device.type == "cuda" else CPUSyncBatchNorm2d
                norm = new(child.num_features, child.eps, child.momentum).to(device)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
