"""Run the chapters again whenever what they show may have changed.

The execution cache knows a notebook by its code alone. Its folder is therefore named after
everything else that decides the outputs: the package, the data and the locked versions.
"""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECIDES = ["damm_lite/**/*.py", "data/**/*", "constraints.txt"]


def key_of(root):
    """A digest of the names and contents of all files that decide the chapters' outputs."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in DECIDES for p in root.glob(pattern) if p.is_file()):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_of(root):
    """The folder of the outputs that belong to these files."""
    return root / "_build" / ".jupyter_cache" / key_of(root)


def name_cache(app, config):
    # The value takes part in Sphinx's own check for changes: a new name re-reads every page.
    config.nb_execution_cache_path = str(cache_of(ROOT))


def setup(app):
    app.connect("config-inited", name_cache)
    return {"parallel_read_safe": True}
