"""The pages around the chapters keep up with them: notation, glossary, paper and code, API, status."""

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.core import publish_doctree
from pylatexenc.latexwalker import LatexCharsNode, LatexGroupNode, LatexMacroNode, LatexSpecialsNode, LatexWalker
from pylatexenc.macrospec import LatexContextDb, MacroStandardArgsParser, SpecialsSpec, std_macro

import damm_lite

ROOT = Path(__file__).parents[1]
BOOK, HTML, PACKAGE = ROOT / "book", ROOT / "_build" / "html", ROOT / "damm_lite"
CHAPTERS = sorted(BOOK.glob("[0-9]*.ipynb"))
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

sys.path.insert(0, str(BOOK / "_ext"))
from plain_docstrings import to_rst, write_defaults  # noqa: E402


def prose(path):
    """The markdown cells of a chapter, as one text."""
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def page(name):
    return (BOOK / f"{name}.md").read_text()


def built(name):
    path = HTML / f"{name}.html"
    if not path.is_file():
        pytest.skip(f"no built {name}.html; run `make book` first")
    return BeautifulSoup(path.read_text(), "html.parser").find("article")


# Notation: every symbol of the chapters' formulas stands in the table.

TEXT = {"text", "mathrm", "operatorname", "textbf", "mathtt"}  # their argument is words
DRESS = {"bar", "overline", "hat", "tilde", "mathcal", "mathbb", "mathbf"}  # part of the symbol that they dress
PLAIN = frozenset(
    re.findall(
        r"\w+",
        """frac tfrac dfrac sqrt left right middle big Big bigg Bigg bigl bigr Bigl Bigr underbrace overbrace quad qquad
        cdot times pm partial pi infty dots ldots cdots vdots top mid in notin to mapsto le leq ge geq lt gt ll gg ne
        neq approx sim equiv propto rightarrow leftarrow longrightarrow Rightarrow min max arg exp log ln sin cos tanh
        arccos sum prod int displaystyle limits langle rangle lVert rVert lvert rvert Vert vert lfloor rfloor""",
    )
)
LATEX = LatexContextDb()
LATEX.add_context_category(
    "formulas",
    macros=[std_macro(name, "{") for name in TEXT | DRESS],
    specials=[SpecialsSpec("'"), *(SpecialsSpec(mark, MacroStandardArgsParser("{")) for mark in "_^")],
)


def formulas(markdown):
    """The LaTeX of all $...$ and $$...$$ outside code; directives such as exercises are looked into."""
    kept, fence = [], None
    for line in markdown.split("\n"):
        mark = re.match(r"\s*(`{3,})(.*)", line)
        if mark and fence is None:
            fence = "words" if mark[2].startswith("{") else "code"
        elif mark:
            fence = None
        if fence != "code":
            kept.append(line)
    text = re.sub(r"(`+).*?\1", "", "\n".join(kept))
    return [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$", text, re.S)]


def symbols(latex):
    """The symbols (base, subscript, label) of a formula, e.g. ("\\bar \\alpha", "t", "") and ("\\hat x", "", "uni")."""
    found = set()
    collect(LatexWalker(latex, latex_context=LATEX, tolerant_parsing=False).get_latex_nodes()[0], found)
    return found


def pieces(nodes):
    """The nodes of a formula, where text is letters, whole numbers and signs, one by one and as strings."""
    for node in nodes:
        yield from re.findall(r"\d+|\S", node.chars) if isinstance(node, LatexCharsNode) else [node]


def inside(piece):
    """The nodes in a group or environment, or in the argument of a macro, an underscore or a caret."""
    if isinstance(piece, str):
        return []
    if not isinstance(piece, LatexMacroNode | LatexSpecialsNode):
        return piece.nodelist
    arguments = piece.nodeargd.argnlist if piece.nodeargd else []
    return [node for a in arguments for node in (a.nodelist if isinstance(a, LatexGroupNode) else [a])]


def name_of(piece):
    """How a piece is called in LaTeX: "x", "\\alpha", "_"; "" for a group."""
    if isinstance(piece, str):
        return piece
    return f"\\{piece.macroname}" if isinstance(piece, LatexMacroNode) else getattr(piece, "specials_chars", "")


def names(nodes):
    """All that is written in these nodes, e.g. ["t", "-", "1"] and ["\\hat", "x"]."""
    return [name for p in pieces(nodes) for name in (name_of(p), *names(inside(p))) if name]


def label_of(nodes):
    """The words of an index like {\\text{uni}}, or None."""
    is_label = len(nodes) == 1 and isinstance(nodes[0], LatexMacroNode) and nodes[0].macroname in TEXT
    return "".join(names(inside(nodes[0]))) if is_label else None


def base_of(piece):
    """What a symbol begins with, e.g. "x", "\\alpha" or "\\hat x"; None for what is no symbol, or several."""
    name = name_of(piece)
    if name[1:] in DRESS:
        dressed = names(inside(piece))
        return f"{name} {''.join(dressed)}" if len(dressed) <= 2 and "_" not in dressed else None
    is_symbol = name.isalpha() or (name[1:].isalpha() and name[1:] not in PLAIN | TEXT)
    return name if is_symbol else None


def collect(nodes, found):
    """Add the symbols among these nodes, and inside them, to a set."""
    left = list(pieces(nodes))
    while left:
        base = base_of(piece := left.pop(0))
        if base is None:
            if name_of(piece)[1:] not in TEXT and label_of(inside(piece)) is None:
                collect(inside(piece), found)
            continue
        subscript = label = ""
        while left and isinstance(left[0], LatexSpecialsNode):
            index = left.pop(0)
            if words := label_of(inside(index)):
                label = words
            elif index.specials_chars == "_":
                subscript = " ".join(names(inside(index)))
            else:
                collect(inside(index), found)
        found.add((base, subscript, label))


def is_covered(symbol, table):
    """Whether the table has the symbol, as it is or with another index: x_7 is covered by x_t, u_t by u and t."""
    base, subscript, label = symbol
    if symbol in table:
        return True
    if not subscript or not all(is_covered(index, table) for index in symbols(subscript)):
        return False
    indexed = any(b == base and s and all(x.isalpha() for x in s.split()) and g == label for b, s, g in table)
    return indexed or ((base, "", label) in table and any(x.isalpha() for x in subscript.split()))


def notation():
    """Rows of the notation table, as lists of cells; the rows that only name a group are left out."""
    rows = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in page("notation").split("\n") if "|" in line
    ]
    assert rows[0] == ["symbol", "meaning", "in the code", "shape"]
    return [row for row in rows[2:] if not row[0].startswith("**")]


