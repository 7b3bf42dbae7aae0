"""The prompts to stop and predict: each has its answers on the page, behind lines that open without a script."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9]*.ipynb"))
PROMPT = re.compile(r"^:::\{admonition\} Stop and predict \(\d minutes?\)\n:class: important\n(.*?)\n:::$", re.M | re.S)


def prompts(chapter):
    """What stands in the prompts of a chapter, as {id of the cell: Markdown}."""
    cells = json.loads(chapter.read_text())["cells"]
    texts = {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"}
    found = {name: PROMPT.findall(text) for name, text in texts.items() if "Stop and predict" in text}
    assert all(len(bodies) == 1 for bodies in found.values()), found
    return {name: bodies[0] for name, bodies in found.items()}


def questions(markdown):
    """The answers to each question of a prompt: [[(option, verdict, why), ...], ...].

    Raises ElementTree.ParseError where a tag is not closed where it should be, AssertionError for an option or an
    answer without words, and for Markdown that no blank line sets apart from HTML, so that it stays as it is.
    """
    html = MarkdownIt("commonmark").use(dollarmath_plugin).render(markdown)
    found, open_question = [], False
    for part in ElementTree.fromstring(f"<div>{html}</div>"):
        if part.tag != "details":
            open_question = False
            continue
        summary, *answer = part
        assert summary.tag == "summary" and "".join(summary.itertext()).strip()
        assert not len(summary) and "$" not in summary.text  # neither Markdown nor formulas work in it
        assert answer and {p.tag for p in answer} == {"p"} and not (part.text or "").strip()
        said = " ".join("".join(p.itertext()) for p in answer)
        assert "**" not in said and not any((p.tail or "").strip() for p in part)
        verdict, _, why = said.partition(" ")
        if not open_question:
            found.append([])
        found[-1].append((summary.text, verdict, why))
        open_question = True
    return found


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_question_has_answers_of_which_one_is_right(chapter):
    found = prompts(chapter)
    assert found
    for name, markdown in found.items():
        groups = questions(markdown)
        assert groups, name
        for options in groups:
            verdicts = [verdict for _, verdict, _ in options]
            assert len(options) >= 2 and set(verdicts) <= {"Yes.", "No.", "Half."}, (name, verdicts)
            assert verdicts.count("Yes.") == 1 and len({option for option, *_ in options}) == len(options), name
            assert all(len(why.split()) >= 5 for *_, why in options), name


GOOD = "How far?\n\n<details><summary>Far</summary>\n\n**Yes.** As $a_1$ says.\n\n</details>"


def test_answers_are_read_by_question():
    near = GOOD.replace("Far", "Near").replace("Yes", "No")
    options = GOOD + near.removeprefix("How far?\n")
    assert [[o for o, *_ in group] for group in questions(f"{options}\n\n**And now?**\n\n{near}")] == [
        ["Far", "Near"],
        ["Near"],
    ]
    assert questions(GOOD) == [[("Far", "Yes.", "As a_1 says.")]]


@pytest.mark.parametrize(
    "right, wrong, error",
    [
        ("\n</details>", "", ElementTree.ParseError),
        ("</summary>", "", ElementTree.ParseError),
        ("</summary>\n\n", "</summary>\n", AssertionError),  # the stars would be shown
        ("\n\n**Yes.** As $a_1$ says.\n", "", AssertionError),
        ("Far", " ", AssertionError),
        ("Far", "$a$", AssertionError),
    ],
)
def test_a_broken_answer_is_noticed(right, wrong, error):
    assert right in GOOD
    with pytest.raises(error):
        questions(GOOD.replace(right, wrong))
