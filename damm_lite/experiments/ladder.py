"""What makes a training step faster or smaller, each alone, on the same work.

Every rung makes the step of `TrainingStep` with one thing changed. `make bench`
times them all; to time one where you are:

    step = ladder.BFloat16(batch=32)
    step()  # the first call also pays for what is made once
    torch.utils.benchmark.Timer("step()", globals=globals()).timeit(10)
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from damm_lite.checkpoint import load_pretrained
from damm_lite.data import generator_of, stack
from damm_lite.losses import our_loss
from damm_lite.train import MAX_GRAD_NORM, WEIGHT_DECAY, prepare
from damm_lite.tumours import SyntheticTumours
from damm_lite.unet import ResBlock


class TrainingStep:
    """A step of training of `tumour-64`: loss, gradients, optimiser, in float32
    (on a GPU convolutions in TF32).

    It takes the same `batch` simulated patches of `side` x `side` pixels every
    time, on the first GPU, else on the CPU, and returns their loss (), before
    the step. The weights are the step's own.
    """

    def __init__(self, batch: int = 32, side: int = 64):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, self.schedule = load_pretrained("tumour-64")
        self.model = model.to(self.device).train()
        self.patches = list(SyntheticTumours(batch, side, seed=0))
        self.ready = self.prepared(stack(self.patches))
        self.network = self.model
        self.optimizer = AdamW(self.model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        self.change()

    def change(self) -> None:
        """What a variant sets up otherwise; here nothing."""

    def prepared(self, batch: dict) -> dict[str, Tensor]:
        """A stacked batch with noise and mismatches, which are always the same, on the device."""
        batch = prepare(self.schedule, self.model.prediction, batch, generator_of(0, 0))
        return {key: x.to(self.device, non_blocking=True) for key, x in batch.items()}

    def batch(self) -> dict[str, Tensor]:
        """The batch of the next step."""
        return self.ready

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss () of a batch."""
        conditions = [batch[name] for name in self.model.conditions]
        return our_loss(self.network(batch["xt"], batch["t"], *conditions), batch["output_target"], batch["trusted"])

    def backward(self, batch: dict[str, Tensor]) -> Tensor:
        """Add the gradients of a batch to the weights'; returns its loss."""
        loss = self.loss(batch)
        loss.backward()
        return loss.detach()

    def __call__(self) -> Tensor:
        loss = self.backward(self.batch())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


class ReadsEveryLoss(TrainingStep):
    """The loss is a Python number at once, for which the CPU waits."""

    def backward(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(super().backward(batch).item())


class UnfusedOptimizer(TrainingStep):
    """AdamW as a loop over the tensors of weights, some ten operations for each."""

    def change(self) -> None:
        self.optimizer = AdamW(self.model.parameters(), weight_decay=WEIGHT_DECAY, foreach=False)


class ChannelsLast(TrainingStep):
    """The channels of a pixel lie side by side in memory."""

    def change(self) -> None:
        self.model.to(memory_format=torch.channels_last)
        self.ready = {
            key: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for key, x in self.ready.items()
        }


class ExactProducts(TrainingStep):
    """Convolutions in float32, not in TF32, to which PyTorch lets a GPU round them."""

    def backward(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return super().backward(batch)


class BFloat16(TrainingStep):
    """Autocast: convolutions and products in bfloat16."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return super().loss(batch)


class Compiled(TrainingStep):
    """`torch.compile`: neighbouring operations become one."""

    def change(self) -> None:
        self.network = torch.compile(self.model)


class Graphs(TrainingStep):
    """Compiled, with forward and backward pass as CUDA graphs: one call of the CPU starts all operations of each."""

    def change(self) -> None:
        self.network = torch.compile(self.model, mode="reduce-overhead")


class Accumulated(TrainingStep):
    """Two halves of the batch one after the other, and one step of the optimiser.

    The MMFMs' batch norms see the halves, so the loss is another.
    """

    def backward(self, batch: dict[str, Tensor]) -> Tensor:
        halves = [{key: x.chunk(2)[half] for key, x in batch.items()} for half in range(2)]
        losses = []
        for half in halves:
            loss = self.loss(half) / 2
            loss.backward()
            losses.append(loss.detach())
        return sum(losses)


class Recomputed(TrainingStep):
    """Activation checkpointing: a residual block keeps its input alone, and
    the backward pass computes the rest once more.
    """

    def change(self) -> None:
        recomputed = partial(checkpoint, use_reentrant=False)
        for block in self.model.modules():
            if isinstance(block, ResBlock):
                block.forward = partial(recomputed, block.forward)


class Loads(TrainingStep):
    """Patches are stacked for each step, here or ahead of time by `workers` processes, and prepared here."""

    def __init__(self, batch: int = 32, side: int = 64, workers: int = 0):
        super().__init__(batch, side)
        repeated, on_gpu = self.patches * 1000, self.device.type == "cuda"
        loader = DataLoader(repeated, batch, collate_fn=stack, num_workers=workers, pin_memory=on_gpu)
        self.batches = iter(loader)

    def batch(self) -> dict[str, Tensor]:
        return self.prepared(next(self.batches))


RUNGS: dict[str, Callable[[int, int], TrainingStep]] = {
    "as it is": TrainingStep,
    "loss read at once": ReadsEveryLoss,
    "batches made in between": Loads,
    "batches from two workers": partial(Loads, workers=2),
    "optimiser not fused": UnfusedOptimizer,
    "two half batches": Accumulated,
    "activations recomputed": Recomputed,
    "channels last": ChannelsLast,
    "bfloat16": BFloat16,
    "compiled": Compiled,
    "as it is, again": TrainingStep,  # how much the machine itself varies
}
GPU_RUNGS: dict[str, Callable[[int, int], TrainingStep]] = {
    "compiled, CUDA graphs": Graphs,
    "no TF32": ExactProducts,
}  # what a CPU does not have
