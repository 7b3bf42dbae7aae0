"""Break the method's four files in every small way and see whether a test notices: python tools/mutants.py

mutmut does it (`[tool.mutmut]` in pyproject.toml names files and tests), in _build/mutants and in about ten minutes.
Written: data/results/mutants.csv, a row for each file, and below it what survived, with the reason that
tests/survivors.csv gives. Ends with 1 where fewer than 85 % are noticed, or a survivor has no reason.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from damm_lite.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "_build" / "mutants"
TABLE, REASONS = ROOT / "data" / "results" / "mutants.csv", ROOT / "tests" / "survivors.csv"
WANTED = 0.85
RESULT = re.compile(r"^\s*damm_lite\.(\w+)\.x(?:ǁ([^ǁ]+)ǁ|_)(\w+?)__mutmut_(\d+): (.+)$", re.M)


def copy_tree(place: Path) -> None:
    """Copy the tracked files to the folder `place`, which mutmut may fill."""
    shutil.rmtree(place, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in tracked.splitlines():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name)


def read_results(text: str) -> pd.DataFrame:
    """A table of what `mutmut results --all true` printed: file, function, number, outcome."""
    rows = [
        (f"{module}.py", f"{of_class}.{name}" if of_class else name, int(number), outcome)
        for module, of_class, name, number, outcome in RESULT.findall(text)
    ]
    return pd.DataFrame(rows, columns=["file", "function", "number", "outcome"])


def main() -> int:
    mutmut = Path(sys.executable).with_name("mutmut")
    copy_tree(PLACE)
    subprocess.run([mutmut, "run", "--max-children", "1"], cwd=PLACE, check=True)
    results = [mutmut, "results", "--all", "true"]
    found = read_results(subprocess.run(results, cwd=PLACE, check=True, capture_output=True, text=True).stdout)
    found["noticed"] = found.outcome.isin(["killed", "timeout"])
    table = found.groupby("file").agg(mutants=("noticed", "size"), noticed=("noticed", "sum")).reset_index()
    with atomic_write(TABLE) as whole:
        table.to_csv(whole, index=False)
    print(table.to_string(index=False))
    survived = found[~found.noticed].groupby(["file", "function"]).size().rename("survived").reset_index()
    known = pd.read_csv(REASONS)
    unknown = survived.merge(known, how="left").query("reason.isna()")
    print("\nWithout a reason:\n", unknown.to_string(index=False) if len(unknown) else "none")
    return int(len(unknown) > 0 or found.noticed.mean() < WANTED)


if __name__ == "__main__":
    sys.exit(main())
