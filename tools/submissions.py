"""What students handed in: every file and folder found, archives unpacked, each notebook known by its assignment.

Nothing here runs what it finds, follows a link, or writes to a path that a student chose: what is inside an archive
goes to numbered files. Nothing ends the search either; what cannot be graded is returned with the reason.
"""

import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from damm_lite.names import composed, is_hidden
from notebooks import in_print, prepared, said

MIB = 2**20
ARCHIVE, MEMBERS, NESTED = 2048 * MIB, 10_000, 3  # of one archive with those inside it: bytes, files, levels
DEPTH = 30  # folders inside each other
UTF8_FLAG = 0x800  # in an archive: the name is UTF-8
BARE = {"HEAD", "objects", "refs"}  # in a repository without its files


@dataclass(frozen=True)
class Submission:
    """One file or folder that was handed in."""

    parts: tuple  # its path below the folder of all submissions, in printable letters
    assignment: str = ""
    notebook: Path | None = None  # the copy to grade
    reason: str = ""  # why there is none
    student: str = ""  # the path as a name that no other has
    page: str = ""  # the name of its report, that no other has

    @property
    def file(self) -> str:
        return "/".join(self.parts)


def find(path: Path, work: Path, assignments: Iterable[str]) -> list[Submission]:
    """Everything handed in below a folder, or in an archive, in the order of names.

    Copies to grade go to the empty folder `work`. `assignments` are the names there are. Hidden files are passed
    over; in a cloned repository so is all that belongs to no assignment. Raises OSError where `path` cannot be read.
    """
    search = _Search(work, sorted(assignments))
    every = search.file(path, (printable(path.name),)) if path.is_file() else search.folder(path, ())
    found = list(tqdm(every, "reading", unit=" files"))
    return named(one_row_a_repository(found, search.repositories, search.assignments))


