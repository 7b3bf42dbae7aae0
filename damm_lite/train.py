"""Training: one generator for every network of the book.

Step s draws everything random - which samples, which noise, which mismatches -
from (seed, s) alone, and for the whole batch, whatever the number of processes
that share it. A run can thus be repeated, resumed, and spread over several
devices.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from damm_lite.checkpoint import load_state
from damm_lite.data import generator_of, stack
from damm_lite.identity import identity_of
from damm_lite.losses import our_loss
from damm_lite.mismatches import make_mismatches
from damm_lite.schedules import NoiseSchedule

WEIGHT_DECAY, MAX_GRAD_NORM = 0.01, 1.0
READ_EVERY = 25  # steps between two looks at the loss on a GPU, each of which waits for it


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast. AdamW, warm-up then cosine decay of the learning
    rate.
    """

    num_steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    ema_decay: float = 0.999
    corrupted: float = 0.25  # share of each batch whose secondary image is a made mismatch
    seed: int = 0

    def __post_init__(self):
        least = {"num_steps": 1, "batch_size": 1, "warmup_steps": 0, "seed": 0}
        for field in fields(self):
            value, name = getattr(self, field.name), field.name
            whole = name in least
            if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
                raise ValueError(f"{name}: expected a {'whole' if whole else 'real'} number, got {value!r}")
            most = {"ema_decay": 1.0, "corrupted": 1.0}.get(name, math.inf)
            if not least.get(name, 0) <= value <= most or math.isinf(value):
                raise ValueError(f"{name}: expected a number from {least.get(name, 0)} to {most}, got {value!r}")
            object.__setattr__(self, name, int(value) if whole else float(value))  # NumPy's, too


class Step(NamedTuple):
    """What `train` yields after each optimiser step and average."""

    step: int  # steps done
    loss_on_device: Tensor  # (), not yet read
    model: nn.Module  # the weights being trained
    ema: nn.Module  # their running average: the model to use
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    identity: dict[str, str]  # of `identity_of`

    @property
    def loss(self) -> float:
        """The loss of this step; on a GPU, reading it waits for the step to
        end.
        """
        return self.loss_on_device.item()


def train(
    model: nn.Module,
    schedule: NoiseSchedule,
    dataset: Sized,
    config: TrainConfig | None = None,
    loss: Callable = our_loss,
    *,
    progress: bool = True,
    accelerator: Accelerator | None = None,
    resume: str | Path | None = None,
) -> Iterator[Step]:
    """Train `model` in place on any sized dataset; yields a `Step` after every
    step.

    `loss` is any of `losses`. A simulated dataset is slow to draw: pass
    `list(dataset)` to draw it once. `accelerator` sets device, precision,
    compilation and the processes that share each batch (default: the first
    GPU, else the CPU). `resume` is a file of `save_state`: go on after its
    step as if there had been no interruption. Raises ValueError where that
    file is of another run or the processes cannot share the batch equally, and
    FloatingPointError, naming step and seed, when the loss is not finite (on a
    GPU up to 25 steps later).
    """
    config, accelerator = config or TrainConfig(), accelerator or Accelerator()
    if config.batch_size % accelerator.num_processes:
        among = f"{accelerator.num_processes} processes"
        found = f"{config.batch_size} does not divide among {among}"
        raise ValueError(f"batch_size: {found}")
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        # A batch norm's batch is that of all processes.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    device = accelerator.device
    model.to(device).train()
    average = _average(config.ema_decay)
    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    parameters = list(model.parameters())
    optimizer = AdamW(parameters, weight_decay=WEIGHT_DECAY, fused=True)
    identity, done = identity_of(model, schedule, dataset, loss), 0
    if resume:
        done = load_state(resume, model, ema, optimizer, config, identity)
    shared, optimizer = accelerator.prepare(model, optimizer)
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    order = StepSampler(len(dataset), config, done)
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=stack)
    hidden = not (progress and accelerator.is_local_main_process)
    prediction, corrupted = model.prediction, config.corrupted
    total = config.num_steps
    bar = tqdm(loader, "training", total, initial=done, disable=hidden)
    unread = []
    for step, batch in enumerate(bar, start=done + 1):
        generator = generator_of(config.seed, step)
        batch = prepare(schedule, prediction, batch, generator, corrupted)
        batch = {key: x[rows].to(device) for key, x in batch.items()}
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, config)
        conditions = [batch[name] for name in model.conditions]
        output = shared(batch["xt"], batch["t"], *conditions)
        value = loss(output, batch["output_target"], batch.get("trusted"))
        accelerator.backward(value)
        mean = accelerator.reduce(value.detach(), "mean")
        unread.append(mean)
        last = step == total
        if mean.device.type == "cpu" or len(unread) == READ_EVERY or last:
            first = step - len(unread) + 1
            check_losses(torch.stack(unread).tolist(), first, config.seed)
            unread = []
        accelerator.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
        yield Step(step, mean, model, ema.module, optimizer, config, identity)


def check_losses(losses: Iterable[float], first: int, seed: int) -> None:
    """Raise FloatingPointError for the first of these losses, of steps
    `first`, first + 1, ..., that is not finite.
    """
    for step, loss in enumerate(losses, start=first):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step} of seed {seed}")


class StepSampler:
    """Yields, for each training step still to do, the indices of its batch; a
    function of (seed, step).
    """

    def __init__(self, n: int, config: TrainConfig, done: int = 0):
        self.n, self.config, self.done = n, config, done

    def __len__(self) -> int:
        return self.config.num_steps - self.done

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.done + 1, self.config.num_steps + 1):
            rng = np.random.default_rng([self.config.seed, step])
            yield rng.choice(self.n, self.config.batch_size, replace=self.n < self.config.batch_size).tolist()


def prepare(
    schedule: NoiseSchedule, prediction: type, batch: dict, generator: torch.Generator, corrupted: float = 0.25
) -> dict[str, Tensor]:
    """A stacked batch, on the CPU, with all that is random about its training
    step added.

    Keeps every tensor, real numbers as float32, and adds t (B,), eps, xt and
    `output_target` (B, C, H, W): what the network should output, by its prediction
    type. Where there is a secondary image, a share `corrupted` of them are exchanged
    for made mismatches, and `trusted` (B, 1, H, W) tells where. Raises ValueError
    for images beyond [-1, 1].
    """
    batch = {key: x.float() if x.is_floating_point() else x for key, x in batch.items() if torch.is_tensor(x)}
    x0, size = batch["target"], batch.get("primary", batch["target"]).shape[2:]  # latents, smaller, may go beyond
    if wide := [key for key, x in batch.items() if x.ndim == 4 and x.shape[2:] == size and x.abs().max() > 1.001]:
        raise ValueError(f"{wide[0]}: expected values in [-1, 1], got some up to {batch[wide[0]].abs().max():g}")
    t = torch.randint(len(schedule), (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    batch |= dict(t=t, eps=eps, xt=schedule.add_noise(x0, eps, t))
    batch["output_target"] = prediction.target(schedule, x0, eps, t)
    if "secondary" in batch:
        batch["secondary"], batch["trusted"] = make_mismatches(batch["secondary"], generator, corrupted)
    return batch


def _learning_rate(step, config):
    """The rate of step 1, 2, ...: linear warm-up, cosine decay to zero."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * (step - 1) / config.num_steps))


def _average(decay):
    """Exponential moving average that follows closely at first, so that short
    runs work too.
    """

    def update(averages, values, count):
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + count) / (10 + count)))
        else:
            torch._foreach_copy_(averages, values)

    return update
