"""Many jobs into one folder: each is done once, whatever interrupts, on this
machine or on a Dask cluster.
"""

from collections.abc import Callable
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

    `scheduler` is the address of a Dask scheduler, e.g. "tcp://node:8786",
    whose workers have this package; a job whose worker dies is given to
    another. Without one the jobs run here, one after the other. Raises OSError
    where no scheduler answers.
    """
    with tqdm(desc="runs", total=sum(len(job.names) for job in jobs)) as bar:
        for job, tables in _on_cluster(jobs, scheduler) if scheduler else _here(jobs):
            for name, table in zip(job.names, tables, strict=True):
                with atomic_write(folder / f"{name}.csv") as whole:
                    table.to_csv(whole, index=False)
                bar.update()


def _here(jobs):
    for job in jobs:
        yield job, job.function(*job.arguments)


def _on_cluster(jobs, scheduler):
    """(job, tables) as they come in. Only the scheduler knows which worker did
    what, and does it again if need be.
    """
    from distributed import Client, as_completed

    with Client(scheduler) as client:
        futures = {client.submit(job.function, *job.arguments, pure=False): job for job in jobs}
        for future, tables in as_completed(futures, with_results=True):
            yield futures[future], tables
