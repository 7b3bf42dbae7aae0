"""Put docstrings on the API page as they were written: plain text, `names` in backticks, equations, examples.

The package's docstrings are read in the editor, and hold things like "(B, C, H, W)", "x_{t-1}" or "|a - b|"
that reStructuredText takes for markup. Here they are escaped; backticks keep a meaning, and so do paragraphs
that are indented or begin with ">>>", and options of commands.
"""

import ast
import dataclasses
import inspect
import re
import textwrap

from sphinx.ext.autodoc.preserve_defaults import DefaultValue
from sphinx.util.inspect import stringify_signature

# `name` or --option, noting whether something stands close behind it; or a character that would be taken for markup.
TOKEN = re.compile(r"(?:`([^`]+)`|(?<!\S)(--[a-z][a-z-]*))(?=([^\s'\")\]}>/:.,;!?-])?)|[\\*_|`]")


def to_rst(docstring):
    """The lines of a docstring as lines of reStructuredText."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(docstring).strip("\n")):
        if all(line.startswith("    ") for line in paragraph.split("\n")):  # an equation or a command
            lines += ["::", "", *textwrap.indent(textwrap.dedent(paragraph), "    ").split("\n"), ""]
        elif paragraph.startswith(">>> "):  # an example, which reStructuredText knows
            lines += [*paragraph.split("\n"), ""]
        else:
            lines += [*TOKEN.sub(escape, paragraph).split("\n"), ""]
    return lines


def escape(token):
    name, option, close_behind = token.groups()
    if not (code := name or option):
        return f"\\{token[0]}"
    return f"``{code}``" + ("\\ " if close_behind else "")


def notes_on_fields(cls):
    """What the comments beside the fields of a dataclass or named tuple say, as a list in reStructuredText."""
    notes = re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(cls), re.M)
    return [f"- ``{name}``: {TOKEN.sub(escape, note)}" for name, note in notes] + [""]


def process_docstring(app, what, name, obj, options, lines):
    lines[:] = to_rst(lines) + (notes_on_fields(obj) if what == "class" else [])


def write_defaults(app, what, name, obj, options, signature, returns):
    """The signature of a dataclass with its defaults as they are written in the class."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return None
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(obj))).body
    written = {field.target.id: field.value for field in tree.body if isinstance(field, ast.AnnAssign) and field.value}
    parsed = inspect.signature(obj)
    parameters = [
        p.replace(default=DefaultValue(ast.unparse(written[p.name]))) if p.name in written else p
        for p in parsed.parameters.values()
    ]
    parsed = parsed.replace(parameters=parameters)
    return stringify_signature(parsed, show_return_annotation=False, unqualified_typehints=True), None


def skip_member(app, what, name, obj, skip, options):
    """Leave out what other packages document, and fields, which are noted with their class."""
    ours = getattr(obj, "__module__", "") or getattr(getattr(obj, "fget", None), "__module__", "")
    is_default = getattr(obj, "__name__", name) != name  # a class or function that is a field's value
    return True if is_default or not ours.startswith("damm_lite") else None


def configure(app, config):
    config.autodoc_preserve_defaults = True  # `prediction=PredictsNoise`, not the repr of the class
    config.autodoc_inherit_docstrings = False  # a `forward` without a docstring is described by its class


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.viewcode")
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", write_defaults)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True}
