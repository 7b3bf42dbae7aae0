"""Slides of every chapter, for reveal.js: python tools/make_slides.py [CHAPTER ...] (default: all)

Taken along are the title, the headings, the figures and the prompts to stop and predict, with the outputs of
the last `make book`, and any cell tagged `slide`. Decks are written to _build/slides.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbconvert import SlidesExporter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from fresh_outputs import cache_of  # noqa: E402
from page_scripts import address  # noqa: E402

PROMPT = re.compile(r":::\{admonition\} (Stop and predict.*?)\n:class: \w+\n(.*?):::", re.S)


def plain(markdown: str) -> str:
    """MyST as the Markdown that nbconvert knows: roles become their text, labels of equations go."""
    markdown = re.sub(r"\{\w+(?::\w+)?\}`(?:([^`<]+?) <[^`>]+>|([^`]+))`", lambda m: m[1] or m[2], markdown)
    return re.sub(r"\$\$ \(eq-[\w-]+\)", "$$", markdown)


def on_slide(cell: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The cell as it stands on a slide, or None."""
    tags, figure = cell.metadata.get("tags", []), "figure" in cell.metadata.get("mystnb", {})
    source = cell.source
    if cell.cell_type == "code":
        if not figure and "slide" not in tags:
            return None
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or "slide" in tags]
        kind = "slide"
    elif prompt := PROMPT.search(source):
        source, kind = f"### {prompt[1]}\n\n{prompt[2]}", "slide"
    elif "slide" in tags:
        kind = "slide"
    elif heading := re.match(r"##? .+", source):
        source, kind = heading[0], "slide"
    else:
        return None
    cell.source = plain(source)
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def slides(notebook: nbformat.NotebookNode) -> str:
    """The HTML page of a deck, from a notebook with its outputs."""
    cells = [on_slide(cell) for cell in notebook.cells]
    notebook.cells = [cell for cell in cells if cell is not None]
    hidden = dict(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter = SlidesExporter(extra_template_paths=[str(ROOT / "tools")], **hidden)
    exporter.template_file = "deck.html.j2"
    exporter.reveal_theme = "white"
    exporter.reveal_url_prefix = address("reveal.js", "", offline=False).removesuffix("/")
    exporter.mathjax_url = address("mathjax", "es5/tex-mml-chtml.js", offline=False)
    exporter.require_js_url = address("requirejs", "require.js", offline=False)
    exporter.widget_renderer_url = address("@jupyter-widgets/html-manager", "dist/embed-amd.js", offline=False)
    return exporter.from_notebook_node(notebook)[0]


def write_decks(chapters: Iterable[Path], folder: Path) -> list[Path]:
    """A deck of each chapter into `folder`; returns their paths. KeyError: no outputs of this version of a chapter."""
    folder.mkdir(parents=True, exist_ok=True)
    cache, paths = get_cache(cache_of(ROOT)), []
    for chapter in chapters:
        _, notebook = cache.merge_match_into_notebook(nbformat.read(chapter, as_version=4))
        paths.append(folder / f"{chapter.stem}.html")
        paths[-1].write_text(slides(notebook))
    return paths


def main():
    chapters = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    try:
        print(*write_decks(chapters, ROOT / "_build" / "slides"), sep="\n")
    except KeyError as error:
        sys.exit(f"{error}: run `make book` first")


if __name__ == "__main__":
    main()
