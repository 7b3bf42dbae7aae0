"""What a chapter needs beside the science: its parameters checked, the
package's lines shown, measured tables.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Sequence
from numbers import Number, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pandas as pd
from IPython.display import Markdown

from damm_lite.download import fetch

# Variables of every kernel, which are no parameters.
PUBLIC_IMAGES = ("open-ms", "lightsheet")
_OWN = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(namespace: dict, *, profile: Sequence[str], folders: Sequence[str] = (), **kinds: Any) -> None:
    """Check the variables of a chapter right after its parameters cell, and
    bring them to their types; `namespace` is `globals()`.

    `profile` lists the allowed values of the variable `profile`, `folders` the
    variables that hold an existing folder, the name of public images that
    `fetch` knows (None, and a word about it, where there is no network), or
    None, and `kinds` gives the type
    of every other: bool ("false" is False, as on a command line), int (at
    least 1, or 0 where it is called seed or step), float (above 0), str, list,
    Path ("~" is the home folder), each also `| None`. Raises NameError for a
    variable that is none of these (a misspelt parameter), ValueError for a
    value that is not of its type, FileNotFoundError for a missing folder; each
    says what is allowed.
    """
    kinds = dict.fromkeys(folders, Path | None) | kinds
    plain = {
        name
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _OWN
        and (value is None or isinstance(value, (str, Number, list, Path)))
    }
    unknown = plain - {"profile", "REPOSITORY", *kinds}
    if unknown:
        allowed = ", ".join(sorted({"profile", *kinds}))
        raise NameError(f"unknown parameter {', '.join(sorted(unknown))}; this chapter has {allowed}")
    if namespace["profile"] not in profile:
        raise ValueError(f"profile: expected one of {', '.join(profile)}, got {namespace['profile']!r}")
    for name, kind in kinds.items():
        namespace[name] = _of_kind(name, namespace[name], kind)
    for name in folders:
        if str(namespace[name]) in PUBLIC_IMAGES and not namespace[name].is_dir():
            namespace[name] = _public_or_none(name, str(namespace[name]))
        if namespace[name] is not None and not namespace[name].is_dir():
            raise FileNotFoundError(f"{name}: expected a folder or None, got {namespace[name]}, which is not there")


def _public_or_none(name, images):
    """The folder of public images; None, with the reason printed, where they cannot be had."""
    try:
        return fetch(images)
    except OSError as error:
        print(f"{error}.\n{name} = None instead: what follows shows the book's own sample, which is simulated.")  # noqa: T201
        return None


def _of_kind(name, value, kind):
    """The value of a parameter as its type; ValueError where it is none."""
    types = get_args(kind) or (kind,)
    if value is None and NoneType in types:
        return None
    least = 0 if name in ("seed", "step") else 1
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if bool in types and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if int in types and number and value == int(value) >= least:
        return int(value)
    if float in types and number and value > 0:
        return float(value)
    if isinstance(value, (str, list)) and type(value) in types:
        return value
    if Path in types and isinstance(value, (str, Path)) and str(value):
        return Path(value).expanduser()
    wanted = {
        bool: "True or False",
        int: f"a whole number from {least} up",
        float: "a number above 0",
        str: "text",
        list: "a list",
        Path: "a path",
        NoneType: "None",
    }
    raise ValueError(f"{name}: expected {' or '.join(wanted[one] for one in types)}, got {value!r}")


def show_source(*objects: Callable) -> Markdown:
    """The source of functions or classes as highlighted code, also on the
    static page.
    """
    return Markdown("\n".join(f"```python\n{textwrap.dedent(inspect.getsource(o))}```" for o in objects))


def load_results(name: str, *, means: bool = False) -> pd.DataFrame:
    """The table data/results/NAME.csv.

    Scores are those of one sample or, with `means`, of the mean of several
    (the file's columns that end in _mean). Raises ValueError for an unknown
    name.
    """
    table = pd.read_csv(fetch(f"results/{name}.csv"))
    of_means = {column: column.removesuffix("_mean") for column in table if column.endswith("_mean")}
    if means:
        return table.drop(columns=list(of_means.values())).rename(columns=of_means)
    return table.drop(columns=list(of_means))


def self_check(check: Callable[[Any], None], answer: Any) -> None:
    """Print what `check(answer)` thinks of a student's answer: its assertion's
    message, or "Right.".
    """
    try:
        check(answer)
    except AssertionError as error:
        verdict = f"Not yet: {str(error).splitlines()[0]}."
    else:
        verdict = "Right."
    print(verdict)  # noqa: T201 (a cell's output)
