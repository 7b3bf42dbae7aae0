"""Training: one generator for every network of the book.

Step s draws everything random - which samples, which noise, which mismatches - from (seed, s)
alone, and for the whole batch, whatever the number of processes that share it. A run can thus
be repeated, resumed, and spread over several devices.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from damm_lite.checkpoint import load_state
from damm_lite.data import stack
from damm_lite.losses import damm_loss, released_loss, specialist_loss, warmup_loss
from damm_lite.mismatch import make_mismatches
from damm_lite.parallel import share_batch_statistics


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast. AdamW, warm-up then cosine decay of the learning rate."""

    num_steps: int = 2000
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0


class Step(NamedTuple):
    """What `train` yields after each optimiser step and average."""

    step: int  # steps done
    loss: float
    model: nn.Module  # the weights being trained
    ema: nn.Module  # their running average: the model to use
    optimizer: torch.optim.Optimizer
    config: TrainConfig


def train(model, schedule, dataset, config=None, objective=None, *, progress=True, accelerator=None, resume=None):
    """Train `model` in place on any sized dataset; yields a `Step` after every step.

    `objective(model, batch)` is the loss of one batch that `prepare` has made ready (default:
    `damm_objective`). A simulated dataset is slow to draw: pass `list(dataset)` to draw it once.
    `accelerator` sets device, precision, compilation and the processes that share each batch
    (default: the first GPU, else the CPU). `resume` is a file of `save_state`: go on after its
    step as if there had been no interruption. Raises ValueError where that file is of another
    run or the processes cannot share the batch equally, and FloatingPointError, naming step and
    seed, when the loss is not finite.
    """
    config, objective, accelerator = config or TrainConfig(), objective or damm_objective, accelerator or Accelerator()
    if config.batch_size % accelerator.num_processes:
        raise ValueError(f"batch_size: {config.batch_size} does not divide among {accelerator.num_processes} processes")
    model.to(accelerator.device).train()
    if accelerator.num_processes > 1:
        share_batch_statistics(model, accelerator.device)
    ema = AveragedModel(model, multi_avg_fn=_average(config.ema_decay), use_buffers=True)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    done = load_state(resume, model, ema, optimizer, config) if resume else 0
    target_of = model.objective.target
    shared, optimizer = accelerator.prepare(model, optimizer)
    rows = slice(accelerator.process_index, None, accelerator.num_processes)
    loader = DataLoader(dataset, batch_sampler=StepSampler(len(dataset), config, done), collate_fn=stack)
    hidden = not (progress and accelerator.is_local_main_process)
    bar = tqdm(loader, desc="training", initial=done, total=config.num_steps, disable=hidden)
    for step, batch in enumerate(bar, start=done + 1):
        generator = torch.Generator().manual_seed(_seed_of_step(config.seed, step))
        batch = prepare(schedule, target_of, batch, generator)
        batch = {key: x[rows].to(accelerator.device) for key, x in batch.items()}
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, config)
        loss = objective(shared, batch)
        accelerator.backward(loss)
        mean = accelerator.reduce(loss.detach(), "mean").item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} at step {step} of seed {config.seed}")
        accelerator.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
        yield Step(step, mean, model, ema.module, optimizer, config)


class StepSampler:
    """Yields, for each training step still to do, the indices of its batch; a function of (seed, step)."""

    def __init__(self, n, config, done=0):
        self.n, self.config, self.done = n, config, done

    def __len__(self):
        return self.config.num_steps - self.done

    def __iter__(self):
        for step in range(self.done + 1, self.config.num_steps + 1):
            rng = np.random.default_rng([self.config.seed, step])
            yield rng.choice(self.n, self.config.batch_size, replace=self.n < self.config.batch_size).tolist()


def prepare(schedule, target_of, batch, generator):
    """A stacked batch, on the CPU, with all that is random about its training step added.

    Keeps every tensor and adds t (B,), eps, xt, `answer`: what the network should output
    (`target_of` is its objective's), and, where there is a secondary image, `spoilt` and
    `trusted` of `make_mismatches`.
    """
    batch = {key: x for key, x in batch.items() if torch.is_tensor(x)}
    x0 = batch["target"]
    t = torch.randint(len(schedule), (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    batch |= dict(t=t, eps=eps, xt=schedule.add_noise(x0, eps, t), answer=target_of(schedule, x0, eps, t))
    if "secondary" in batch:
        batch["spoilt"], batch["trusted"] = make_mismatches(batch["secondary"], generator)
    return batch


def damm_objective(model, batch):
    """Our objective: both branches always, and a confidence taught by made mismatches."""
    output = model(batch["xt"], batch["t"], batch["primary"], batch["spoilt"])
    return damm_loss(output, batch["answer"], batch["trusted"])


def specialist_objective(model, batch):
    """The same, and each branch is left to what it is better at: what the shipped weights were trained with."""
    output = model(batch["xt"], batch["t"], batch["primary"], batch["spoilt"])
    return specialist_loss(output, batch["answer"], batch["trusted"])


def released_objective(model, batch):
    """The released second phase."""
    return released_loss(model(batch["xt"], batch["t"], batch["primary"], batch["secondary"]), batch["answer"])


def warmup_objective(model, batch):
    """The released first phase: both branches, confidence off."""
    return warmup_loss(model(batch["xt"], batch["t"], batch["primary"], batch["secondary"]), batch["answer"])


def unet_objective(model, batch):
    """Squared error of one plain `UNet` conditioned on the primary image."""
    return (model(batch["xt"], batch["t"], batch["primary"]) - batch["answer"]).square().mean()


def concat_objective(model, batch):
    """The same, conditioned on both images by plain concatenation."""
    output = model(batch["xt"], batch["t"], batch["primary"], batch["secondary"])
    return (output - batch["answer"]).square().mean()


def _seed_of_step(seed, step):
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _learning_rate(step, config):
    """The rate of step 1, 2, ...: linear warm-up, cosine decay to zero."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * (step - 1) / config.num_steps))


def _average(decay):
    """Exponential moving average that follows closely at first, so that short runs work too."""

    def update(averages, values, count):
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + count) / (10 + count)))
        else:
            torch._foreach_copy_(averages, values)

    return update
