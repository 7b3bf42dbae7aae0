"""Going on from trained weights: networks for other images than they were trained on."""

from dataclasses import replace

import torch

from damm_lite.damm import DAMMNet
from damm_lite.unet import UNet

KNOWN_SIDE = 64  # pixels of the slices that the shipped networks were trained on


def coarse_to_fine(size, num_steps):
    """The stages of fine-tuning for slices of `size` pixels, {side: steps}, in the order in which to train.

    Where `size` asks for smaller pixels than the shipped networks know, `num_steps` at the side they know come
    first, and a twenty-fourth as many, at least 4, follow at `size`: more of them made another patient's slices worse.
    """
    if size <= KNOWN_SIDE:
        return {size: num_steps}
    return {KNOWN_SIDE: num_steps, size: max(4, num_steps // 24)}


def with_last_channel_shared(model, channels):
    """A network like `model` that takes `channels` images where it took one: its last input channel.

    That is the one secondary image of a `DAMMNet`, or the last condition of a `UNet`. The first convolution shares
    its weights for it out among them, so that the new network begins by answering as `model` does to their mean;
    training then tells them apart. Raises ValueError for fewer than one, or a `DAMMNet` of several already.
    """
    if channels < 1:
        raise ValueError(f"channels: expected at least 1, got {channels}")
    if isinstance(model, DAMMNet):
        if model.secondary_channels != 1:
            raise ValueError(f"model: expected one secondary channel, got {model.secondary_channels}")
        key, wider = "multi.in_conv.weight", DAMMNet(model.config, **model.arguments | {"secondary_channels": channels})
    else:
        config = replace(model.config, in_channels=model.config.in_channels - 1 + channels)
        key, wider = "backbone.in_conv.weight", UNet(config, **model.arguments)
    state = model.state_dict()
    kept, last = state[key][:, :-1], state[key][:, -1:]  # (w0, C - 1, 3, 3), (w0, 1, 3, 3)
    wider.load_state_dict(state | {key: torch.cat([kept, last.repeat(1, channels, 1, 1) / channels], dim=1)})
    return wider
