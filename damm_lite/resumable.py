"""A long run that survives interruptions: state and losses kept on disk, speed
and memory reported.
"""

import contextlib
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from torch import nn

from damm_lite.atomic import atomic_write, remove_unfinished
from damm_lite.checkpoint import how_to_load, load_checkpoint, parts_of, save_checkpoint, save_state
from damm_lite.losses import our_loss
from damm_lite.schedules import NoiseSchedule
from damm_lite.train import Step, TrainConfig, check_losses, train

MODEL = "model.safetensors"


class LossLog:
    """The losses of a run, each read from the device only when somebody asks
    for them.
    """

    def __init__(self, read: list[float]):
        self.read, self.unread = read, []

    def all(self) -> list[float]:
        """The losses of all steps so far."""
        if self.unread:
            self.read += torch.stack(self.unread).tolist()
            self.unread.clear()
        return self.read


class Progress(NamedTuple):
    """What `fit` yields after every step."""

    step: int  # steps done, in all
    log: LossLog
    ema: nn.Module  # the averaged weights: the model to use
    patches_per_second: float  # since this start
    minutes_left: float
    peak_memory: float  # GiB: of the GPU, else of this process

    @property
    def losses(self) -> list[float]:
        """The losses of all steps, those before an interruption included; on a
        GPU, reading them waits for it.
        """
        return self.log.all()


def fit(
    model: nn.Module,
    schedule: NoiseSchedule,
    dataset: Sized,
    config: TrainConfig | None = None,
    loss: Callable = our_loss,
    *,
    folder: str | Path,
    accelerator: Accelerator | None = None,
    save_seconds: float = 180.0,
) -> Iterator[Progress]:
    """`train`, with everything needed to go on kept in `folder`; yields a
    `Progress` every step.

    Call it again with the same arguments after an interruption at any moment,
    and it goes on from the last save; on the CPU the result is equal to the
    bit. At the end `folder` holds `model.safetensors`, and calling it once
    more yields that result. `config` defaults to `TrainConfig()`. A part of
    the network that is none of the package's is saved by its name: before the
    first step a warning says what `load_checkpoint` will need. Raises OSError,
    before the first step, where nothing can be written to `folder`, and
    FloatingPointError when the loss or a weight to be saved is not finite,
    which names the last good state.
    """
    config, accelerator = config or TrainConfig(), accelerator or Accelerator()
    folder, writes = Path(folder), accelerator.is_main_process
    check_folder(folder)
    state, losses = folder / "state.safetensors", folder / "losses.txt"
    if writes:
        warn_of_parts(folder / MODEL, model)
        for file in (folder / MODEL, state, losses):
            remove_unfinished(file)
    resume = state if state.is_file() else None
    first, clock = None, Clock(config)
    arguments = model, schedule, dataset, config, loss
    with _last_good_named(state):
        for step in train(*arguments, accelerator=accelerator, resume=resume):
            if first is None:
                first = step.step - 1
                log = LossLog(read_losses(losses, first))
            log.unread.append(step.loss_on_device)
            last = step.step == config.num_steps
            if writes and (last or clock.since_save() > save_seconds):
                # Nothing is saved of a run that has failed.
                check_losses(log.all()[first:], first + 1, config.seed)
                if last:
                    save_result(folder / MODEL, step, schedule)
                # The state comes last: what is beside it may then be
                # ahead of it, never behind.
                with atomic_write(losses) as whole:
                    np.savetxt(whole, log.all())
                save_state(state, step)
                clock.saved = time.monotonic()
            memory = peak_memory(accelerator.device)
            speed = clock.speed(step.step - first, step.step)
            yield Progress(step.step, log, step.ema, *speed, memory)
    if first is None:  # the run was already complete
        log = LossLog(read_losses(losses, config.num_steps))
        ema, _ = load_checkpoint(folder / MODEL, parts=parts_of(model))
        memory = peak_memory(accelerator.device)
        ema = ema.to(accelerator.device)
        yield Progress(config.num_steps, log, ema, 0.0, 0.0, memory)


def read_losses(path: Path, steps: int) -> list[float]:
    """The losses of a run's first `steps` steps from its file; NaN for those
    that are not there, which a warning says.
    """
    losses = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        losses = [float(line) for line in path.read_text().split()[:steps]]
    if len(losses) < steps:
        warnings.warn(f"{path}: expected {steps} losses, found {len(losses)}; the others are NaN", stacklevel=2)
    return losses + [math.nan] * (steps - len(losses))


class Clock:
    """How fast a run goes since this start, and how long ago it was saved."""

    def __init__(self, config: TrainConfig):
        self.config, self.start, self.saved = config, time.monotonic(), time.monotonic()

    def since_save(self) -> float:
        """Seconds since the last save, or since the start."""
        return time.monotonic() - self.saved

    def speed(self, steps: int, step: int) -> tuple[float, float]:
        """(patches a second, minutes left) after so many steps since this start and `step` in all."""
        rate = steps / (time.monotonic() - self.start)
        return self.config.batch_size * rate, (self.config.num_steps - step) / rate / 60


def check_folder(folder: Path) -> None:
    """Make `folder` and write to it, so that a run does not fail only after minutes of training."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as trial:
        trial.write(bytes(1))


def warn_of_parts(path: Path, model: nn.Module) -> None:
    """Say what loading the file will need, where the network has parts that are none of the package's."""
    if parts := parts_of(model):
        warnings.warn(f"{path}: {how_to_load(parts)}", stacklevel=3)


def save_result(path: Path, step: Step, schedule: NoiseSchedule) -> None:
    """Write the averaged weights of a run that is complete, and how they were made."""
    device = str(next(step.ema.parameters()).device)
    save_checkpoint(path, step.ema, schedule, seed=step.config.seed, steps=step.config.num_steps, device=device)


@contextlib.contextmanager
def _last_good_named(state):
    """Let a FloatingPointError say as well where the last good state is kept."""
    try:
        yield
    except FloatingPointError as error:
        kept = f"the last good state is {state}" if state.is_file() else "no state had been saved yet"
        raise FloatingPointError(f"{error}; {kept}") from error


def peak_memory(device: torch.device) -> float:
    """The most memory taken so far, in GiB: on a GPU by tensors, else by this
    process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    import resource  # of Unix alone

    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
