"""Put what is small of the release's reference numbers into tests/vectors: python tests/record_vectors.py

Needs the folder with all of them (DAMM_SHARED). The whole network's numbers fill megabytes, nearly all of them
weights. Of it, the repository keeps the outputs of a network whose weights come from a seed; they are
recorded only where this network, too, agrees with the release's own numbers.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from conftest import SHARED
from damm_lite.damm import DAMMNet
from damm_lite.fusion import QueryConfidence
from damm_lite.unet import UNetConfig

HERE = Path(__file__).parent / "vectors"
CONFIG = UNetConfig(16, 8, (32, 32, 64, 64), 128)


def seeded_network(seed=0):
    """(network in eval mode, inputs): every number drawn by NumPy, as the release's reference weights are."""
    rng, model = np.random.default_rng(seed), DAMMNet(CONFIG, QueryConfidence).eval()
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if name.endswith("running_var"):
                values = rng.uniform(0.5, 1.5, tensor.shape)
            elif name.endswith("num_batches_tracked"):
                continue
            elif "running_mean" in name or ("norm" in name and name.endswith("weight")):
                values = ("norm" in name) * 1.0 + 0.1 * rng.standard_normal(tensor.shape)
            else:
                values = 0.05 * rng.standard_normal(tensor.shape)
            tensor.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    xt, primary, secondary = (torch.from_numpy(rng.standard_normal((4, 8, 16, 16), np.float32)) for _ in range(3))
    return model, (xt, torch.tensor([0, 250, 500, 999]), primary, secondary)


def main():
    tests = Path(__file__).parent / "test_reference_network.py"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", "not seed and not one_sample", tests], check=True)
    HERE.mkdir(exist_ok=True)
    for name in ("damm_loss", "schedule", "timeemb", "uafm"):
        shutil.copyfile(SHARED / "spec" / "vectors" / f"{name}.npz", HERE / f"{name}.npz")
    with np.load(SHARED / "spec" / "vectors" / "mmfm.npz") as arrays:  # of the first sample
        kept = {key: arrays[key] for key in arrays if key.startswith("w.")}
        kept |= {key: arrays[key][:1] for key in ("x_uni", "x_multi", "out")}
    np.savez_compressed(HERE / "mmfm_eval.npz", **kept)
    model, images = seeded_network()
    with torch.no_grad():
        out = model(*images)
    np.savez_compressed(HERE / "unet_seeded.npz", **{key: value.numpy() for key, value in out._asdict().items()})


if __name__ == "__main__":
    main()