def test_formulas_are_taken_apart():
    assert symbols(r"\sqrt{\bar\alpha_{t-1}}\,\hat{x}_0^2") >= {(r"\bar \alpha", "t - 1", ""), (r"\hat x", "0", "")}
    assert (r"\hat x", "", "uni") in symbols(r"\|u\,\hat x^{\text{uni}}\|^2_{\text{trusted}}")
    assert symbols(r"\text{no flux} \frac{Q_i \cdot K_j}{\sqrt C}") == {("Q", "i", ""), ("K", "j", ""), ("C", "", "")}
    assert formulas("a `$x$` $y$\n```\n$z$\n```\n```{exercise} $p$\n$q$\n```\n$$r\n$$ (eq-r)") == ["y", "p", "q", "r\n"]
    table = {("x", "t", ""), ("t", "", ""), ("D", "", ""), ("u", "", "")}
    assert is_covered(("x", "7", ""), table) and is_covered(("u", "t", ""), table)
    assert not is_covered(("D", "0", ""), table) and not is_covered(("x", "", ""), table)


def test_notation_rows_are_whole():
    for row in notation():
        assert len(row) == 4 and re.fullmatch(r"\$[^$]+\$", row[0]) and len(row[1]) > 8, row


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_every_symbol_is_in_the_notation(chapter):
    table = set().union(*(symbols(row[0]) for row in notation()))
    used = set().union(*(symbols(latex) for latex in formulas(prose(chapter))))
    assert used, "no formula found"
    assert not {s for s in used if not is_covered(s, table)}


# Glossary: every term is linked, every link has its term.


def glossary():
    body = re.search(r"```\{glossary\}\n(.*?)\n```", page("glossary"), re.S)[1]
    return [line for line in body.split("\n") if line and not line.startswith((" ", ":"))]


def linked(markdown):
    """The terms behind {term}`term` and {term}`words <term>`."""
    return {re.sub(r".*<(.+)>$", r"\1", inner) for inner in re.findall(r"\{term\}`([^`]+)`", markdown)}


def test_every_term_is_linked_from_a_chapter():
    terms = glossary()
    assert len(terms) == len(set(terms)) > 30
    assert not set(terms) - set().union(*(linked(prose(chapter)) for chapter in CHAPTERS))


