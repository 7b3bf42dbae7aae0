"""Training: one generator for every network of the book.

Step s draws everything random - which samples, which noise - from (seed, s) alone, so that a
run can be repeated, interrupted and resumed without remembering any generator's state.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from damm_lite.damm import damm_loss, released_loss, warmup_loss
from damm_lite.data import stack
from damm_lite.mismatch import make_mismatches


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


def train(model, schedule, dataset, config=None, objective=None, *, progress=True):
    """Train `model` in place on any sized dataset; yields a `Step` after every step.

    `objective(model, schedule, batch, generator)` returns the loss of one batch (default:
    `damm_objective`). A simulated dataset is slow to draw: pass `list(dataset)` to draw it once.
    Raises FloatingPointError, naming step and seed, when the loss is not finite.
    """
    config, objective = config or TrainConfig(), objective or damm_objective
    device = next(model.parameters()).device
    ema = AveragedModel(model, avg_fn=_average(config.ema_decay), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _learning_rate(s, config))
    loader = DataLoader(dataset, batch_sampler=StepSampler(len(dataset), config), collate_fn=stack)
    model.train()
    for step, batch in enumerate(tqdm(loader, desc="training", disable=not progress), start=1):
        generator = torch.Generator().manual_seed(_seed_of_step(config.seed, step))
        batch = {key: x.to(device) if torch.is_tensor(x) else x for key, x in batch.items()}
        loss = objective(model, schedule, batch, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of seed {config.seed}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        decay.step()
        ema.update_parameters(model)
        yield Step(step, loss.item(), model, ema.module)


class StepSampler:
    """Yields, for each training step, the indices of its batch; a function of (seed, step)."""

    def __init__(self, n, config):
        self.n, self.config = n, config

    def __len__(self):
        return self.config.num_steps

    def __iter__(self):
        for step in range(1, len(self) + 1):
            rng = np.random.default_rng([self.config.seed, step])
            yield rng.choice(self.n, self.config.batch_size, replace=self.n < self.config.batch_size).tolist()


def draw_noise(schedule, x0, generator):
    """Steps t (B,), noise eps like x0 and xt, drawn on the CPU so that the device does not matter."""
    t = torch.randint(len(schedule), (len(x0),), generator=generator).to(x0.device)
    eps = torch.randn(x0.shape, generator=generator).to(x0.device)
    return t, eps, schedule.add_noise(x0, eps, t)


def damm_objective(model, schedule, batch, generator):
    """Our objective: both branches always, and a confidence taught by made mismatches."""
    secondary, trusted = make_mismatches(batch["secondary"], generator)
    t, eps, xt = draw_noise(schedule, batch["target"], generator)
    output = model(xt, t, batch["primary"], secondary)
    return damm_loss(output, model.objective.target(schedule, batch["target"], eps, t), trusted)


def released_objective(model, schedule, batch, generator):
    """The released second phase."""
    t, eps, xt = draw_noise(schedule, batch["target"], generator)
    output = model(xt, t, batch["primary"], batch["secondary"])
    return released_loss(output, model.objective.target(schedule, batch["target"], eps, t))


def warmup_objective(model, schedule, batch, generator):
    """The released first phase: both branches, confidence off."""
    t, eps, xt = draw_noise(schedule, batch["target"], generator)
    output = model(xt, t, batch["primary"], batch["secondary"])
    return warmup_loss(output, model.objective.target(schedule, batch["target"], eps, t))


def unet_objective(model, schedule, batch, generator):
    """Squared error of one plain `UNet` conditioned on the primary image."""
    t, eps, xt = draw_noise(schedule, batch["target"], generator)
    target = model.objective.target(schedule, batch["target"], eps, t)
    return (model(xt, t, batch["primary"]) - target).square().mean()


def _seed_of_step(seed, step):
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _learning_rate(step, config):
    """Fraction of the learning rate at `step`: linear warm-up, cosine decay to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + np.cos(np.pi * min(1.0, step / config.num_steps)))


def _average(decay):
    """Exponential moving average that follows closely at first, so that short runs work too."""

    def update(average, value, count):
        if not average.is_floating_point():
            return value
        return average + (value - average) * (1 - min(decay, (1 + count) / (10 + count)))

    return update
