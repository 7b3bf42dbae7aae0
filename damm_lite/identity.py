"""What makes two runs the same run: so that one never goes on as another.

A state or a finished folder says what it was trained as; going on with another
network, prediction type, schedule, loss or data is refused by name.
"""

import functools
import hashlib
from collections.abc import Callable, Sized

import torch
from torch import nn

from damm_lite.schedules import NoiseSchedule


def identity_of(model: nn.Module, schedule: NoiseSchedule, dataset: Sized, loss: Callable) -> dict[str, str]:
    """What is the same in every start of one run, as short texts by name.

    Of the data, the number of items counts and all tensors of the first, the
    middle and the last one.
    """
    parts = {name: name_of(part) for name, part in model.arguments.items()}
    network = f"{name_of(type(model))} of {model.config}, {parts}"
    places = sorted({0, len(dataset) // 2, len(dataset) - 1})
    return {
        "network": network,
        "prediction type": name_of(model.prediction),
        "schedule": f"{len(schedule)} steps, {_digest([schedule.alphas_cumprod])}",
        "loss": name_of(loss),
        "data": f"{len(dataset)} items, {_digest(_tensors(dataset[i] for i in places))}",
    }


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """A text for each entry in which two identities differ."""
    names = [name for name in expected | found if found.get(name) != expected.get(name)]
    return [f"{name}: {found.get(name)} instead of {expected.get(name)}" for name in names]


def name_of(part: object) -> str:
    """The name of a class, a function, a partial of one, or of any value; without addresses in memory."""
    if isinstance(part, functools.partial):
        given = ", ".join([*map(repr, part.args), *(f"{key}={value!r}" for key, value in part.keywords.items())])
        return f"{name_of(part.func)}({given})"
    return getattr(part, "__qualname__", None) or repr(part)


def _tensors(items):
    for item in items:
        yield from (item[key] for key in sorted(item) if torch.is_tensor(item[key]))


def _digest(tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy(force=True).tobytes())
    return digest.hexdigest()[:16]