def test_every_linked_term_is_in_the_glossary():
    texts = [prose(chapter) for chapter in CHAPTERS] + [path.read_text() for path in BOOK.glob("*.md")]
    assert not set().union(*map(linked, texts)) - set(glossary())


# Paper and code: what the pages name is there.


def functions_of(path):
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["paper_and_code", "the_release"])
def test_functions_and_tests_that_a_page_names_exist(name):
    functions = set(re.findall(r"`damm_lite\.([\w.]+)`", page(name)))
    tests = set(re.findall(r"`(tests/\w+\.py)::(\w+)`", page(name)))
    assert len(functions) >= 5 and len(tests) >= 5
    for function in functions:
        owner, _, last = f"damm_lite.{function}".rpartition(".")
        try:
            owner = importlib.import_module(owner)
        except ModuleNotFoundError:  # a method: damm_lite.Class.method
            owner = getattr(damm_lite, owner.removeprefix("damm_lite."))
        assert hasattr(owner, last), function
    for file, test in tests:
        assert test in functions_of(ROOT / file), f"{file}::{test}"


def test_every_row_of_paper_and_code_has_a_status():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page("paper_and_code").split("\n")]
    rows = [row for row in rows if len(row) == 6 and row[0] and not set(row[0]) <= {"-"} and row[4] != "status"]
    assert len(rows) >= 15
    for claim, where, function, test, status, measured in rows:
        assert status in ("reproduced", "toy only", "not attempted"), claim
        if status != "not attempted":
            assert "{doc}" in where and "damm_lite." in function and "::" in test and measured, claim


# API: every module, every public name, as it was written.


def public_names():
    """(name, item) of every class and function that `dl.NAME`, `dl.brains.NAME` and so on promise."""
    items = {name: getattr(damm_lite, name) for name in damm_lite.__all__}
    for package in [item for item in items.values() if inspect.ismodule(item)]:
        items |= {name: getattr(package, name) for name in package.__all__}
    return [(name, item) for name, item in items.items() if inspect.isfunction(item) or inspect.isclass(item)]


def test_every_module_is_on_the_api_page_in_reading_order():
    shown = re.findall(r"automodule:: damm_lite\.([\w.]+)", page("api"))
    assert sorted(shown) == MODULES
    told = re.findall(r"\w+", re.search(r"in this order:(.*?)\. ", damm_lite.__doc__, re.S)[1])
    assert [name for name in shown if name in told] == [name for name in told if name in MODULES]


def test_every_public_name_is_on_the_built_api_page():
    api, names = built("api"), public_names()
    assert len(names) > 100
    for name, item in names:
        assert api.find(id=f"{item.__module__}.{name}"), name


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_shown_as_they_were_written(module):
    module = importlib.import_module(f"damm_lite.{module}")
    items = [module, *(x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__)]
    for docstring in filter(None, map(inspect.getdoc, items)):
        tree = publish_doctree("\n".join(to_rst(docstring.split("\n"))), settings_overrides={"report_level": 5})
        assert not list(tree.findall(nodes.problematic)) and not list(tree.findall(nodes.system_message)), docstring
        assert tree.astext().split() == docstring.replace("`", "").split()


def test_equations_examples_and_options_are_code():
    lines = ["With --out the weights", "are kept.", "", "    a = b", "", ">>> 1 + 1", "2", "", "The end."]
    tree = publish_doctree("\n".join(to_rst(lines)))
    assert [node.astext() for node in tree.findall(nodes.literal)] == ["--out"]
    assert [node.astext() for node in tree.findall(nodes.literal_block)] == ["a = b"]
    assert [node.astext() for node in tree.findall(nodes.doctest_block)] == [">>> 1 + 1\n2"]


def test_defaults_of_a_dataclass_are_shown_as_they_are_written():
    signature, _ = write_defaults(None, "class", "Network", damm_lite.experiments.Network, None, "", None)
    assert "fusion: type = MMFM" in signature and "= our_loss" in signature and "<" not in signature
    assert write_defaults(None, "class", "MMFM", damm_lite.MMFM, None, "(channels: int)", None) is None


# Status: no chapter takes longer than it says.


def test_chapters_keep_to_their_budget():
    runs = {}
    for row in built("status").select_one("table").select("tbody tr"):  # the first: of run times
        document, _, _, seconds, _ = (cell.get_text().strip() for cell in row.find_all("td"))
        runs[document] = float(seconds)
    for chapter in CHAPTERS:
        minutes = int(re.search(r"\*\*Budget\*\* (\d+) minutes? ", prose(chapter))[1])
        assert runs[chapter.stem] <= 60 * minutes, chapter.stem
