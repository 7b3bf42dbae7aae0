"""Going on from trained weights: networks for other images than they were
trained on.
"""

from dataclasses import replace

import torch

from damm_lite.damm import DAMMNet
from damm_lite.unet import UNet


def expand_input_channels(model: DAMMNet | UNet, channels: int) -> DAMMNet | UNet:
    """A network like `model` that takes `channels` images where it took one:
    its last input channel.

    That is the one secondary image of a `DAMMNet`, or the last condition of a
    `UNet`. The first convolution shares its weights for it out among them, so
    that the new network begins by answering as `model` does to their mean;
    training then tells them apart. Raises ValueError for fewer than one, or a
    `DAMMNet` of several already.
    """
    if channels < 1:
        raise ValueError(f"channels: expected at least 1, got {channels}")
    if isinstance(model, DAMMNet):
        if model.secondary_channels != 1:
            raise ValueError(f"model: expected one secondary channel, got {model.secondary_channels}")
        arguments = model.arguments | {"secondary_channels": channels}
        key, wider = "multi.in_conv.weight", DAMMNet(model.config, **arguments)
    else:
        config = replace(model.config, in_channels=model.config.in_channels - 1 + channels)
        key, wider = "backbone.in_conv.weight", type(model)(config, **model.arguments)
    state = model.state_dict()
    kept, last = state[key][:, :-1], state[key][:, -1:]  # (w0, C - 1, 3, 3), (w0, 1, 3, 3)
    wider.load_state_dict(state | {key: torch.cat([kept, last.repeat(1, channels, 1, 1) / channels], dim=1)})
    return wider
