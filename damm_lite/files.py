"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def written_aside(path):
    """A path to write to; what is written there is flushed to disk and then takes `path`'s place."""
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as aside:
        whole = Path(aside) / path.name
        yield whole
        os.umask(umask := os.umask(0))
        whole.chmod(0o666 & ~umask)  # as any new file; safetensors makes its own private
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)
