"""The book on paper: pages in reading order, whole, with bookmarks and numbers; answers come at a chapter's end."""

from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from pypdf import PdfReader

import make_pdf

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
ORDER = {
    "root": "intro",
    "parts": [{"caption": "Only part", "chapters": [{"file": "protocol"}, {"file": "references"}]}],
}
CHAPTER = "09_whole_network"
SITE = "https://example.org/book/"

for needed, remedy in (
    (make_pdf.CHROMIUM, "install Debian's package chromium"),
    (HTML / f"{CHAPTER}.html", "run `make book`"),
    (ROOT / "web" / "node_modules" / "mathjax", "run `make web/node_modules/installed`"),
):
    if not needed.exists():
        pytest.skip(f"no {needed}; {remedy}", allow_module_level=True)


def small_book(folder, html, order):
    """A book of few pages, already built: its root."""
    (folder / "_build").mkdir()
    (folder / "_build" / "html").symlink_to(html)
    (folder / "_toc.yml").write_text(yaml.safe_dump(order))
    (folder / "_config.yml").write_text((ROOT / "_config.yml").read_text())
    return folder


def words(text):
    """Without spaces and ligatures, which differ between a page and its print."""
    for ligature, letters in {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl"}.items():
        text = text.replace(ligature, letters)
    return "".join(text.split())


def heading(name):
    found = BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser").select_one("article h1")
    found.select_one(".headerlink").decompose()
    return found.get_text()


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    root = small_book(tmp_path_factory.mktemp("book"), HTML, ORDER)
    make_pdf.make(root, root / "book.pdf")
    return PdfReader(root / "book.pdf")


def test_every_page_is_filled_and_numbered(book):
    assert len(book.pages) > 4
    for number, page in enumerate(book.pages, start=1):
        lines = page.extract_text().split("\n")
        assert str(number) in (lines[0].strip(), lines[-1].strip())
        assert len(words(page.extract_text())) > 40 or len(page.images)


def bookmarks(reader, items=None, depth=0):
    """[(depth, title, number of its page from 0)]"""
    found = []
    for item in reader.outline if items is None else items:
        if isinstance(item, list):
            found += bookmarks(reader, item, depth + 1)
        else:
            found.append((depth, item.title, reader.get_destination_page_number(item)))
    return found


def test_bookmarks_are_in_reading_order_and_lead_to_their_headings(book):
    found = bookmarks(book)
    part = found.index(next(item for item in found if item[1] == "Only part"))
    assert [title for depth, title, _ in found[:part] if depth == 0] == [heading("intro")]
    assert [title for depth, title, _ in found[part:] if depth == 1] == [heading("protocol"), heading("references")]
    assert sum(depth == 2 for depth, *_ in found[part:]) > 2
    for _, title, number in found[:part] + found[part + 1 :]:
        assert words(title) in words(book.pages[number].extract_text()), title
    numbers = [number for *_, number in found]
    assert numbers == sorted(numbers) and numbers[0] == 1


def test_the_first_page_tells_where_chapters_begin(book):
    contents = words(book.pages[0].extract_text())
    starts = {title: number + 1 for _, title, number in bookmarks(book)}
    for name in ("intro", "protocol", "references"):
        assert f"{words(heading(name))}{starts[heading(name)]}" in contents


def test_links_lead_within_the_book_or_to_its_site(book):
    links = [link.get_object() for page in book.pages for link in page.get("/Annots", ())]
    inside = [link for link in links if "/Dest" in link]
    outside = [link["/A"]["/URI"] for link in links if "/Dest" not in link]
    numbers = {page.indirect_reference.idnum for page in book.pages}
    assert len(inside) > 3 and all(link["/Dest"][0].idnum in numbers for link in inside)
    assert any(url.endswith("/01_tumour_images.html") for url in outside)
    assert not any(name in url for url in outside for name in ("http://book/", "/protocol.html", "/references.html"))


def test_answers_stand_at_the_end_and_folded_code_nowhere():
    page = BeautifulSoup((HTML / f"{CHAPTER}.html").read_text(), "html.parser")
    with make_pdf.browser_page(HTML, SITE) as browser:
        reader, headings = make_pdf.print_page(browser, SITE, CHAPTER)
    assert list(headings[-1]) == [2, "answers", "Answers and solutions"]
    text = words("".join(sheet.extract_text() for sheet in reader.pages))
    body, _, end = text.rpartition(words("Answers and solutions"))
    folds = page.select(".admonition.important > details")
    assert folds and len(body) > len(end) > 500
    for fold in folds:
        choice, answer = words(fold.summary.get_text()), words(fold.p.strong.get_text())
        assert choice[:20] in body and answer in end
    (setup, *_) = page.select("details.hide pre")
    assert words(setup.get_text())[:60] not in text
    for solution in page.select(".solution .admonition-title"):
        assert words(solution.get_text()) in end and words(solution.get_text()) not in body


@pytest.mark.parametrize("lacking", ['<img src="gone.png">', '<span class="math">\\(x\\)</span>'])
def test_a_page_that_is_not_complete_is_named(tmp_path, lacking):
    (tmp_path / "broken.html").write_text(f'<article><h1 id="a">A</h1>{lacking}</article>')
    with make_pdf.browser_page(tmp_path, SITE) as browser, pytest.raises(RuntimeError, match=r"broken\.html: expected"):
        make_pdf.print_page(browser, SITE, "broken")


def test_a_page_that_is_not_built_is_named(tmp_path):
    root = small_book(tmp_path, HTML, {"root": "intro", "parts": [{"caption": "A", "chapters": [{"file": "gone"}]}]})
    with pytest.raises(FileNotFoundError, match=r"gone\.html: expected a built page, found none; run `make book`"):
        make_pdf.make(root, root / "book.pdf")
    assert not (root / "book.pdf").exists()
