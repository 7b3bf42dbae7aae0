"""Slides: titles, figures and prompts of a chapter with its outputs, and nothing of its markup."""

import nbformat
from bs4 import BeautifulSoup

from make_slides import plain, slides


def deck(*cells):
    return BeautifulSoup(slides(nbformat.v4.new_notebook(cells=list(cells))), "html.parser")


def code(source, output, **metadata):
    cell = nbformat.v4.new_code_cell(source, metadata=metadata)
    cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": output})]
    return cell


def test_a_deck_has_headings_figures_and_prompts():
    text = nbformat.v4.new_markdown_cell
    prompt = ":::{admonition} Stop and predict (2 minutes)\n:class: important\nHow many, by {doc}`02_basics`?\n:::"
    page = deck(
        text("# 01 One chapter\n\nwith a badge row"),
        text("## A section\n\nwith prose"),
        text("prose alone"),
        text(prompt),
        code("hidden = 1", "<p>not shown</p>"),
        code("draw()", "<p>a figure</p>", mystnb={"figure": {"name": "fig-a", "caption": "See."}}),
        code("print(1)", "<p>a tagged table</p>", tags=["slide"]),
    )
    found = page.select(".slides > section")
    assert len(found) == 5
    said = page.select_one(".slides").get_text(" ", strip=True)
    for expected in ("01 One chapter", "A section", "How many, by 02_basics?", "a figure", "a tagged table"):
        assert expected in said
    for unexpected in ("badge row", "prose", "not shown", "draw()", "admonition", ":class:"):
        assert unexpected not in said


def test_a_figure_keeps_its_alternative_text():
    figure = code("draw()", "", mystnb={"figure": {"name": "fig-a"}, "image": {"alt": 'Two "curves" & a line.'}})
    figure.outputs = [nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    (image,) = deck(figure).select("img")
    assert image["alt"] == 'Two "curves" & a line.' and image["src"] == "data:image/png;base64,iVBORw0KGgo="


def test_markup_becomes_text():
    assert plain("{doc}`the page <x>` {term}`noise` {cite:t}`ho2020`") == "the page noise ho2020"
    assert plain("$$\na\n$$ (eq-a)") == "$$\na\n$$"
