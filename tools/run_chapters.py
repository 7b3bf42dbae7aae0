"""Run the chapters whose outputs are not in the build's cache, as many at a time as there are cores.

`make book` does this before `jupyter-book build`, which then takes the outputs from the cache.
"""

import sys
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from fresh_outputs import cache_of, drop_stale  # noqa: E402


def run(root):
    """Returns the chapters that failed, with their tracebacks: {path: text}."""
    drop_stale(root)
    timeout = yaml.safe_load((root / "_config.yml").read_text())["execute"]["timeout"]
    cache, chapters = get_cache(cache_of(root)), [str(path) for path in sorted((root / "book").glob("*.ipynb"))]
    for path in chapters:
        cache.add_nb_to_project(path)
    load_executor("local-parallel", cache).run_and_cache(filter_uris=chapters, timeout=timeout)
    records = [cache.get_project_record(path) for path in chapters]
    return {record.uri: record.traceback for record in records if record.traceback}


if __name__ == "__main__":
    failed = run(ROOT)
    for path, traceback in failed.items():
        print(path, traceback, sep="\n", file=sys.stderr)
    sys.exit(bool(failed))
