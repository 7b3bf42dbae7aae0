"""Slices kept on disk, so that training reads them in any order and never
holds the data set in memory.
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from damm_lite.atomic import atomic_write
from damm_lite.data import check_index


class StoredSlices(Dataset):
    """A copy of a dataset in the .npy file `path`, made by going through it
    once, in order.

    A volume takes a second to unpack, too long for slices that training picks
    at random. An item has all the keys of the dataset's: its images, tensors
    (C, H, W) of one H and W, come from the file, to half precision (0.0005 in
    [-1, 1]); all else is kept in memory. Raises ValueError for a dataset
    without items or a name without .npy.
    """

    def __init__(self, dataset: Dataset, path: str | Path) -> None:
        self.path, n = Path(path), len(dataset)
        if not n:
            raise ValueError("expected a dataset with items, got an empty one")
        if self.path.suffix != ".npy":
            raise ValueError(f"{self.path}: expected a name that ends in .npy")
        first = dataset[0]
        self.channels = {key: len(x) for key, x in first.items() if torch.is_tensor(x) and x.ndim == 3}
        shape = (n, sum(self.channels.values()), *first["target"].shape[1:])
        self.others = []  # the rest of each item
        with atomic_write(self.path) as whole:
            stored = np.lib.format.open_memmap(whole, "w+", np.float16, shape)
            for index in tqdm(range(n), desc="drawing slices"):
                item = dataset[index]
                stored[index] = torch.cat([item[key] for key in self.channels]).numpy()
                self.others.append({key: x for key, x in item.items() if key not in self.channels})
            stored.flush()

    def __len__(self) -> int:
        return len(self.others)

    def __getitem__(self, index: int) -> dict:
        check_index(index, len(self))
        stored = np.lib.format.open_memmap(self.path, "r")
        images = torch.from_numpy(stored[index].astype(np.float32)).split(list(self.channels.values()))
        return dict(zip(self.channels, images, strict=True)) | self.others[index]
