"""Every page in a browser: complete, quiet, accessible, and its figures answer to the keyboard."""

import pytest

from browser import HTML, SCRIPTS, answer, chromium, served

MADE_BY_SPHINX = ("genindex.html", "index.html", "py-modindex.html", "search.html")
PAGES = sorted(path.name for path in HTML.glob("*.html") if path.name not in MADE_BY_SPHINX)
CHAPTERS = [name for name in PAGES if name[:2].isdigit()]
# The theme declares a constant twice, reports that no reader has chosen light or dark yet, and names a style
# sheet that is loaded from elsewhere; the widgets look for an icon font beside the page.
HARMLESS = ("THEBE_JS_URL", "Got invalid theme mode", "/basic.css", "@jupyter-widgets/html-manager/dist/")
# Colours fade over from one theme to the other: wait until they have.
SET_THEME = """async (theme) => {
    document.documentElement.dataset.theme = theme;
    await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}"""
SEEN = "(box) => [...box.querySelectorAll('img')].filter((image) => image.offsetParent).map((image) => image.src)"


@pytest.fixture(scope="module")
def site():
    with served(HTML) as address, chromium() as browser:
        yield browser, address


def visit(site, name):
    """(an open page with its formulas set, what was refused, what its console complained of)."""
    browser, address = site
    page, refused, complaints = browser.new_page(), [], []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(f"{message.text} {message.location['url']}") if message.type == "error" else None
        ),
    )
    page.route("**/*", lambda route: answer(route, refused))
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate("async () => window.MathJax?.startup?.promise")
    return page, refused, [text for text in complaints if not any(known in text for known in HARMLESS)]


def violations(page):
    """axe-core's serious and critical findings: [(rule, the elements)]."""
    page.add_script_tag(path=SCRIPTS / "axe-core" / "axe.min.js")
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        (rule["id"], [node["html"][:120] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_complete_quiet_and_accessible(site, name):
    page, refused, complaints = visit(site, name)
    formulas = page.locator(".math").count()
    assert (page.locator("mjx-container").count() >= formulas) and not page.locator("mjx-merror").count()
    found = {}
    for theme in ("light", "dark"):
        page.evaluate(SET_THEME, theme)
        found[theme] = violations(page)
    page.close()
    assert not refused and not complaints and found == {"light": [], "dark": []}


def test_an_inaccessible_page_is_found_out(site):
    page, _, _ = visit(site, "references.html")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<main><img src=x><input></main>')")
    assert {"image-alt", "label"} <= {rule for rule, _ in violations(page)}
    page.close()


def turn(page, key):
    """Press `key` on each slider of the page; for each, whether what is to be seen beside it has changed."""
    page.wait_for_selector(".widget-slider [role=slider]")
    changed = []
    for slider in page.locator(".widget-slider [role=slider]").all():
        box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][1]").element_handle()
        before = box.evaluate(SEEN)
        slider.focus()
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        changed.append(box.evaluate(SEEN) != before)
    return changed


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_slider_answers_to_the_keyboard(site, name):
    page, _, _ = visit(site, name)
    changed = turn(page, "ArrowRight")
    assert changed and all(changed)
    assert not any(turn(page, "F9")), "a key that turns nothing"
    page.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_unfold_and_fold(site, name):
    page, _, _ = visit(site, name)
    solution = page.locator("div.solution.dropdown").first
    button, inside = solution.locator("button.toggle-button").first, solution.locator("section").first
    assert not inside.is_visible()
    button.press("Enter")
    assert inside.is_visible()
    button.press("Enter")
    assert not inside.is_visible()
    page.close()
