"""Slices kept on disk, so that training can take any of them at any time, whatever the size of the data set."""

import math
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from damm_lite.files import written_aside

KEYS = ("target", "primary", "secondary")


class StoredSlices(Dataset):
    """A dataset drawn once, in order, into the file `path`; then any item is read at once, and none stays in memory.

    A volume takes a second to unpack, too long for slices that training picks at random. An item has
    `target`, `primary` and `secondary` of the dataset's, (C, H, W) in [-1, 1], to half precision (0.0005).
    """

    def __init__(self, dataset, path):
        self.path, self.n = Path(path), len(dataset)
        if not self.n:
            raise ValueError("expected a dataset with items, got an empty one")
        with written_aside(self.path) as whole, open(whole, "wb") as file:
            for index in tqdm(range(self.n), desc="drawing slices"):
                images = [dataset[index][key] for key in KEYS]
                file.write(torch.cat(images).numpy().astype(np.float16).tobytes())
        self.channels = [len(image) for image in images]
        self.shape = (sum(self.channels), *images[0].shape[1:])

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(f"index {index} outside 0..{self.n - 1}")
        count = math.prod(self.shape)
        values = np.fromfile(self.path, np.float16, count, offset=index * count * np.dtype(np.float16).itemsize)
        images = torch.from_numpy(values.reshape(self.shape).astype(np.float32))
        return dict(zip(KEYS, images.split(self.channels), strict=True))
