"""The book as one PDF, from the pages of the last `make book`: python tools/make_pdf.py

Chromium prints the pages in the order of _toc.yml; then they are joined, numbered, given bookmarks and a table of
contents, and links between them lead within the document. On paper nothing can be opened: answers to prompts and
solutions of exercises stand at the end of their chapter, and code that a page folds away is left out.
"""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from playwright.sync_api import Page, TimeoutError, sync_playwright
from pypdf import PdfReader

from damm_lite.atomic import atomic_write
from join_pdf import INSIDE, Parts, Printed, contents, join, number_pages

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from links_from_elsewhere import address_of  # noqa: E402

OUT = ROOT / "_build" / "damm-diffusion.pdf"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/((?:@[\w-]+/)?[\w.-]+)@[^/]+/(.+)")
MARGIN = dict(top="18mm", bottom="20mm", left="18mm", right="18mm")
PAPER = dict(format="A4", scale=0.8, print_background=True, margin=MARGIN)
NUMBER = '<p style="width: 100%; text-align: center; font: 9px sans-serif"><span class="pageNumber"></span></p>'
IS_READY = """() => [...document.images].every((image) => image.complete) && document.querySelectorAll(
    ".widget-slider [role=slider]").length >= document.querySelectorAll(".widget-room").length"""
LACKING = """() => [
    ...[...document.querySelectorAll("article img")].filter((image) => !image.naturalWidth).map((image) => image.src),
    ...[...document.querySelectorAll(".math:not(:has(mjx-container))")].map((formula) => formula.textContent)]"""


def reading_order(toc: Path) -> Parts:
    """The book's parts, (caption, names of pages); the first has no caption and holds the root alone."""
    found = yaml.safe_load(toc.read_text())
    parts = [(part["caption"], [chapter["file"] for chapter in part["chapters"]]) for part in found["parts"]]
    return [("", [found["root"]]), *parts]


@contextmanager
def browser_page(html: Path, site: str) -> Iterator[Page]:
    """A browser's page, to which the folder `html` is the address `site`, and web/node_modules the CDN."""

    def answer(route):
        url = re.sub("[?#].*", "", route.request.url)
        path = html / url.removeprefix(site)
        if script := CDN.fullmatch(url):
            path = ROOT / "web" / "node_modules" / script[1] / script[2]
        if path.is_file():
            route.fulfill(path=path)
        else:
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            page.route(re.compile("^https?:"), answer)
            yield page
        finally:
            browser.close()


def print_page(page: Page, site: str, name: str) -> Printed:
    """A page of the book as a PDF, and its headings (level, id, text). RuntimeError: an image or a formula lacks."""
    page.goto(f"{site}{name}.html", wait_until="load")
    page.evaluate("async () => window.MathJax?.startup?.promise")
    try:
        page.wait_for_function(IS_READY)
    except TimeoutError as error:
        raise RuntimeError(f"{name}.html: expected every image and slider within two minutes, got less") from error
    if lacking := page.evaluate(LACKING):
        raise RuntimeError(f"{name}.html: expected every image and formula, got none for {lacking[0][:99]}")
    headings = page.evaluate((ROOT / "tools" / "paper.js").read_text(), [site, INSIDE])
    return pdf(page), headings


def make(root: Path, out: Path) -> None:
    """Write the PDF of the book in `root`. FileNotFoundError: a page of its _toc.yml is not built."""
    html, parts = root / "_build" / "html", reading_order(root / "_toc.yml")
    config = yaml.safe_load((root / "_config.yml").read_text())
    site, names = address_of(config["repository"]["url"]), [name for _, names in parts for name in names]
    for name in names:
        if not (html / f"{name}.html").is_file():
            raise FileNotFoundError(f"{html / name}.html: expected a built page, found none; run `make book`")
    with browser_page(html, site) as page:
        printed = {name: print_page(page, site, name) for name in names}
        page.set_content(contents(config["title"], parts, printed))
        writer = join(pdf(page), printed, parts, site)
        page.set_content('<div style="break-after: page">&nbsp;</div>' * len(writer.pages))
        number_pages(writer, pdf(page, display_header_footer=True, header_template="<p></p>", footer_template=NUMBER))
    writer.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    writer.compress_identical_objects()
    with atomic_write(out) as whole:
        writer.write(whole)


def pdf(page: Page, **options: object) -> PdfReader:
    """What the browser shows now, printed."""
    return PdfReader(io.BytesIO(page.pdf(**PAPER, **options)))


if __name__ == "__main__":
    try:
        make(ROOT, OUT)
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(str(error))
    print(OUT)
