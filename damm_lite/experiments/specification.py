"""Small YAML files that say what to run, read with limits: no size, depth or
alias that fills memory, no code.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

MAX_BYTES, MAX_DEPTH = 2**16, 20
PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
# What reading a faulty file raises: its caller catches these and names the
# file.
FAULTS = (yaml.YAMLError, TypeError, ValueError, RecursionError)


def read_yaml(path: str | Path, needed: Sequence[str], optional: Sequence[str] = ()) -> dict:
    """The mapping in a YAML file, with all of the keys `needed` and perhaps
    some of `optional`.

    Raises ValueError or another of `FAULTS` for anything else, OSError where
    the file cannot be read.
    """
    if (size := Path(path).stat().st_size) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, got {size}")
    text = Path(path).read_text(encoding="utf-8-sig")
    _check_shape(text)
    mapping = yaml.safe_load(text)
    if not isinstance(mapping, dict) or not set(needed) <= mapping.keys() <= {*needed, *optional}:
        raise ValueError(f"expected {', '.join(needed)}, and perhaps {' and '.join(optional)}")
    _check_values(yaml.compose(text, yaml.SafeLoader))
    return mapping


def _check_shape(text):
    """Refuse YAML that takes long to read: a few aliases unfold to gigabytes,
    and depth costs its square.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} levels and no aliases (*name), got more")


def _check_values(node):
    """Refuse what YAML reads otherwise than people do: a key that stands twice,
    of which only the last would count, 010 (which is 8), 1:30 (which is 90).
    """
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if "<<" in keys:  # another mapping, in which a key may stand as well
            raise ValueError(f"expected no merging (<<), got one in line {node.start_mark.line + 1} or below")
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]!r} stands twice, in line {node.start_mark.line + 1} or below")
        for _, value in node.value:
            _check_values(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_values(value)
    elif node.tag.endswith((":int", ":float")) and not PLAIN_NUMBER.fullmatch(node.value):
        raise ValueError(f"{node.value}: expected a number as people write it, in line {node.start_mark.line + 1}")


def several(name: str, values: list) -> list:
    """The list `values`, with at least one value and none of them twice; else
    ValueError that names it.
    """
    if not isinstance(values, list) or not values:
        raise ValueError(f"{name}: expected a list with something in it, got {values!r}")
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{name}: expected nothing twice, got {values!r}")
    return values
