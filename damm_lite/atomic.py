"""Files that are written whole or not at all."""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path to write to; what is written there is flushed to disk and then
    takes `path`'s place.

    Raises OSError that names `path` where that fails, as on a full disk; what
    was there before is then unchanged.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as aside:
            whole = Path(aside) / path.name
            yield whole
            os.umask(umask := os.umask(0))
            whole.chmod(0o666 & ~umask)  # as any new file; safetensors makes its own private
            with open(whole, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(whole, path)
    except OSError as error:
        raise OSError(f"{path}: not written, and as it was: {error}") from error


def remove_unfinished(path: str | Path) -> None:
    """Remove what writers of `path` that were killed have left; call it only
    where no other writes there.
    """
    path = Path(path)
    for aside in path.parent.glob(f".{glob.escape(path.name)}-*"):
        shutil.rmtree(aside)
