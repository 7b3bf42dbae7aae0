"""What a chapter needs beside the science: its parameters checked, the
package's lines shown, measured tables.
"""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown

from damm_lite.download import fetch

# Variables of every kernel, which are no parameters.
_OWN = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def check_parameters(
    namespace: dict, *, profile: Sequence[str], folders: Sequence[str] = (), names: Sequence[str] = ()
) -> None:
    """Check the variables of a chapter right after its parameters cell;
    `namespace` is `globals()`.

    `profile` lists the allowed values of the variable `profile`, `folders` the
    variables that hold a folder or None, `names` all others. Raises NameError
    for a variable that is none of these (a misspelt parameter), ValueError for
    an unknown profile, FileNotFoundError for a missing folder; each says what
    is allowed.
    """
    allowed = {"profile", *folders, *names}
    plain = {
        name
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _OWN
        and (value is None or isinstance(value, (str, int, float, list)))
    }
    unknown = plain - allowed - {"REPOSITORY"}
    if unknown:
        raise NameError(
            f"unknown parameter {', '.join(sorted(unknown))}; this chapter has {', '.join(sorted(allowed))}"
        )
    if namespace["profile"] not in profile:
        raise ValueError(f"profile: expected one of {', '.join(profile)}, got {namespace['profile']!r}")
    for name in folders:
        if namespace[name] is not None and not Path(namespace[name]).is_dir():
            raise FileNotFoundError(f"{name}: expected a folder or None, got {namespace[name]!r}, which is not there")


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
