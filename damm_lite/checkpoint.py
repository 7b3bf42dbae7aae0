"""Networks on disk: weights as safetensors, sizes and choices as JSON beside them in one file."""

import json
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from damm_lite import fusion, schedules
from damm_lite.damm import DAMMNet
from damm_lite.schedules import NoiseSchedule
from damm_lite.unet import UNetConfig

HEADS = {head.__name__: head for head in (fusion.JointConfidence, fusion.QueryConfidence)} | {"None": None}
OBJECTIVES = {
    cls.__name__: cls for cls in (schedules.PredictsNoise, schedules.PredictsVelocity, schedules.PredictsImage)
}


def save_checkpoint(path, model, schedule, **about):
    """Write a `DAMMNet` and its noise schedule to one file, whole or not at all.

    `about` (JSON values: seed, steps, command, ...) is kept with it. The file is written
    aside, flushed to disk and renamed, so that an interruption leaves the old one.
    """
    head = model.uafm.confidence
    description = {
        "config": model.config.to_dict(),
        "confidence": type(head).__name__ if head else "None",
        "secondary_channels": model.secondary_channels,
        "objective": model.objective.__name__,
        "about": about,
    }
    tensors = {f"model.{key}": value.contiguous() for key, value in model.state_dict().items()}
    tensors["schedule.alphas_cumprod"] = schedule.alphas_cumprod
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as aside:
        whole = Path(aside) / path.name
        save_file(tensors, whole, metadata={"damm_lite": json.dumps(description)})
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)


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
        model = DAMMNet(
            UNetConfig(**description["config"]),
            confidence=HEADS[description["confidence"]],
            secondary_channels=description["secondary_channels"],
            objective=OBJECTIVES[description["objective"]],
        )
        schedule = NoiseSchedule(tensors.pop("schedule.alphas_cumprod"))
        model.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a checkpoint of damm_lite, got: {error!r}") from error
    return model.eval(), schedule
