"""Other environments, which stand in _build: nox -f tools/noxfile.py -s newest (or versions, colab, sphinx)

newest    All tests with the newest packages that the declared ranges allow, without the lock; only PyTorch keeps its
          version, whose build for CPU is known. Written: data/results/versions.csv, with a row for each package
          whose newest version is not the locked one, and what came of the tests.
versions  The lock with every Python that is found here, and the tests named after "--". Written: pythons.csv, with a
          row for each; a blank is what was not reached. Run again, it uses the environments that were finished.
colab     Each chapter from its notebook alone, with Colab's versions (tests/colab.txt) on Colab's Python. Written:
          colab.csv, with a row for each chapter.
sphinx    The site by the newest Sphinx, without jupyter-book, whose extensions and settings are taken over. Chapters
          run with the packages of .venv. Written: the site, in _build/sphinx/html, and conf.py beside it.

All fail where a test fails, colab where its Python is not here, and sphinx where it warns.
"""

import datetime
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import nox
import pandas as pd
from jupyter_book.config import get_final_config
from nox.command import CommandFailed

from damm_lite.atomic import atomic_write

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
TABLE, LOCK = ROOT / "data" / "results" / "versions.csv", ROOT / "constraints.txt"
PYTHONS, COLAB = TABLE.with_name("pythons.csv"), TABLE.with_name("colab.csv")
WITHOUT_JUPYTER_BOOK = [
    "sphinx>=9",
    "myst-nb",
    *("sphinx-book-theme", "sphinx-comments", "sphinx-copybutton", "sphinx-design", "sphinx-exercise"),
    *("sphinx-external-toc", "sphinx-multitoc-numbering", "sphinx-notfound-page", "sphinx-thebe"),
    *("sphinx-togglebutton", "sphinxcontrib-bibtex", "sphinxext-opengraph"),
]
Row = tuple[str, str, str]  # what, in the lock, and newest
nox.options.envdir = str(ROOT / "_build")
nox.options.error_on_missing_interpreters = False  # they are skipped, and named at the end


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


