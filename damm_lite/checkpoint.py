"""On disk: networks (safetensors, with sizes and choices as JSON), and
unfinished training runs.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file  # four times as fast as PyTorch's, same bytes: a state has thousands of tensors
from torch import nn

from damm_lite import autoencoder, damm, fusion, prediction_types, schedules, unet
from damm_lite.atomic import atomic_write
from damm_lite.download import fetch
from damm_lite.identity import differences

MAX_NUMBERS = 2**28  # more than twice the published network's
SCHEDULE = "schedule.alphas_cumprod"
FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError)


def save_checkpoint(path: str | Path, model: nn.Module, schedule: schedules.NoiseSchedule, **about: object) -> None:
    """Write a network with `config` and `arguments` (`DAMMNet`, `UNet`, or
    your own) and its schedule to one file.

    `about` (seed, steps, command, ...) is kept with it as JSON; what JSON does
    not know becomes numbers where it can, else text. Parts of your own are
    written by their names: `load_checkpoint` then needs them. The file is
    written aside, flushed to disk and renamed, so that an interruption leaves
    the old one. Raises FloatingPointError, naming the file, for weights that
    are not finite, which could not be loaded again.
    """
    arguments = {k: {"part": _name_of(v)} if callable(v) else v for k, v in model.arguments.items()}
    arguments["config"] = dataclasses.asdict(model.config)
    description = {"network": _name_of(type(model)), "arguments": arguments, "about": about}
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    _save(path, tensors | {SCHEDULE: schedule.alphas_cumprod}, description)


def load_checkpoint(path: str | Path, parts: Iterable[type] = ()) -> tuple[nn.Module, schedules.NoiseSchedule]:
    """(model in eval mode, schedule) from a file of `save_checkpoint`.

    `parts` are classes of your own that the network is made of: fusions,
    heads, prediction types, the network itself. Nothing is unpickled or
    imported, and nothing allocated before its size is known to be right.
    Raises FileNotFoundError, or ValueError naming the file and what is wrong
    with it: not safetensors, no description or one with a part that is neither
    the package's nor among `parts`, tensors that are missing, unknown,
    misshapen, of another type or not finite.
    """
    with _opened(path) as file:
        try:
            description = _description(file, {"network", "arguments", "about"})
            arguments = {k: _made_known(v, parts) for k, v in description["arguments"].items()}
            network = _made_known({"part": description["network"]}, parts)
            arguments["config"] = getattr(network, "config_type", unet.UNetConfig)(**arguments["config"])
            with torch.device("meta"):  # sizes alone
                wanted = {f"model.{key}": value for key, value in network(**arguments).state_dict().items()}
                wanted[SCHEDULE] = torch.empty(file.get_slice(SCHEDULE).get_shape())
            if (numbers := sum(tensor.numel() for tensor in wanted.values())) > MAX_NUMBERS:
                raise ValueError(f"expected a network of at most {MAX_NUMBERS} numbers, got {numbers}")
            tensors = _tensors(file, wanted)
            schedule, model = schedules.NoiseSchedule(tensors.pop(SCHEDULE)), network(**arguments)
            model.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items()})
        except FAULTS as error:
            raise ValueError(f"{path}: expected a checkpoint of damm_lite, got: {error!r}") from error
    return model.eval(), schedule


def load_pretrained(name: str) -> tuple[nn.Module, schedules.NoiseSchedule]:
    """(model in eval mode, schedule) of the trained weights `name`, e.g.
    "tumour-64".
    """
    return load_checkpoint(fetch(f"weights/{name}.safetensors"))


def parts_of(model: nn.Module) -> list:
    """The classes that a network is made of and that are none of the
    package's: what `load_checkpoint` will need.
    """
    parts = [type(model), *(value for value in model.arguments.values() if callable(value))]
    return [part for part in parts if _name_of(part) not in _own_parts()]


def how_to_load(parts: list) -> str:
    """What to say, before anything is lost, of a network with these `parts`."""
    if nameless := [repr(part) for part in parts if not hasattr(part, "__name__")]:
        return f"cannot be loaded again: {', '.join(nameless)} has no name; give the network a class in its place"
    return f"to load it, load_checkpoint will need parts=[{', '.join(part.__name__ for part in parts)}]"


def _name_of(part):
    return f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', repr(part))}"


def _own_parts():
    """{name: class} of all that a network of the package can be made of."""
    modules = (damm, unet, fusion, prediction_types, autoencoder)
    return {_name_of(value): value for module in modules for value in vars(module).values() if isinstance(value, type)}


def _made_known(value, parts):
    """The class that a saved {"part": name} stands for; other values as they
    are.
    """
    if not isinstance(value, dict) or value.keys() != {"part"}:
        return value
    known, name = _own_parts(), value["part"]
    if name in known:
        return known[name]
    wanted = name.rpartition(":")[2].rpartition(".")[2]  # its module may have another name now
    for part in parts:
        if part.__name__ == wanted:
            return part
    raise ValueError(f"part {name!r} is none of the package's; pass its class: load_checkpoint(path, parts=[{wanted}])")


def save_state(path: str | Path, step: tuple) -> None:
    """Write all that training needs to go on after `step` (a `Step`), whole or
    not at all. Raises FloatingPointError, naming the file, where any of it is
    not finite.
    """
    tensors = _state(step.model, step.ema)
    for i, moments in step.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    description = {"step": step.step, "config": dataclasses.asdict(step.config), "identity": step.identity}
    _save(path, tensors, description)


def load_state(
    path: str | Path, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, config: object, identity: dict
) -> int:
    """Put a state of `save_state` back, in place; returns the number of steps
    done.

    `optimizer` is a fresh AdamW of `model`. Nothing is unpickled. Raises
    FileNotFoundError, or ValueError naming the file where it is not such a
    state, or of a run with another `TrainConfig` or `identity_of`.
    """
    with _opened(path) as file:
        try:
            description = _description(file, {"step", "config", "identity"})
            if other := differences(description["identity"], identity):
                raise ValueError(f"it is of another run: {'; '.join(other)}")
            if description["config"] != dataclasses.asdict(config):
                raise ValueError(f"expected a run of {config}, found one of {description['config']}")
            step = description["step"]
            if type(step) is not int or not 0 <= step <= config.num_steps:
                raise ValueError(f"expected a step in 0..{config.num_steps}, got {step!r}")
            wanted, moments, names = _state(model, ema.module), {}, set(file.keys())
            for i, parameter in enumerate(model.parameters()):  # those that the loss reaches have moments
                like = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
                if f"optimizer.{i}.step" in names:
                    wanted |= {f"optimizer.{i}.{name}": value for name, value in like.items()}
                    moments[i] = like
            tensors = _tensors(file, wanted)
        except FAULTS as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: not a state that this run can go on from: {reason}") from error
    model.load_state_dict({key: tensors[f"model.{key}"] for key in model.state_dict()})
    ema.module.load_state_dict({key: tensors[f"ema.{key}"] for key in ema.module.state_dict()})
    ema.n_averaged.fill_(step)
    moments = {i: {name: tensors[f"optimizer.{i}.{name}"] for name in like} for i, like in moments.items()}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    return step


def _state(model, ema):
    """{name: tensor} of a network and its average."""
    parts = {"model": model, "ema": ema}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def _save(path, tensors, description):
    if wrong := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise FloatingPointError(f"{path}: not written: expected finite numbers, got NaN or infinity in {wrong[0]}")
    text = json.dumps(description, default=lambda x: getattr(x, "tolist", x.__str__)())  # numbers of NumPy or PyTorch
    tensors = {key: value.contiguous().numpy(force=True) for key, value in tensors.items()}
    with atomic_write(path) as whole:
        try:
            save_file(tensors, whole, metadata={"damm_lite": text})
        except SafetensorError as error:  # a full disk, for example
            raise OSError(str(error)) from error


@contextlib.contextmanager
def _opened(path) -> Iterator:
    """A file of safetensors, of which only the header is read so far."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got: {error}") from error
    with file:
        yield file


