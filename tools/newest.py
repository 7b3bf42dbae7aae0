"""Run all tests with the newest packages that the declared ranges allow: python tools/newest.py

They are installed without the lock into _build/newest; only PyTorch keeps its version, whose build for CPU is
known. Written: data/results/versions.csv, with a row for each package whose newest version is not the
locked one, and what came of the tests. Ends with 1 where a test fails.
"""

import json
import platform
import re
import subprocess
import sys
import venv
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from damm_lite.files import written_aside

ROOT = Path(__file__).resolve().parents[1]
PLACE, TABLE = ROOT / "_build" / "newest", ROOT / "data" / "results" / "versions.csv"
LOCK = ROOT / "constraints.txt"


def versions(frozen):
    """{package: version} of a text with lines like `numpy==2.4.1`, names in one spelling, without "+cpu"."""
    found = re.findall(r"^([\w.-]+)==([^\s+]+)", frozen, re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def differences(locked, newest):
    """Rows (what, locked, newest) of the packages of both whose versions differ."""
    return [
        (name, locked[name], newest[name]) for name in sorted(locked.keys() & newest) if locked[name] != newest[name]
    ]


def outcome(report, coverage):
    """Rows of pytest's report and of the share of lines that ran, beside the empty column of the lock."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    covered = json.loads(Path(coverage).read_text())["totals"]["percent_covered"]
    rows = {"tests passed": count["tests"] - failed - count["skipped"], "tests failed": failed}
    rows |= {"tests skipped": count["skipped"], "lines of damm_lite covered (%)": round(covered, 1)}
    return [(name, "", str(value)) for name, value in rows.items()]


def main():
    locked = versions(LOCK.read_text())
    venv.create(PLACE, clear=True, with_pip=True)
    python, report, coverage = PLACE / "bin" / "python", PLACE / "report.xml", PLACE / "coverage.json"
    wanted = [f"torch=={locked['torch']}", "-r", "requirements-dev.txt"]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], cwd=ROOT, check=True)
    freeze = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    pytest = [python, "-m", "pytest", "tests", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
    failed = subprocess.run([*pytest, "--cov=damm_lite", f"--cov-report=json:{coverage}"], cwd=ROOT).returncode
    rows = [("Python", "", platform.python_version()), *differences(locked, versions(freeze))]
    table = pd.DataFrame(rows + outcome(report, coverage), columns=["what", "locked", "newest"])
    print(table.to_string(index=False))
    with written_aside(TABLE) as whole:
        table.to_csv(whole, index=False)
    return failed


if __name__ == "__main__":
    sys.exit(main())
