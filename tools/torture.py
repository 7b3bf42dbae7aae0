"""Run the long versions of the tests of survival, and store what they tried: python tools/torture.py

Every test that is marked `torture` says what it tried and what came of it; the status page shows the table.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from damm_lite.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "results" / "torture.csv"


def read_report(path: Path) -> pd.DataFrame:
    """A row for each test of pytest's report that has said what it tried: (test, tried, result, seconds)."""
    rows = []
    for case in ElementTree.parse(path).iter("testcase"):
        said = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        if "tried" in said:
            rows.append({"test": case.get("name"), **said, "seconds": round(float(case.get("time")))})
    return pd.DataFrame(rows, columns=["test", "tried", "result", "seconds"])


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        pytest = [sys.executable, "-m", "pytest", "tests", "-n", "2"]
        failed = subprocess.run([*pytest, "-m", "torture", "--torture", f"--junitxml={report}"], cwd=ROOT).returncode
        table = read_report(report)
    print(table.to_string(index=False))
    if not failed:
        with atomic_write(TABLE) as whole:
            table.to_csv(whole, index=False)
    return failed


if __name__ == "__main__":
    sys.exit(main())
