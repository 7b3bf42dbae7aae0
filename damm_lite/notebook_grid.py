"""Run a notebook with every combination of some of its parameters, and keep every notebook that comes out.

    python -m damm_lite.notebook_grid spec.yaml --out runs/

    notebook: book/10_full_training.ipynb      # seen from the specification's folder
    grid: {num_steps: [24, 48], seed: [0, 1]}
    parameters: {profile: fast}                # the same for all runs

papermill runs them, one after the other. A notebook with a parameter `out_dir` gets a folder of its own for
it. A run whose notebook is there is not done again, so a command that was killed goes on where it was.
"""

import argparse
import itertools
import math
import os
import re
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from damm_lite.files import written_aside
from damm_lite.specification import FAULTS, read_yaml, several

MAX_RUNS = 1000


def read_grid(path):
    """(notebook, list of the parameters of each run) of a specification.

    Raises ValueError that names the file and what is wrong in it: a parameter that the notebook has not, say.
    """
    import papermill

    try:
        spec = read_yaml(path, needed=["notebook", "grid"], optional=["parameters"])
        notebook, common = Path(path).parent / spec["notebook"], spec.get("parameters", {})
        if not notebook.is_file():
            raise ValueError(f"notebook: expected a file, got {notebook}, which is not there")
        if not isinstance(spec["grid"], dict) or not isinstance(common, dict):
            raise ValueError("grid: expected parameters with their values, and so of parameters")
        axes = [[(name, value) for value in several(name, values)] for name, values in spec["grid"].items()]
        if (count := math.prod(map(len, axes))) > MAX_RUNS:
            raise ValueError(f"expected at most {MAX_RUNS} runs, got {count}")
        known = papermill.inspect_notebook(notebook)
        if unknown := {**spec["grid"], **common}.keys() - known.keys():
            raise ValueError(f"unknown parameter {unknown.pop()!r}; the notebook has {', '.join(known)}")
        if both := spec["grid"].keys() & common.keys():
            raise ValueError(f"{both.pop()}: expected in the grid or in the parameters, got it in both")
    except FAULTS as error:
        raise ValueError(f"{path}: {error}") from error
    own = ["out_dir"] * ("out_dir" in known and "out_dir" not in common)
    return notebook, [common | dict(values) | dict.fromkeys(own) for values in itertools.product(*axes)]


def name_of(parameters, varied):
    """The name of a run, without ending, e.g. "num_steps-24_seed-0"."""
    return "_".join(re.sub(r"[^\w.]+", "-", f"{name} {parameters[name]}") for name in varied)


def run_notebooks(notebook, runs, out):
    """Do what is not yet done of `runs`, below the folder `out`; a table of parameters, notebooks and seconds.

    `runs` are dicts of parameters; an `out_dir` of None becomes a folder for the run. Raises papermill's error
    where a cell fails; that notebook stays, as NAME.unfinished.ipynb.
    """
    import papermill

    varied = [name for name in runs[0] if name != "out_dir" and len({repr(run[name]) for run in runs}) > 1]
    names = [name_of(run, varied) or "run" for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"expected values that give names of their own, got {', '.join(names)}")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, parameters in zip(tqdm(names, desc="notebooks"), runs, strict=True):
        whole, unfinished = out / f"{name}.ipynb", out / f"{name}.unfinished.ipynb"
        if not whole.is_file():
            if parameters.get("out_dir", "") is None:
                parameters = parameters | {"out_dir": str((out / name).resolve())}
            papermill.execute_notebook(notebook, unfinished, parameters, progress_bar=False, cwd=notebook.parent)
            os.replace(unfinished, whole)
        ran = papermill.iorw.load_notebook_node(str(whole)).metadata.papermill
        rows.append({k: parameters[k] for k in varied} | dict(notebook=whole.name, seconds=round(ran.duration, 1)))
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(
        "python -m damm_lite.notebook_grid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("spec", type=Path, help="the specification, a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the notebooks and their table")
    arguments = parser.parse_args()
    try:
        table = run_notebooks(*read_grid(arguments.spec), arguments.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with written_aside(arguments.out / "table.csv") as whole:
        table.to_csv(whole, index=False)
    print(table.to_string(index=False))  # noqa: T201 (a command's result)


if __name__ == "__main__":
    main()
