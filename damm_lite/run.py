"""A long run that survives interruptions: state and losses kept on disk, speed and memory reported."""

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from damm_lite.checkpoint import load_checkpoint, save_checkpoint, save_state
from damm_lite.files import remove_left_aside, written_aside
from damm_lite.train import TrainConfig, train

MODEL = "model.safetensors"


class Progress(NamedTuple):
    """What `fit` yields after every step."""

    step: int  # steps done, in all
    losses: list  # of all steps, those before an interruption included
    ema: torch.nn.Module  # the averaged weights: the model to use
    patches_per_second: float  # since this start
    minutes_left: float
    peak_memory: float  # GiB: of the GPU, else of this process


def fit(model, schedule, dataset, config=None, objective=None, *, folder, accelerator=None, save_seconds=180.0):
    """`train`, with everything needed to go on kept in `folder`; yields a `Progress` every step.

    Call it again with the same arguments after an interruption at any moment, and it goes on from
    the last save; on the CPU the result is equal to the bit. At the end `folder` holds
    `model.safetensors`, and calling it once more yields that result. `config` defaults to `TrainConfig()`.
    Raises OSError, before the first step, where nothing can be written to `folder`, and FloatingPointError
    when the loss is not finite, which names the last good state.
    """
    config, accelerator, folder = config or TrainConfig(), accelerator or Accelerator(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as trial:  # not only after minutes of training
        trial.write(bytes(1))
    state, log = folder / "state.safetensors", folder / "losses.txt"
    if accelerator.is_main_process:
        for name in (MODEL, state.name, log.name):
            remove_left_aside(folder / name)
    resume = state if state.is_file() else None
    logged = np.loadtxt(log, ndmin=1).tolist() if resume else []
    losses, first, saved, start = [], None, time.monotonic(), time.monotonic()
    steps = train(model, schedule, dataset, config, objective, accelerator=accelerator, resume=resume)
    for step in _naming_last_good(state, steps):
        if first is None:
            first, losses = step.step - 1, logged[: step.step - 1]
        losses.append(step.loss)
        last = step.step == config.num_steps
        if accelerator.is_main_process and (last or time.monotonic() - saved > save_seconds):
            if last:
                about = dict(seed=config.seed, steps=config.num_steps, device=str(accelerator.device))
                save_checkpoint(folder / MODEL, step.ema, schedule, **about)
            # The state comes last: what is beside it may then be ahead of it, never behind.
            with written_aside(log) as whole:
                np.savetxt(whole, losses)
            save_state(state, step)
            saved = time.monotonic()
        rate = (step.step - first) / (time.monotonic() - start)
        left = (config.num_steps - step.step) / rate / 60
        memory = peak_memory(accelerator.device)
        yield Progress(step.step, losses, step.ema, config.batch_size * rate, left, memory)
    if first is None:  # the run was already complete
        ema, _ = load_checkpoint(folder / MODEL)
        memory = peak_memory(accelerator.device)
        yield Progress(config.num_steps, logged, ema.to(accelerator.device), 0.0, 0.0, memory)


def _naming_last_good(state, steps):
    """`steps`, whose FloatingPointError also says where the last good state is kept."""
    try:
        yield from steps
    except FloatingPointError as error:
        kept = f"the last good state is {state}" if state.is_file() else "no state had been saved yet"
        raise FloatingPointError(f"{error}; {kept}") from error


def peak_memory(device):
    """The most memory taken so far, in GiB: on a GPU by tensors, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
