"""The rendered pages, as `make book` left them."""

import json
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))

if not (HTML / "index.html").is_file():
    pytest.skip("no built book; run `make book` first", allow_module_level=True)


@pytest.fixture(params=CHAPTERS, ids=lambda p: p.stem)
def chapter(request):
    """(notebook cells, parsed article of the page)."""
    page = BeautifulSoup((HTML / f"{request.param.stem}.html").read_text(), "html.parser")
    return json.loads(request.param.read_text())["cells"], page.find("article")


def test_every_figure_is_there_with_caption_and_alt_text(chapter):
    cells, article = chapter
    announced = [
        c["metadata"]["mystnb"]["figure"]["name"] for c in cells if "figure" in c["metadata"].get("mystnb", {})
    ]
    assert len(announced) >= 3
    for name in announced:
        figure = article.find("figure", id=name)
        assert figure is not None, name
        assert figure.find("img") and len(figure.find("figcaption").get_text()) > 30, name


def test_alt_texts_say_something(chapter):
    _, article = chapter
    for image in article.find_all("img"):
        alt = image.get("alt", "")
        assert len(alt) >= 10 and "/" not in alt and ".png" not in alt, image


def test_no_cell_failed_and_nothing_is_left_unrendered(chapter):
    _, article = chapter
    text = article.get_text()
    for leftover in ("Traceback (most recent call last)", "{doc}", "{cite}", "```{", "solution-start", ":class:"):
        assert leftover not in text, leftover


def test_rhythm_of_a_page(chapter):
    cells, article = chapter
    assert article.find("h1").get_text()[:2].isdigit()
    text = article.get_text()
    for part in ("After this chapter you can", "Before you start", "Budget", "Stop and predict", "Check yourself",
                 "Exercises", "In five lines", "Where the paper says it", "Next"):  # fmt: skip
        assert part in text, part
    assert article.find(class_="widget-view") or "application/vnd.jupyter.widget-view+json" in str(article)
    checked = [c for c in cells if {"nbval-check-output", "keep_output"} <= set(c["metadata"].get("tags", []))]
    assert len(checked) >= 3 and all(c["outputs"] for c in checked)


def test_self_checks_refuse_the_stub_and_accept_the_solution(chapter):
    """In the page every stub is followed by its verdict, and so is every solution."""
    cells, article = chapter
    tagged = {tag: [c for c in cells if tag in c["metadata"].get("tags", [])] for tag in ("stub", "checked-solution")}
    assert len(tagged["stub"]) == len(tagged["checked-solution"]) >= 1
    for tag, verdict in (("stub", "Not yet: "), ("checked-solution", "Right.")):
        shown = [cell.find(class_="cell_output").get_text().strip() for cell in article.find_all(class_=f"tag_{tag}")]
        assert len(shown) == len(tagged[tag]) and all(text.startswith(verdict) for text in shown), shown


def test_stored_outputs_only_where_they_are_checked():
    for path in CHAPTERS:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code" and "keep_output" not in cell["metadata"].get("tags", []):
                assert not cell["outputs"], (path.name, cell["id"])


def test_pages_are_not_heavy():
    for page in HTML.glob("*.html"):
        assert page.stat().st_size < 1.5e6, page.name
