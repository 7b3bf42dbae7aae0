"""Slides of every chapter, for reveal.js: python tools/make_slides.py [CHAPTER ...] (default: all)

Taken along are the title, the headings, the figures and the prompts to stop and predict, with the outputs of
the last `make book`, and any cell tagged `slide`. Decks are written to _build/slides.
"""

import re
import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from nbconvert import SlidesExporter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from fresh_outputs import cache_of  # noqa: E402

PROMPT = re.compile(r":::\{admonition\} (Stop and predict.*?)\n:class: \w+\n(.*?):::", re.S)


def plain(markdown):
    """MyST as the Markdown that nbconvert knows: roles become their text, labels of equations go."""
    markdown = re.sub(r"\{\w+(?::\w+)?\}`(?:([^`<]+?) <[^`>]+>|([^`]+))`", lambda m: m[1] or m[2], markdown)
    return re.sub(r"\$\$ \(eq-[\w-]+\)", "$$", markdown)


def on_slide(cell):
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


def slides(notebook):
    """The HTML page of a deck, from a notebook with its outputs."""
    cells = [on_slide(cell) for cell in notebook.cells]
    notebook.cells = [cell for cell in cells if cell is not None]
    exporter = SlidesExporter(exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.reveal_scroll = True
    return exporter.from_notebook_node(notebook)[0]


def main():
    out, cache = ROOT / "_build" / "slides", get_cache(cache_of(ROOT))
    out.mkdir(parents=True, exist_ok=True)
    chapters = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    for path in chapters:
        notebook = nbformat.read(path, as_version=4)
        try:
            _, notebook = cache.merge_match_into_notebook(notebook)
        except KeyError:
            sys.exit(f"{path}: no outputs of this version; run `make book` first")
        (out / f"{path.stem}.html").write_text(slides(notebook))
        print(out / f"{path.stem}.html")


if __name__ == "__main__":
    main()
