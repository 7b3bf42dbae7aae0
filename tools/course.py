"""What an instructor writes down about a course: rules, students, written points and late days, read with checks.

Everything wrong is refused with the name of the file, the line and what was expected.
"""

import csv
import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from damm_lite.experiments.specification import FAULTS, read_yaml
from damm_lite.names import composed

Points = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]
DETAILS = ("first", "last", "email", "login", "section", "canvas_id")  # of a student, as the platforms want them


class Checked(BaseModel):
    """Data with no unknown keys, and nothing taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Assignment(Checked):
    """How an assignment counts."""

    title: str = Field(min_length=1)  # its name on the platforms
    weight: Points  # in the course, relative to the others
    automatic: Points  # points of what is tested; 0 where nothing is, as for a talk
    written: dict[str, Points] = {}  # most points of each written part
    canvas: int | None = None  # the assignment's number there, where its title is not enough

    @property
    def of(self) -> float:
        return self.automatic + sum(self.written.values())


class Late(Checked):
    """Percent of the points that a late attempt loses."""

    free_days: int = Field(0, ge=0)
    per_day: Percent = 0
    most: Percent = 100


class Regrade(Checked):
    """How much of an assignment's points a second or later attempt can reach."""

    most: Percent = 100


class Rules(Checked):
    """The rules of a course."""

    assignments: dict[str, Assignment] = Field(min_length=1)
    late: Late = Late()
    regrade: Regrade = Regrade()
    attempts: Literal["best", "last"] = "best"  # which attempt counts
    missing: Literal["blank", "zero"] = "blank"  # what stands where nothing was handed in


def read_rules(path: str | Path) -> Rules:
    """The rules in a YAML file. Raises ValueError that names the file and what is wrong in it."""
    try:
        rules = Rules(**read_yaml(path, needed=["assignments"], optional=["late", "regrade", "attempts", "missing"]))
        titles = [one.title for one in rules.assignments.values()]
        if empty := [name for name, one in rules.assignments.items() if not one.of]:
            raise ValueError(f"{empty[0]}: expected points for something, got 0 for all")
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(f"expected a title of its own for each assignment, got {twice.pop()!r} twice")
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one['input']!r}" for one in error.errors())
        raise ValueError(f"{path}: {'; '.join(faults)}") from error
    except FAULTS as error:
        raise ValueError(f"{path}: {error}") from error
    return rules


def read_table(path: str | Path, needed: tuple, optional: tuple | None = ()) -> list[tuple[int, dict[str, str]]]:
    """(line, cells by column) of each row of a CSV file with these columns; cells are text without spaces around.

    `optional` None allows any others. Raises ValueError that names the file and what is wrong in it.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a table in CSV, in UTF-8: {error}") from error
    header = lines[0][1] if lines else []
    unknown = set(header) - {*needed, *optional} if optional is not None else set()
    if not set(needed) <= set(header) or unknown or len(set(header)) < len(header):
        perhaps = f", and perhaps {', '.join(optional)}" if optional else ""
        raise ValueError(f"{path}: expected columns {', '.join(needed)}{perhaps}; got {', '.join(header) or 'none'}")
    if long := [line for line, row in lines if len(row) > len(header)]:
        raise ValueError(f"{path}, line {long[0]}: expected at most {len(header)} cells, got more")
    return [
        (line, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))) for line, row in lines[1:] if any(row)
    ]


def number(text: str, most: float, where: str, whole: bool = False) -> float:
    """The number from 0 to `most` in a cell; else ValueError that says where."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or whole and value != int(value):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{where}: expected {kind} from 0 to {most:g}, got {text!r}")
    return value


@dataclass
class Students:
    """Who is in the course, and under which names they hand in."""

    path: Path
    details: dict[str, dict[str, str]]  # of each student, by ID
    names: dict[str, str]  # the ID by folder, file or e-mail; "" where it is nobody's
    words: set[str]  # that start the names of assignments

    def of(self, name: str, where: str) -> str:
        """The ID of a student by ID, e-mail or name; else ValueError that says where."""
        if not (found := self.names.get(folded(name))):
            raise ValueError(f"{where}: {name!r} is no student in {self.path}")
        return found

    def handed_in(self, file: str) -> str | None:
        """Whose a path below the folder of submissions is: "" where it is nobody's, None where that is not known.

        The whole path counts first, then the outermost folder or file that is known: inside it a student may choose
        any name. After the name may stand what platforms add, as in kim_1234_a1.ipynb and kim_LATE_1234_a1.ipynb.
        """
        for part in (file, *file.split("/")):
            if fits := [name for name in self.names if self._fits(folded(part), name)]:
                return self.names[max(fits, key=len)]
        return None

    def _fits(self, part, name):
        if name in (part, str(PurePosixPath(part).with_suffix("")) if part else part):
            return True
        rest = part.removeprefix(name)
        added = re.match(r"[_-](?:late_)?([^\W_]+)", rest) if rest != part else None
        return bool(added) and (added[1].isdigit() or added[1] in self.words)


def folded(name: str) -> str:
    """A name in the one form in which names are compared here."""
    return composed(name.strip()).casefold()


def variant(student: str, assignment: str) -> int:
    """The number, from 1 to a million, that makes a student's data in an assignment; the same each time."""
    digest = hashlib.sha256(f"{assignment}\n{folded(student)}".encode()).digest()
    return 1 + int.from_bytes(digest[:8], "big") % 10**6


def read_students(path: str | Path, rules: Rules) -> Students:
    """The students in a CSV file with the columns name (a folder, file or e-mail under which they hand in) and id.

    There may be several lines for one student, and columns of `DETAILS`. A name without an ID is nobody's, and
    passed over. Raises ValueError that names the file and what is wrong in it.
    """
    details, names = {}, {}
    for line, row in read_table(path, ("name", "id"), DETAILS):
        if row["id"]:
            known = details.setdefault(row["id"], dict.fromkeys(DETAILS, ""))
            for key in row.keys() & set(DETAILS):
                if known[key] and row[key] and known[key] != row[key]:
                    raise ValueError(f"{path}, line {line}: {key} {row[key]!r} of {row['id']}, before {known[key]!r}")
                known[key] = known[key] or row[key]
        for name in filter(None, (row["name"], row["id"], row.get("email", ""))):
            if names.setdefault(folded(name), row["id"]) != row["id"]:
                raise ValueError(f"{path}, line {line}: {name!r} is also {names[folded(name)] or 'nobody'}")
    if not details:
        raise ValueError(f"{path}: expected at least one student with an id, found none")
    words = {re.split(r"[\W_]+", name.lower())[0] for name in rules.assignments}
    return Students(Path(path), details, names, words)
