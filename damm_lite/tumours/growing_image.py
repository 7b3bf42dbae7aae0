"""An image that is made band by band, from top to bottom, and outlives a kill."""

import os
import shutil
from pathlib import Path

import numpy as np
import tifffile

from damm_lite.atomic import atomic_write


class GrowingImage:
    """A TIFF of float32 (C, H, W) that grows from top to bottom by bands that
    overlap, and takes the name `path` when it is whole.

    Until then it lies in a hidden folder beside `path`, with what its last
    band adds to the next, and what was noted of each. Where the folder is
    there, growth goes on; `identity` says what is made. Raises ValueError where
    it was something else, and OSError where nothing can be written.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], identity: list[str]) -> None:
        self.path, self.folder = path, path.with_name(f".{path.name}.unfinished")
        self.image, self.state = self.folder / path.name, self.folder / "state.npz"
        self.next, self.noted = np.zeros((shape[0], 0, shape[2]), np.float32), []
        self.identity = np.array([str(shape), *identity])
        self.folder.mkdir(exist_ok=True)
        if not self.state.is_file():
            tifffile.memmap(self.image, shape=shape, dtype=np.float32, photometric="minisblack")
            return
        with np.load(self.state) as kept:
            if not np.array_equal(kept["identity"], self.identity):
                raise ValueError(f"{self.folder}: expected the beginning of this image, got that of another; remove it")
            self.next, self.noted = kept["next"], [*kept["noted"]]

    @property
    def rows(self) -> int:
        """How many bands it has."""
        return len(self.noted)

    def add(self, band: np.ndarray, top: int, next_top: int, note: np.ndarray) -> None:
        """Add the next band (C, side, W), whose first row is `top`, to what is
        there, and keep `note` of it; the band after it begins at `next_top`.
        """
        band[:, : self.next.shape[1]] += self.next
        # Mapped anew for each band: what stays mapped stays in memory. Done twice, it is the same.
        out = tifffile.memmap(self.image, mode="r+").reshape(len(band), -1, band.shape[2])
        out[:, top : top + band.shape[1]] = band
        out.flush()
        self.next, self.noted = band[:, next_top - top :], [*self.noted, note]
        with atomic_write(self.state) as whole, open(whole, "wb") as file:
            np.savez(file, identity=self.identity, next=self.next, noted=self.noted)

    def finish(self) -> np.ndarray:
        """Give the image its name; all notes, (bands, ...)."""
        os.replace(self.image, self.path)
        shutil.rmtree(self.folder)
        return np.stack(self.noted)
