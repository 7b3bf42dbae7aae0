"""damm_lite: diffusion models and DAMM-Diffusion, small enough to read.

The method lies flat in this folder; read it in this order: schedules,
prediction_types, unet, fusion, damm, gates, losses, mismatches, train, grids,
samplers, predict, metrics, distributions, intervals; then what it needs in practice:
inference, resumable, identity, checkpoint, release, finetune, autoencoder, whole_slide. Below it are
data, names, atomic and download, `tumours` and `brains` (images to learn from), above
it `teaching` and `experiments`; imports only ever go down. Names of the method
are `damm_lite.NAME`, others also `damm_lite.brains.NAME` and so on;
`__init__.pyi` lists them. They are loaded when first used, so that importing
is quick and brings no plotting along.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
