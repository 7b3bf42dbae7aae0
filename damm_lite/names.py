"""Names of files and folders, as systems and archives leave them."""

import unicodedata
from pathlib import PurePath

SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}  # of macOS archives and Windows folders


def is_hidden(path: str | PurePath) -> bool:
    """Whether any part of a path is no file of the user's: a name with a
    leading dot, which systems do not show, a program's lock (~$), or one that
    a system adds by itself. Give a path below the folder that is searched.

    >>> is_hidden("case/._t1.nii"), is_hidden("case/t1.nii")
    (True, False)
    """
    return any(part.startswith((".", "~$")) or part.lower() in SYSTEM for part in PurePath(path).parts)


def composed(name: str) -> str:
    """A name in the one form (NFC) in which names are compared: "é" is one
    letter on Linux and Windows, and may be e and an accent on macOS.
    """
    return unicodedata.normalize("NFC", name)
