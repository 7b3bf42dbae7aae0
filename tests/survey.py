"""Read a corpus in a process of its own, with limits of time and memory, and say what came of each file."""

import multiprocessing
import resource
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd

from corpus import READERS, Case, run_parts, small_network

SECONDS = 5  # for one file
MEMORY = 2 * 2**30  # bytes, of the process as a whole


def judge(case: Case) -> tuple[str, str]:
    """(outcome, what was said) of reading a file; "right" and "refused" are good, if the case allows them."""
    try:
        found = READERS[case.reader](case.path)
    except (ValueError, FileNotFoundError, KeyError) as error:
        causes = [error, error.__cause__, error.__context__]
        if any(isinstance(cause, MemoryError) for cause in causes):
            return "out of memory", str(error)
        if (str(case.path) if case.names is None else case.names) not in str(error):
            return "refused without a name", str(error)
        return "refused" if case.refused else "refused, though sound", str(error)
    except Exception as error:  # everything else is a fault of the reader
        return f"other error: {type(error).__name__}", str(error)
    if not case.read:
        return "read, though bad", f"{found.shape} {found.dtype}"
    if case.truth is not None:
        same = found.shape == case.truth.shape and found.size and _equal(found, case.truth)
        return ("right" if same else "wrong"), f"{found.shape} {found.dtype}, not {case.truth.shape}"
    return ("right" if found.size and _whole(case.reader, found) else "wrong"), f"{found.shape} {found.dtype}"


def _equal(found, truth):
    if truth.dtype.kind not in "biuf":
        return np.array_equal(found, truth)
    return np.allclose(found, truth, rtol=1e-5, atol=1e-6)


def _whole(reader, found):
    """Whether an array is what a reader promises of any."""
    if reader == "read_tiff":
        return found.dtype == np.float32 and found.ndim in (2, 3) and found.min() >= 0 and found.max() <= 1
    if reader == "brats":
        return found.dtype == np.float32 and found.min() >= -1 and found.max() <= 1
    return found.dtype.kind not in "biuf" or np.isfinite(found).all()


def _serve(connection):
    run_parts(small_network(np.random.default_rng(0)))  # what is imported only when it is used, takes its time here
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    connection.send("ready")
    while True:
        connection.send(judge(connection.recv()))


class Reader:
    """A process that reads files."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=[theirs], daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()

    def read(self, case: Case) -> tuple[str, str]:
        """(outcome, what was said); the process is gone after "hang" and "crash"."""
        try:
            self.connection.send(case)
            if self.connection.poll(SECONDS):
                return self.connection.recv()
            outcome = "hang"
        except (EOFError, ConnectionError):
            outcome = "crash"
        self.close()
        return outcome, ""

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def survey(cases: Iterable[Case]) -> pd.DataFrame:
    """A table of a row for each case: family, name, path, outcome, said."""
    reader, rows = Reader(), []
    for case in cases:
        if not reader.process.is_alive():
            reader = Reader()
        outcome, said = reader.read(case)
        rows.append(dict(family=case.family, name=case.name, path=case.path, outcome=outcome, said=said))
    reader.close()
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How many files of each family had which outcome."""
    return pd.crosstab(table.family, table.outcome).reindex(table.family.unique())
