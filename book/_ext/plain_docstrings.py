"""Put docstrings on the API page as they were written: plain text, `names` in backticks, indented equations.

The package's docstrings are read in the editor, and hold things like "(B, C, H, W)", "x_{t-1}" or "|a - b|"
that reStructuredText takes for markup. Here they are escaped; only backticks and indentation keep a meaning.
"""

import inspect
import re
import textwrap

# `name`, noting whether something stands close behind it; or a character that would be taken for markup.
TOKEN = re.compile(r"`([^`]+)`(?=([^\s'\")\]}>/:.,;!?-])?)|[\\*_|`]")


def to_rst(docstring):
    """The lines of a docstring as lines of reStructuredText."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(docstring).strip("\n")):
        if all(line.startswith("    ") for line in paragraph.split("\n")):  # an equation or a command
            lines += ["::", "", *textwrap.indent(textwrap.dedent(paragraph), "    ").split("\n"), ""]
        else:
            lines += [*TOKEN.sub(escape, paragraph).split("\n"), ""]
    return lines


def escape(token):
    name, close_behind = token.groups()
    if name is None:
        return f"\\{token[0]}"
    return f"``{name}``" + ("\\ " if close_behind else "")


def notes_on_fields(cls):
    """What the comments beside the fields of a dataclass or named tuple say, as a list in reStructuredText."""
    notes = re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(cls), re.M)
    return [f"- ``{name}``: {TOKEN.sub(escape, note)}" for name, note in notes] + [""]


def process_docstring(app, what, name, obj, options, lines):
    lines[:] = to_rst(lines) + (notes_on_fields(obj) if what == "class" else [])


def skip_member(app, what, name, obj, skip, options):
    """Leave out what other packages document, and the fields of named tuples, which are noted with their class."""
    ours = getattr(obj, "__module__", "") or getattr(getattr(obj, "fget", None), "__module__", "")
    return True if not ours.startswith("damm_lite") else None


def configure(app, config):
    config.autodoc_preserve_defaults = True  # `objective=PredictsNoise`, not the repr of the class
    config.autodoc_inherit_docstrings = False  # a `forward` without a docstring is described by its class


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True}
