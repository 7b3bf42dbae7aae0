"""Run all tests with the newest packages that the declared ranges allow: nox -f tools/noxfile.py

They are installed without the lock into _build/newest; only PyTorch keeps its version, whose build for CPU is
known. Written: data/results/versions.csv, with a row for each package whose newest version is not the
locked one, and what came of the tests. Fails where a test fails.
"""

import json
import platform
import re
from pathlib import Path
from xml.etree import ElementTree

import nox
import pandas as pd

from damm_lite.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
TABLE, LOCK = ROOT / "data" / "results" / "versions.csv", ROOT / "constraints.txt"
Row = tuple[str, str, str]  # what, in the lock, and newest
nox.options.envdir = str(ROOT / "_build")


@nox.session(venv_backend="venv")
def newest(session: nox.Session) -> None:
    """Install the newest packages, run the tests, and write the table."""
    session.chdir(ROOT)
    locked, place = versions(LOCK.read_text()), Path(session.create_tmp())
    report, coverage = place / "report.xml", place / "coverage.json"
    session.install(f"torch=={locked['torch']}", "-r", "requirements-dev.txt")
    freeze = session.run("python", "-m", "pip", "freeze", silent=True)
    options = ["-n", "2", "--dist", "loadfile", f"--junitxml={report}", "--cov=damm_lite"]
    pytest = ["python", "-m", "pytest", "tests", *options, f"--cov-report=json:{coverage}"]
    session.run(*pytest, success_codes=[0, 1])  # 1: tests fail, which the table says too
    rows = [("Python", "", platform.python_version()), *differences(locked, versions(freeze))]
    table = pd.DataFrame(rows + outcome(report, coverage), columns=["what", "locked", "newest"])
    print(table.to_string(index=False))
    with atomic_write(TABLE) as whole:
        table.to_csv(whole, index=False)
    if table.set_index("what").newest["tests failed"] != "0":
        session.error("tests fail")


def versions(frozen: str) -> dict[str, str]:
    """{package: version} of a text with lines like `numpy==2.4.1`, names in one spelling, without "+cpu"."""
    found = re.findall(r"^([\w.-]+)==([^\s+]+)", frozen, re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def differences(locked: dict[str, str], found: dict[str, str]) -> list[Row]:
    """The rows of the packages that are in both and whose versions differ."""
    return [(name, locked[name], found[name]) for name in sorted(locked.keys() & found) if locked[name] != found[name]]


def outcome(report: Path, coverage: Path) -> list[Row]:
    """The rows of pytest's report (JUnit XML) and of the share of lines that ran (coverage's JSON)."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    covered = json.loads(Path(coverage).read_text())["totals"]["percent_covered"]
    rows = {"tests passed": count["tests"] - failed - count["skipped"], "tests failed": failed}
    rows |= {"tests skipped": count["skipped"], "lines of damm_lite covered (%)": round(covered, 1)}
    return [(name, "", str(value)) for name, value in rows.items()]
