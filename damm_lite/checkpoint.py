"""On disk: networks (safetensors, with sizes and choices as JSON), and unfinished training runs."""

import contextlib
import dataclasses
import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from damm_lite import damm, fusion, schedules, unet
from damm_lite.files import written_aside

NETWORKS = {cls.__name__: cls for cls in (damm.DAMMNet, unet.UNet)}
PARTS = {
    cls.__name__: cls
    for cls in (
        *(fusion.JointConfidence, fusion.QueryConfidence),
        *(fusion.MMFM, fusion.Concatenation, fusion.Addition, fusion.UAFM, fusion.PlainAttention),
        *(schedules.PredictsNoise, schedules.PredictsVelocity, schedules.PredictsImage),
    )
}


def save_checkpoint(path, model, schedule, **about):
    """Write a `DAMMNet` or a `UNet` and its noise schedule to one file, whole or not at all.

    `about` (JSON values: seed, steps, command, ...) is kept with it. The file is written
    aside, flushed to disk and renamed, so that an interruption leaves the old one. Raises
    ValueError for a network of which a part is none of the package's.
    """
    arguments = model.arguments | {"config": model.config.to_dict()}
    for name, part in arguments.items():
        if isinstance(part, type):
            if PARTS.get(part.__name__) is not part:
                raise ValueError(f"{name}: expected one of {', '.join(PARTS)}, got {part.__name__}")
            arguments[name] = part.__name__
    description = {"network": type(model).__name__, "arguments": arguments, "about": about}
    tensors = {f"model.{key}": value.contiguous() for key, value in model.state_dict().items()}
    tensors["schedule.alphas_cumprod"] = schedule.alphas_cumprod
    with written_aside(path) as whole, as_os_error(SafetensorError):
        save_file(tensors, whole, metadata={"damm_lite": json.dumps(description)})


@contextlib.contextmanager
def as_os_error(kind):
    """What a library raises where it cannot write, as the OSError that it is."""
    try:
        yield
    except kind as error:
        raise OSError(str(error)) from error


def load_checkpoint(path):
    """(model in eval mode, schedule) from a file of `save_checkpoint`.

    Nothing is unpickled. Raises FileNotFoundError, or ValueError naming the file and what is
    wrong with it: not safetensors, no description, missing, unknown or misshapen tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got: {error}") from error
    try:
        description = json.loads(metadata["damm_lite"])
        arguments = {k: PARTS[v] if isinstance(v, str) else v for k, v in description["arguments"].items()}
        arguments["config"] = unet.UNetConfig(**arguments["config"])
        model = NETWORKS[description["network"]](**arguments)
        schedule = schedules.NoiseSchedule(tensors.pop("schedule.alphas_cumprod"))
        model.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a checkpoint of damm_lite, got: {error!r}") from error
    return model.eval(), schedule


def save_state(path, step):
    """Write all that training needs to go on after `step` (a `Step`), whole or not at all."""
    state = dict(
        step=step.step,
        config=dataclasses.asdict(step.config),
        model=step.model.state_dict(),
        ema=step.ema.state_dict(),
        optimizer=step.optimizer.state_dict(),
    )
    with written_aside(path) as whole, as_os_error(RuntimeError):
        torch.save(state, whole)


def load_state(path, model, ema, optimizer, config):
    """Put a state of `save_state` back, in place; returns the number of steps done.

    Only tensors and numbers are unpickled. Raises FileNotFoundError, or ValueError naming the
    file where it is not such a state, or of a run with another `TrainConfig`, network or objective.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != dataclasses.asdict(config):
            raise ValueError(f"expected a run of {config}, found one of {state['config']}")
        model.load_state_dict(state["model"])
        ema.module.load_state_dict(state["ema"])
        ema.n_averaged.fill_(state["step"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not a state that this run can go on from: {reason}") from error
    return state["step"]