def _description(file, entries):
    """What the package wrote about a file, a dict with exactly these entries."""
    description = json.loads((file.metadata() or {})["damm_lite"])
    if not isinstance(description, dict) or description.keys() != entries:
        found = ", ".join(description) if isinstance(description, dict) else type(description).__name__
        raise ValueError(f"expected a description with {', '.join(sorted(entries))}, found {found[:200]}")
    return description


def _tensors(file, wanted):
    """The tensors of a file, checked against {name: a tensor of its shape and
    type} before they are read.
    """
    names = set(file.keys())
    if names != wanted.keys():
        missing, unknown = (", ".join(sorted(part)[:9]) for part in (wanted.keys() - names, names - wanted.keys()))
        raise ValueError(f"missing tensors: {missing or 'none'}; unknown ones: {unknown or 'none'}")
    for name, like in wanted.items():
        if (shape := tuple(file.get_slice(name).get_shape())) != like.shape:
            raise ValueError(f"{name}: expected shape {tuple(like.shape)}, got {shape}")
    tensors = {name: file.get_tensor(name) for name in wanted}
    for name, tensor in tensors.items():
        if tensor.dtype != wanted[name].dtype or not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: expected finite {wanted[name].dtype}, got {tensor.dtype} or NaN or infinity")
    return tensors
