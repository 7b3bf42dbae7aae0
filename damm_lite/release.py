"""Open a checkpoint trained with the authors' release."""

import logging
import re

import torch
from torch import Tensor

from damm_lite.damm import DAMMNet
from damm_lite.fusion import QueryConfidence
from damm_lite.unet import UNetConfig

log = logging.getLogger(__name__)

# One R block: the release's name -> ours.
_RES_BLOCK = {"block_seq.0.conv_res": "first.skip", "block_seq.1.conv_res": "second.skip", "local_embedder.1": "shift"}
for _i, _side in enumerate(["first", "second"]):
    _RES_BLOCK |= {f"block_seq.{_i}.basic_block.{part}": f"{_side}.{part}" for part in ("conv", "norm")}


def _branch(theirs, ours):
    """Module names of one branch; `theirs` and `ours` are prefixes."""
    names = {f"{theirs}in_conv.conv": f"{ours}in_conv", f"{theirs}outc.conv.conv": f"{ours}out_conv"}
    blocks = {f"in_blocks.{i}.0": f"encoder.{i}" for i in (0, 1, 3, 4, 6, 7)}
    blocks |= {"middle_block.0": "middle.0", "middle_block.2": "middle.1"}
    for i, stage in enumerate(("full", "half", "quarter")):
        blocks |= {f"out_blocks.{3 * i + 2 - j}.0": f"{stage}_stage.{j}" for j in range(3)}
    for their_block, our_block in blocks.items():
        for their_part, our_part in _RES_BLOCK.items():
            names[f"{theirs}{their_block}.{their_part}"] = f"{ours}{our_block}.{our_part}"
    names |= {f"{theirs}in_blocks.{i}.down_op": f"{ours}encoder.{i}.conv" for i in (2, 5)}
    names |= {f"{theirs}out_blocks.{i}.2.up_op": f"{ours}up_to_{size}.conv" for i, size in ((6, "half"), (3, "full"))}
    return names


def _module_names():
    names = {f"time_embedder.time_emb.{theirs}": f"time.mlp.{ours}" for theirs, ours in ((1, 0), (3, 2))}
    names |= _branch("", "multi.") | _branch("unet_S.", "uni.")
    for i in range(9):
        for part in (0, 1, 3, 4):
            names[f"unet_S.mask_blocks.{i}.mask_block.{part}"] = f"mmfm.{i}.mask_uni.gate.{part}"
            names[f"mask_blocks.{i}.mask_block.{part}"] = f"mmfm.{i}.mask_multi.gate.{part}"
        names[f"conv1_blocks.{i}.channel_attn.fc.0"] = f"mmfm.{i}.excite.gate.1"
        names[f"conv1_blocks.{i}.channel_attn.fc.2"] = f"mmfm.{i}.excite.gate.3"
        names[f"conv1_blocks.{i}.conv1_block.0"] = f"mmfm.{i}.merge.0"
        names[f"conv1_blocks.{i}.conv1_block.1"] = f"mmfm.{i}.merge.1"
    names |= {f"un_crs_attn.{theirs}": f"uafm.{theirs}" for theirs in ("norm", "q", "k", "v")}
    names |= {"un_crs_attn.proj_out": "uafm.proj", "un_crs_attn.u.0": "uafm.confidence.linear"}
    return names


def released_names(model: DAMMNet) -> dict[str, str]:
    """The release's name of each entry of `model.state_dict()` (heads:
    `QueryConfidence` only).
    """
    their_module = {ours: theirs for theirs, ours in _module_names().items()}
    names = {}
    for key in model.state_dict():
        module, parameter = key.rsplit(".", 1)
        names[key] = f"{their_module[module]}.{parameter}"
    return names


def load_released_state_dict(state_dict: dict[str, Tensor]) -> DAMMNet:
    """A `DAMMNet` in eval mode with the release's weights and its
    `QueryConfidence`.

    Widths, channels and the time embedding's width are read off the shapes; a
    leading "noise_estimator." is accepted. Keys that the network does not use
    are logged. Raises KeyError naming every missing key, ValueError naming a
    tensor of the wrong shape or type, or not finite.
    """
    theirs = {key.removeprefix("noise_estimator."): value for key, value in state_dict.items()}
    sizing = ["unet_S.in_conv.conv.weight", "in_conv.conv.weight", "outc.conv.conv.weight"]
    blocks = [f"in_blocks.{i}.0.block_seq.0.basic_block.conv.weight" for i in (0, 3, 6)]
    sizing += ["time_embedder.time_emb.3.weight", *blocks]
    _require(theirs, sizing)
    for key in sizing:
        if theirs[key].ndim != (2 if key.startswith("time") else 4):
            raise ValueError(f"{key}: expected the weight of a layer, got shape {tuple(theirs[key].shape)}")
    uni_in, multi_in, out, time, *blocks = (theirs[key].shape for key in sizing)
    widths = (multi_in[0], *(block[0] for block in blocks))
    config = UNetConfig(uni_in[1], out[0], widths, time[0])
    if multi_in[1] <= out[0]:
        raise ValueError(f"{sizing[1]}: expected more channels than the {out[0]} of the output, got {multi_in[1]}")
    arguments = dict(confidence=QueryConfidence, secondary_channels=multi_in[1] - out[0])
    with torch.device("meta"):  # sizes alone: nothing is allocated before all of them fit
        model = DAMMNet(config, **arguments)

    wanted = released_names(model)
    _require(theirs, wanted.values())

    ours = {}
    for key, value in model.state_dict().items():
        given = torch.as_tensor(theirs[wanted[key]])
        # The release keeps some 1x1 convolutions as linear layers: same
        # numbers, fewer axes.
        if _squeezed(given.shape) != _squeezed(value.shape):
            raise ValueError(f"{wanted[key]}: expected shape {tuple(value.shape)}, got {tuple(given.shape)}")
        if given.is_floating_point() != value.is_floating_point() or not torch.isfinite(given).all():
            raise ValueError(f"{wanted[key]}: expected finite {value.dtype}, got {given.dtype} or NaN or infinity")
        ours[key] = given.reshape(value.shape)
    model = DAMMNet(config, **arguments)
    model.load_state_dict(ours)

    if unused := sorted(set(theirs) - set(wanted.values())):
        groups = sorted({re.split(r"\.\d|\.(?=weight|bias)", key)[0] for key in unused})
        log.warning("%d keys of the checkpoint are not used: %s", len(unused), ", ".join(groups))
    return model.eval()


def _squeezed(shape):
    return tuple(n for n in shape if n != 1)


def _require(state_dict, keys):
    missing = [key for key in keys if key not in state_dict]
    if missing:
        raise KeyError(f"the checkpoint lacks {len(missing)} tensors of the network: {', '.join(missing)}")
