"""What makes two runs the same run: so that one never goes on as another.

A state or a finished folder says what it was trained as; going on with another
network, prediction type, schedule, loss or data is refused by name.
"""

import functools
import hashlib
import re
import types
from collections.abc import Callable, Sized

import torch
from torch import nn

from damm_lite.schedules import NoiseSchedule


def identity_of(model: nn.Module, schedule: NoiseSchedule, dataset: Sized, loss: Callable) -> dict[str, str]:
    """What is the same in every start of one run, as short texts by name.

    Of the data, the number of items counts and all tensors: of a list, those of
    every item, else of the first, the middle and the last one.
    """
    parts = {name: name_of(part) for name, part in model.arguments.items()}
    stored = isinstance(dataset, (list, tuple))  # and need not be drawn again to be looked at
    places = range(len(dataset)) if stored else sorted({0, len(dataset) // 2, len(dataset) - 1})
    return {
        "network": f"{name_of(type(model))} of {model.config}, {parts}",
        "prediction type": name_of(model.prediction),
        "schedule": f"{len(schedule)} steps, {_digest([schedule.alphas_cumprod])}",
        "loss": name_of(loss),
        "data": f"{len(dataset)} items, {_digest(_tensors(dataset[i] for i in places))}",
    }


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """A text for each entry in which two identities differ."""
    names = [name for name in expected | found if found.get(name) != expected.get(name)]
    return [f"{name}: {found.get(name)} instead of {expected.get(name)}" for name in names]


def name_of(part: object, depth: int = 6) -> str:
    """A class, a function or any value as a text that is the same in every start: its name and, down to `depth`, what
    it holds; of what is neither the package's nor installed, what its code does, too. Without addresses in memory.
    """
    inner = functools.partial(name_of, depth=depth - 1)
    if torch.is_tensor(part):
        return f"tensor {_digest([part])}"
    if isinstance(part, functools.partial):
        given = [*map(inner, part.args), *(f"{key}={inner(value)}" for key, value in part.keywords.items())]
        return f"{inner(part.func)}({', '.join(given)})"
    held = [f"{key}={inner(value)}" for key, value in _held(part).items()] if depth else []
    name = getattr(part, "__qualname__", None) or (type(part).__qualname__ if held else _repr(part))
    text = f"{name} with {', '.join(held)}" if held else name
    return text if len(text) < 300 else f"{text[:280]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _held(part):
    """{name: value} of what makes a part other than others of its name."""
    if isinstance(part, types.MethodType):
        return {"self": part.__self__}
    if isinstance(part, types.FunctionType):
        code, cells = part.__code__, [cell.cell_contents for cell in part.__closure__ or ()]
        held = dict(zip(code.co_freevars, cells, strict=True))
        return held if _installed(part) else held | {"defaults": part.__defaults__, "code": _digest_of_code(code)}
    if isinstance(part, type):
        return {k: v for k, v in vars(part).items() if isinstance(v, types.FunctionType) and not _installed(v)}
    if isinstance(part, nn.Module) or type(part).__repr__ is object.__repr__:
        return getattr(part, "__dict__", {}) | _held(type(part))
    return part if isinstance(part, dict) else {}


def _installed(function):
    return function.__module__.startswith("damm_lite.") or "-packages" in function.__code__.co_filename


def _digest_of_code(code):
    """Of what it does, wherever it stands in its file."""
    consts = [_digest_of_code(x) if isinstance(x, types.CodeType) else _repr(x) for x in code.co_consts]
    return hashlib.sha256(repr([code.co_code, code.co_names, consts]).encode()).hexdigest()[:16]


def _repr(part):
    """Its repr, without addresses and in one order."""
    text = repr(sorted(part, key=repr) if isinstance(part, (set, frozenset)) else part)
    return re.sub(" at 0x[0-9a-fA-F]+", "", text)


def _tensors(items):
    for item in items:
        yield from (item[key] for key in sorted(item) if torch.is_tensor(item[key]))


def _digest(tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy(force=True).tobytes())
    return digest.hexdigest()[:16]