def printable(name: str) -> str:
    """A name from a disk or an archive in letters that can be printed; in latin-1 where it is not UTF-8."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return in_print(composed(text))


class _Search:
    def __init__(self, work, assignments):
        self.work, self.assignments = work, assignments
        self.written = 0  # files in the folder `work`
        self.bytes = self.members = 0  # of the archive in work, and of those inside it
        self.repositories = set()  # paths of cloned repositories

    def folder(self, folder: Path, parts: tuple) -> Iterator[Submission]:
        if len(parts) > DEPTH:
            yield Submission(parts, reason=f"more than {DEPTH} folders inside each other")
            return
        try:
            every = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not parts:
                raise
            yield Submission(parts, reason=f"a folder that cannot be read: {error.strerror}")
            return
        names = {entry.name for entry in every}
        if parts and ".git" in names:
            self.repositories.add(parts)
        entries = [entry for entry in every if not is_hidden(entry.name)]
        if parts and not entries:
            yield Submission(parts, reason="an empty folder: expected a notebook in it")
        if parts and names >= BARE:
            yield Submission(parts, reason="a repository without its files: expected what `git clone` makes of it")
            return
        for entry in entries:
            yield from self.entry(entry, (*parts, printable(entry.name)))

    def entry(self, entry: os.DirEntry, parts: tuple) -> Iterator[Submission]:
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError as error:
            yield Submission(parts, reason=f"cannot be read: {error.strerror}")
            return
        if stat.S_ISDIR(mode):
            yield from self.folder(Path(entry.path), parts)
        elif stat.S_ISREG(mode):
            self.bytes = self.members = 0
            yield from self.file(Path(entry.path), parts)
        else:
            found = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            yield Submission(parts, reason=f"{found}: expected the file itself")

    def file(self, path: Path, parts: tuple, level: int = 1) -> Iterator[Submission]:
        kind = PurePosixPath(parts[-1]).suffix
        if kind.lower() == ".ipynb":
            yield self.notebook(path, parts)
        elif kind.lower() != ".zip":
            kind = f"a {kind}" if kind else "a name without ending"
            yield Submission(parts, reason=f"expected a notebook (.ipynb), or a .zip with one, got {kind}")
        elif level > NESTED:
            yield Submission(parts, reason=f"more than {NESTED} archives inside each other")
        else:
            try:
                yield from self.archive(path, parts, level)
            except Exception as error:  # a student's file may be anything
                yield Submission(parts, reason=f"not an archive that can be read: {said(error)}")

    def archive(self, path: Path, parts: tuple, level: int) -> Iterator[Submission]:
        with zipfile.ZipFile(path) as archive:
            members = [(member, names_in(member)) for member in archive.infolist()]
            for _, names in members:
                if ".git" in names:
                    self.repositories.add((*parts, *names[: names.index(".git")]))
            kept = [(member, names) for member, names in members if not member.is_dir() and not hidden(names)]
            self.bytes += sum(member.file_size for member, _ in kept)
            self.members += len(members)
            if self.bytes > ARCHIVE or self.members > MEMBERS:
                raise ValueError(f"expected at most {ARCHIVE // MIB} MiB in {MEMBERS} files, unpacked")
            if not kept:
                yield Submission(parts, reason="an empty archive: expected a notebook in it")
            for member, names in kept:
                yield from self.member(archive, member, (*parts, *names), level)

    def member(self, archive, member: zipfile.ZipInfo, parts: tuple, level: int) -> Iterator[Submission]:
        kind = PurePosixPath(parts[-1]).suffix.lower()
        copy = self.work / f"{self.written}-unpacked"
        if ".." in parts:
            yield Submission(parts, reason="a name that leads out of the archive")
        elif stat.S_ISLNK(member.external_attr >> 16):
            yield Submission(parts, reason="a link: expected the file itself")
        elif kind in (".ipynb", ".zip"):
            self.written += 1
            try:
                with archive.open(member) as source, open(copy, "wb") as target:
                    shutil.copyfileobj(source, target)
            except Exception as error:  # damaged, or behind a password
                yield Submission(parts, reason=f"not a file that can be unpacked: {said(error)}")
            else:
                yield from self.file(copy, parts, level + 1)
        else:
            yield from self.file(copy, parts, level + 1)  # which says what was expected

    def notebook(self, path: Path, parts: tuple) -> Submission:
        assignment, notebook, reason = prepared(path, parts[-1], self.assignments)
        if reason:
            return Submission(parts, assignment, reason=reason)
        copy = self.work / f"{self.written}-graded.ipynb"
        self.written += 1
        copy.write_text(json.dumps(notebook))
        return Submission(parts, assignment, copy)


def names_in(member: zipfile.ZipInfo) -> tuple:
    """The parts of a path in an archive, whichever system made it."""
    name = member.filename
    if not member.flag_bits & UTF8_FLAG:  # read as cp437, but often UTF-8 all the same
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = member.filename
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(map(printable, path.parts)) or ("?",)
    return ("..", *parts[1:]) if path.is_absolute() else parts


def hidden(names: tuple) -> bool:
    """Whether a path in an archive is no file of the student's; one that leads outside is."""
    return is_hidden("/".join(name for name in names if name != ".."))


def one_row_a_repository(found: list[Submission], repositories: set, assignments: list[str]) -> list[Submission]:
    """Of each cloned repository what belongs to an assignment, or one row that says that nothing does."""

    def root(parts):
        return next((parts[:length] for length in range(len(parts) + 1) if parts[:length] in repositories), None)

    kept = [one for one in found if root(one.parts) is None or one.assignment]
    with_some = {root(one.parts) for one in kept}
    reason = f"a repository without a notebook of an assignment; expected one of {', '.join(assignments)}"
    empty = {root(parts) for parts in repositories} - with_some
    return [*kept, *(Submission(parts, reason=reason) for parts in empty)]


def named(found: list[Submission]) -> list[Submission]:
    """In the order of paths, each with a name and a page of its own, also where case does not count."""
    students, pages, done = set(), set(), []
    for one in sorted(found, key=lambda one: one.parts):
        *folders, last = one.parts
        short = "/".join([*(name.removesuffix(".zip") for name in folders), PurePosixPath(last).stem])
        if short.startswith(("=", "+", "-", "@")):  # what a spreadsheet takes for a formula
            short = f"./{short}"
        student = unique(short, students)
        page = unique(re.sub(r"[^\w.-]+", "-", student)[:50].strip(".-") or "submission", pages)
        done.append(replace(one, student=student, page=f"{page}.md"))
    return done


def unique(name: str, taken: set) -> str:
    """The name, with a number where it is taken already; it is then taken."""
    numbered = (f"{name}-{n}" for n in range(2, len(taken) + 3))
    free = next(one for one in (name, *numbered) if one.casefold() not in taken)
    taken.add(free.casefold())
    return free
