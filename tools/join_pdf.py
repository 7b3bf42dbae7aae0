"""Printed pages as one document, for make_pdf.py: contents, bookmarks, links that lead within it, page numbers.

A `Printed` page is its PDF and its headings, (level, id, text); `INSIDE` stands for the site's address in its links.
"""

from html import escape

from pypdf import PageObject, PdfReader, PdfWriter
from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject, TextStringObject

INSIDE = "http://book/"
Printed = tuple[PdfReader, list[tuple[int, str, str]]]
Parts = list[tuple[str, list[str]]]  # (caption, names of pages); the first part has no caption
STYLE = """body { font: 16px sans-serif } p { display: flex; justify-content: space-between; margin: 5px }
           h2 { font-size: 18px; margin: 20px 0 5px } a { color: #0f5cc9; text-decoration: none }"""


def contents(title: str, parts: Parts, printed: dict[str, Printed]) -> str:
    """The first page, as HTML: the title, and where each chapter begins if this is the only page before them."""
    number, lines = 2, []
    for caption, names in parts:
        lines.append(f"<h2>{escape(caption)}</h2>")
        for name in names:
            reader, ((_, _, text), *_) = printed[name]
            lines.append(f'<p><a href="{INSIDE}{name}.html">{escape(text)}</a><span>{number}</span></p>')
            number += len(reader.pages)
    return f"<style>{STYLE}</style><h1>{escape(title)}</h1>{''.join(lines)}"


def join(front: PdfReader, printed: dict[str, Printed], parts: Parts, site: str) -> PdfWriter:
    """The front and the pages in one document; links out of the book lead to `site`."""
    writer, places = PdfWriter(), {}
    writer.append(front, import_outline=False)
    for name, (reader, _) in printed.items():
        places |= places_of(f"{INSIDE}{name}.html", reader, len(writer.pages))
        reader.root_object.pop("/Dests", None)  # ids of one page may be those of another
        writer.append(reader, import_outline=False)
    pages = list(writer.pages)
    for page in pages:
        for link in (annotation.get_object() for annotation in page.get("/Annots", ())):
            action = link["/A"]
            if action["/URI"] in places:
                at, top = places[action["/URI"]]
                link[NameObject("/Dest")] = destination(pages[at], top)
                del link["/A"]
            else:
                action[NameObject("/URI")] = TextStringObject(action["/URI"].replace(INSIDE, site))
    for caption, names in parts:
        start = places[f"{INSIDE}{names[0]}.html"][0]
        part = writer.add_outline_item(title=caption, page_number=start) if caption else None
        for name in names:
            (_, _, title), *sections = printed[name][1]
            start = places[f"{INSIDE}{name}.html"][0]
            chapter = writer.add_outline_item(title=title, page_number=start, parent=part)
            for _, id, text in sections:
                start = places[f"{INSIDE}{name}.html#{id}"][0]
                writer.add_outline_item(title=text, page_number=start, parent=chapter)
    return writer


def places_of(address: str, reader: PdfReader, start: int) -> dict[str, tuple[int, float]]:
    """Where the page of this address and all its ids stand: (page of the document, height above its foot in points).

    Chromium knows the page of each id. The height it gives may lie below the foot; then it is the top that is taken.
    """
    places = {address: (start, float(reader.pages[0].mediabox.top))}
    for id, place in reader.named_destinations.items():
        top = float(place.top) if place.top > 0 else places[address][1]
        at = start + reader.get_destination_page_number(place)
        places[f"{address}#{id.removeprefix('/')}"] = at, top
    return places


def destination(page: PageObject, top: float) -> ArrayObject:
    """A place of a page, as a link names it."""
    return ArrayObject([page.indirect_reference, NameObject("/XYZ"), NullObject(), FloatObject(top), NullObject()])


def number_pages(writer: PdfWriter, numbers: PdfReader) -> None:
    """Lay the pages of `numbers` over those of the document."""
    for page, number in zip(writer.pages, numbers.pages, strict=True):
        page.merge_page(number)
        page.compress_content_streams()
