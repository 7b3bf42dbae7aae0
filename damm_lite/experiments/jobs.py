"""Many jobs into one folder: each is done once, whatever interrupts, on this
machine or on a Dask cluster.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from damm_lite.atomic import atomic_write


class Job(NamedTuple):
    """Work that gives several tables, by names that become those of their
    files.
    """

    names: tuple
    function: Callable  # returns a table for each name
    arguments: tuple


def run_jobs(jobs: list[Job], folder: Path, scheduler: str | None = None) -> None:
    """Run jobs and write each table to `folder`/NAME.csv, whole or not at all,
    as soon as its job is done.

    `scheduler` is the address of a Dask scheduler, e.g. `tcp://node:8786`,
    whose workers have this package; a job whose worker dies is given to
    another, and given up where it kills several. Without one the jobs run
    here, one after the other. A job that fails ends nothing but itself: at the
    end RuntimeError names all that did, and why. Raises OSError where no
    scheduler answers.
    """
    failed = {}
    with tqdm(desc="runs", total=sum(len(job.names) for job in jobs)) as bar:
        for job, result in _on_cluster(jobs, scheduler) if scheduler else _here(jobs):
            try:
                for name, table in zip(job.names, result(), strict=True):
                    with atomic_write(folder / f"{name}.csv") as whole:
                        table.to_csv(whole, index=False)
            except (Exception, SystemExit) as error:  # whatever a job may raise
                failed |= dict.fromkeys(job.names, error)
            bar.update(len(job.names))
    if failed:
        reasons = "\n".join(f"  {name}: {type(error).__name__}: {error}" for name, error in failed.items())
        raise RuntimeError(f"{len(failed)} of {bar.total} runs failed, the others are done:\n{reasons}")


def usable_cores() -> int:
    """How many cores this process may use; all of the machine's where the
    system does not tell.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(jobs):
    """Each job, and a function that returns its tables or raises what it raised."""
    for job in jobs:
        yield job, partial(job.function, *job.arguments)


def _on_cluster(jobs, scheduler):
    """The same as they come in. Only the scheduler knows which worker did what,
    and does it again if need be.
    """
    from distributed import Client, as_completed

    with Client(scheduler) as client:
        futures = {client.submit(job.function, *job.arguments, pure=False): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result