@nox.session(name="versions", python=["3.11", "3.12", "3.13", "3.14"], venv_backend="venv", reuse_venv=True)
def every_python(session: nox.Session) -> None:
    """Install the lock, import the package and run the tests with one Python, and put its row into the table."""
    session.chdir(ROOT)
    row = {"python": said_by(session, "import platform; print(platform.python_version())")}
    row |= dict.fromkeys(["torch", "gigabytes", "seconds", "passed", "failed"])
    row |= {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"}
    with suppress(CommandFailed):  # nox has shown it, and the row ends there
        fill(row, session)
    store(PYTHONS, [row], "python", minor)
    if row["failed"] != 0:
        session.error(f"Python {row['python']}: not everything passes, see {PYTHONS.name}")


@nox.session(python="3.13", venv_backend="venv", reuse_venv=True)
def colab(session: nox.Session) -> None:
    """Install what Colab brings, run each chapter with it, or those that pytest chooses by what stands after "--", and
    put their rows into the table.
    """
    session.chdir(ROOT)
    report = Path(session.virtualenv.location) / "report.xml"
    session.install("-q", "-r", "tests/colab.txt")
    given = {"COLAB_PYTHON": said_by(session, "import sys; print(sys.executable)")}
    pytest = [sys.executable, "-m", "pytest", "tests/test_colab.py", "-m", "", f"--junitxml={report}"]
    session.run(*pytest, *session.posargs, env=given, external=True, success_codes=[0, 1])
    date = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"}
    store(COLAB, [row | date for row in chapters(report)], "chapter")
    if counts(report)["failed"]:
        session.error("tests fail")


@nox.session(venv_backend="venv", reuse_venv=True)
def sphinx(session: nox.Session) -> None:
    """Build the site without jupyter-book."""
    session.chdir(ROOT)
    settings, place = sphinx_settings(), Path(session.virtualenv.location)
    session.install("-q", "--upgrade", *WITHOUT_JUPYTER_BOOK)
    (packages,) = place.glob("lib/python*/site-packages")
    here, chapters = sysconfig.get_path("purelib"), packages / "chapters.pth"
    chapters.write_text(f"import site; site.addsitedir({here!r})\n")  # whose packages come after those just installed
    lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
    (place / "conf.py").write_text("".join([f"import sys\nsys.path.insert(0, {str(BOOK / '_ext')!r})\n", *lines]))
    session.run("python", "-m", "sphinx", "-W", "-c", place, BOOK, place / "html", env={"OMP_NUM_THREADS": "1"})


def sphinx_settings() -> dict:
    """What jupyter-book makes of _config.yml, without its own extensions, and with paths from the root."""
    toc = {"external_toc_path": str(ROOT / "_toc.yml"), "latex_individualpages": False}
    settings, _ = get_final_config(user_yaml=ROOT / "_config.yml", sourcedir=BOOK, cli_config=toc)
    del settings["use_jupyterbook_latex"]
    for name in ("templates_path", "html_static_path", "html_extra_path", "bibtex_bibfiles"):
        settings[name] = [str(BOOK / path) for path in settings[name]]
    settings["html_favicon"] = str(BOOK / settings["html_favicon"])
    settings["nb_execution_cache_path"] = str(ROOT / "_build" / ".jupyter_cache")  # that of `make book`
    own = {"jupyter_book", "sphinx_jupyterbook_latex"}
    return settings | {"extensions": [name for name in settings["extensions"] if name not in own]}


def chapters(report: Path) -> list[dict]:
    """Chapter, seconds and whether it passed, of the tests in pytest's report that run a chapter."""
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        if found := re.fullmatch(r"test_a_chapter_runs\w*\[(.+)\]", case.get("name")):
            passed = case.find("failure") is None and case.find("error") is None
            rows.append(dict(chapter=found[1], seconds=round(float(case.get("time"))), passed=passed))
    return rows


def fill(row: dict, session: nox.Session) -> None:
    """Go as far as this Python goes; CommandFailed where a step fails, with what came before in the row."""
    place = Path(session.virtualenv.location)
    row["seconds"] = install(session, place / "installed.json")
    row["gigabytes"] = round(sum(path.lstat().st_size for path in place.rglob("*")) / 1e9, 1)
    row["torch"] = said_by(session, "import damm_lite, torch; print(torch.__version__)")
    report = place / "report.xml"
    session.run("python", "-m", "pytest", *session.posargs, f"--junitxml={report}", success_codes=[0, 1])
    row |= {name: count for name, count in counts(report).items() if name in row}


def install(session: nox.Session, done: Path) -> int | None:
    """Install the lock, unless the file `done` says that it is installed; the seconds that it took from nothing.

    They are None where an interrupted installation went on, or one of an earlier lock was brought up to date.
    """
    files = ("constraints.txt", "requirements.txt", "requirements-dev.txt", "pyproject.toml")
    wanted = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in files)).hexdigest()
    from_nothing = not done.exists()
    if not from_nothing and (known := json.loads(done.read_text())).get("lock") == wanted:
        return known["seconds"]
    done.write_text("{}")
    index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    start = time.perf_counter()
    session.install("-q", "-c", "constraints.txt", *index, "-r", "requirements-dev.txt")
    seconds = round(time.perf_counter() - start) if from_nothing else None
    done.write_text(json.dumps({"lock": wanted, "seconds": seconds}))
    return seconds


def said_by(session: nox.Session, code: str) -> str:
    """The last line that the environment's Python prints for some code."""
    return session.run("python", "-c", code, silent=True).splitlines()[-1]


def store(path: Path, rows: list[dict], column: str, of: Callable[[str], str] = str) -> None:
    """Put rows into the table `path`, in place of those with the same `of(column)`; the others stay."""
    new = {of(row[column]) for row in rows}
    old = pd.read_csv(path).to_dict("records") if path.is_file() else []
    old = [row for row in old if of(row[column]) not in new]
    table = pd.DataFrame([*old, *rows]).sort_values(column).convert_dtypes()
    with atomic_write(path) as whole:
        table.to_csv(whole, index=False)


def minor(python: str) -> str:
    """3.11 for 3.11.7."""
    return python.rsplit(".", 1)[0]


def versions(frozen: str) -> dict[str, str]:
    """{package: version} of a text with lines like `numpy==2.4.1`, names in one spelling, without "+cpu"."""
    found = re.findall(r"^([\w.-]+)==([^\s+]+)", frozen, re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def differences(locked: dict[str, str], found: dict[str, str]) -> list[Row]:
    """The rows of the packages that are in both and whose versions differ."""
    return [(name, locked[name], found[name]) for name in sorted(locked.keys() & found) if locked[name] != found[name]]


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, of pytest's report (JUnit XML); an error is a failure."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    every, failures, errors, skipped = (int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    return {"passed": every - failed - skipped, "failed": failed, "skipped": skipped}


def outcome(report: Path, coverage: Path) -> list[Row]:
    """The rows of pytest's report, and of the share of lines that ran (coverage's JSON)."""
    covered = json.loads(Path(coverage).read_text())["totals"]["percent_covered"]
    rows = {f"tests {name}": count for name, count in counts(report).items()}
    rows |= {"lines of damm_lite covered (%)": round(covered, 1)}
    return [(name, "", str(value)) for name, value in rows.items()]
