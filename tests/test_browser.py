"""Every page in a browser: complete, quiet, accessible, and its figures answer to the keyboard."""

import pytest

from browser import ELSEWHERE, HTML, IS_OFFLINE, ROOT, SCRIPTS, answer, built_site, chromium, served
from make_slides import write_decks

MADE_BY_SPHINX = ("genindex.html", "index.html", "py-modindex.html", "search.html")
PAGES = sorted(path.name for path in HTML.glob("*.html") if path.name not in MADE_BY_SPHINX)
CHAPTERS = [name for name in PAGES if name[2] == "_"]
# The theme declares a constant twice, reports that no reader has chosen light or dark yet, and names a style
# sheet that is loaded from elsewhere; the widgets look for an icon font beside the page.
HARMLESS = ("THEBE_JS_URL", "Got invalid theme mode", "/basic.css", "@jupyter-widgets/html-manager/dist/")
# Colours fade over from one theme to the other: wait until they have.
SET_THEME = """async (theme) => {
    document.documentElement.dataset.theme = theme;
    await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}"""
SEEN = "(box) => [...box.querySelectorAll('img')].filter((image) => image.offsetParent).map((image) => image.src)"


# Code is thousands of words that look alike: where a word and all around it have the classes of another, it
# becomes plain text, and one of its kind is judged for all. What is within it comes first.
UNWRAP_REPETITIONS = """() => {
    const seen = new Set(), repeated = new Set();
    for (const word of [...document.querySelectorAll(".highlight span, .sig *")].reverse()) {
        if (![...word.children].every((child) => repeated.has(child)) || !word.checkVisibility()) continue;
        const look = [];
        for (let element = word; element; element = element.parentElement) look.push(element.className);
        if (seen.has(look.join("/"))) repeated.add(word);
        seen.add(look.join("/"));
    }
    for (const word of repeated) word.replaceWith(word.textContent);  // now, as each change costs a layout
}"""


@pytest.fixture(scope="module")
def site():
    with built_site() as address, chromium() as browser:
        yield browser, address


@pytest.fixture(scope="module")
def opened(site, request):
    """What `visit` returns of the page that the test names; tests of one page share it."""
    visited = visit(site, request.param)
    yield visited
    visited[0].close()


def on_each(names):
    return pytest.mark.parametrize("opened", names, indirect=True, scope="module")


def visit(site, name, without=None):
    """(an open page with its formulas set, what was refused, what its console complained of); both lists grow.

    `without` is part of the address of a file that the page does not get.
    """
    browser, address = site
    page, refused, complaints = browser.new_page(), [], []
    page.set_default_timeout(60_000)

    def complain(text):
        if not any(known in text for known in HARMLESS):
            complaints.append(text)

    page.on("pageerror", lambda error: complain(str(error)))
    page.on("console", lambda said: complain(f"{said.text} {said.location['url']}") if said.type == "error" else None)
    page.route(ELSEWHERE, lambda route: answer(route, refused))
    if without:
        page.route(lambda url: without in url, lambda route: route.abort())
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate("async () => window.MathJax?.startup?.promise")
    return page, refused, complaints


def formulas_are_set(page):
    formulas, drawn = page.locator(".math").count(), page.locator("mjx-container").count()
    return drawn >= formulas and not page.locator("mjx-merror").count()


def violations(page):
    """axe-core's serious and critical findings: [(rule, the elements)]."""
    page.add_script_tag(path=SCRIPTS / "axe-core" / "axe.min.js")
    page.evaluate(UNWRAP_REPETITIONS)
    found = page.evaluate("async () => (await axe.run({ resultTypes: ['violations'] })).violations")
    return [
        (rule["id"], [node["html"][:120] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@on_each(PAGES)
def test_pages_are_complete_quiet_and_accessible(opened):
    page, refused, complaints = opened
    assert formulas_are_set(page)
    found = {}
    for theme in ("dark", "light"):
        page.evaluate(SET_THEME, theme)
        found[theme] = violations(page)
    assert not refused and not complaints and found == {"light": [], "dark": []}


# Boxes of code and of outputs whose content is wider than they are, with all folds open.
TOO_WIDE = """() => {
    const folds = [...document.querySelectorAll("details:not([open])")];
    const hidden = [...document.querySelectorAll(".toggle-hidden")];
    folds.forEach((fold) => { fold.open = true; });
    hidden.forEach((box) => box.classList.remove("toggle-hidden"));
    const boxes = [...document.querySelectorAll("article pre, article .cell, article .cell_output > *, article table")];
    const found = boxes.filter((box) => box.scrollWidth > box.clientWidth + 1);
    const shown = found.map((box) => `${box.scrollWidth} > ${box.clientWidth}: ${box.textContent.trim().slice(0, 90)}`);
    folds.forEach((fold) => { fold.open = false; });
    hidden.forEach((box) => box.classList.add("toggle-hidden"));
    return shown;
}"""


@on_each(PAGES)
def test_nothing_is_wider_than_its_box(opened):
    page, _, _ = opened
    assert page.viewport_size["width"] == 1280
    assert page.evaluate(TOO_WIDE) == []


def test_a_line_that_is_cut_off_is_found_out(site):
    page, _, _ = visit(site, CHAPTERS[0])
    page.evaluate("document.querySelector('div.cell_input pre').textContent = 'x'.repeat(90)")
    assert len(page.evaluate(TOO_WIDE)) == 1
    page.close()


def test_an_inaccessible_page_is_found_out(site):
    page, _, _ = visit(site, "references.html")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<main><img src=x><input></main>')")
    assert {"image-alt", "label"} <= {rule for rule, _ in violations(page)}
    page.close()


def test_a_pale_word_of_code_is_found_out(site):
    page, _, _ = visit(site, CHAPTERS[0])
    page.add_style_tag(content=".highlight span { color: #ddd !important }")
    page.evaluate(SET_THEME, "light")
    assert "color-contrast" in {rule for rule, _ in violations(page)}
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


@on_each(CHAPTERS)
def test_every_slider_answers_to_the_keyboard(opened):
    page, _, _ = opened
    changed = turn(page, "ArrowRight")
    assert changed and all(changed)
    assert not any(turn(page, "F9")), "a key that turns nothing"


def unfolds_and_folds(page):
    """Press Enter on the button of the first solution, twice: whether it was folded, unfolds, and folds again."""
    solution = page.locator("div.solution.dropdown").first
    inside = solution.locator("section").first
    seen = [inside.is_visible()]
    for _ in range(2):
        solution.locator("button.toggle-button").first.press("Enter")
        seen.append(inside.is_visible())
    return seen == [False, True, False]


@on_each(CHAPTERS)
def test_solutions_unfold_and_fold(opened):
    page, _, _ = opened
    assert unfolds_and_folds(page)


def test_a_dead_button_is_found_out(site):
    page, _, _ = visit(site, CHAPTERS[0])
    page.evaluate("addEventListener('click', (event) => event.stopImmediatePropagation(), true)")
    assert not unfolds_and_folds(page)
    page.close()


@pytest.mark.parametrize("broken", ["the script", "a formula"])
def test_formulas_that_are_not_set_are_found_out(site, broken):
    page, _, _ = visit(site, CHAPTERS[0], without="tex-mml-chtml.js" if broken == "the script" else None)
    if broken == "a formula":
        assert formulas_are_set(page)
        page.evaluate("""async () => {
            document.querySelector(".math").textContent = String.raw`\\(\\frac{1}\\)`;
            await MathJax.typesetPromise();
        }""")
    assert not formulas_are_set(page)
    page.close()


def test_a_request_to_elsewhere_is_refused_and_found_out(site):
    page, refused, complaints = visit(site, "references.html")
    assert not refused and not complaints
    with page.expect_event("requestfailed"):
        page.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://example.com/pixel.png' }))")
    page.wait_for_timeout(100)
    page.close()
    assert refused == ["https://example.com/pixel.png"] and len(complaints) == 1


def test_the_strip_moves_unless_the_reader_wants_none(site):
    page, _, _ = visit(site, "intro.html")
    shown = page.locator("picture img")
    assert shown.evaluate("(image) => image.currentSrc").endswith("denoising.webp")
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function("document.querySelector('picture img').currentSrc.endsWith('denoising.png')")
    assert shown.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 404
    page.close()


def test_a_page_that_is_not_there_helps_at_any_depth(site):
    browser, address = site
    page, failed = browser.new_page(), []
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    page.route(ELSEWHERE, lambda route: answer(route, failed))
    page.route("**/a/b/gone.html", lambda route: route.fulfill(path=HTML / "404.html"))
    page.goto(f"{address}/a/b/gone.html", wait_until="load")
    for link in page.locator("article a:not(.headerlink), nav.bd-links a").all():
        where = link.evaluate("(link) => link.href")
        assert page.request.get(where).ok, where
    page.locator("article").get_by_text("Start at the beginning").click()
    page.wait_for_url(f"{address}/intro.html")
    page.close()
    assert not failed


SETTLE = """async () => {
    await document.fonts.ready;
    for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
}"""
# What shifts after the page was read so far as a widget whose frames have yet to come.
WATCH = """() => {
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.shifted += entry.hadRecentInput ? 0 : entry.value;
    }).observe({ type: "layout-shift" });
    document.querySelector(".widget-room").scrollIntoView({ block: "center" });
}"""


def shift_of_widgets(site, name, width, has_room=True):
    """The cumulative layout shift while the widgets of a page appear, its first one in view."""
    browser, address = site
    page, held = browser.new_page(viewport={"width": width, "height": 800}), []
    page.set_default_timeout(60_000)
    page.route(ELSEWHERE, lambda route: answer(route, []))
    page.route("**/tex-mml-chtml.js", lambda route: route.abort())  # not what is asked
    page.route("**/late.png", lambda route: held.append(route))  # widgets begin when all images of the page are there
    page.add_init_script("""addEventListener("DOMContentLoaded", () => document.body.append(
        Object.assign(new Image(), { src: "/late.png" })))""")
    page.goto(f"{address}/{name}", wait_until="domcontentloaded")
    if not has_room:
        page.add_style_tag(content=".widget-room::before { display: none !important }")
    page.wait_for_function("[...document.images].every((image) => image.complete || image.src.endsWith('late.png'))")
    page.evaluate(SETTLE)
    page.evaluate(WATCH)
    page.evaluate(SETTLE)
    for route in held:
        route.abort()
    page.wait_for_selector(".widget-slider [role=slider]")
    page.wait_for_timeout(500)
    shifted = page.evaluate("window.shifted")
    page.close()
    return shifted


@pytest.mark.parametrize("name", CHAPTERS)
def test_widgets_do_not_shift_the_page(site, name):
    assert max(shift_of_widgets(site, name, width) for width in (390, 1280)) < 0.1


def test_a_shift_is_found_out(site):
    assert shift_of_widgets(site, "05_multimodal_branch.html", 390, has_room=False) > 0.1


@pytest.mark.skipif(IS_OFFLINE, reason="decks take reveal.js from a CDN, for which an offline site does not answer")
@pytest.mark.parametrize("name", CHAPTERS)
def test_slides_open_and_turn(site, tmp_path, name):
    """A chapter's deck: all slides one after the other by the keyboard, formulas set, every image drawn."""
    browser, _ = site
    (deck,) = write_decks([ROOT / "book" / name.replace(".html", ".ipynb")], tmp_path)
    with served(tmp_path) as address:
        page, refused, complaints = visit((browser, address), deck.name)
        page.wait_for_function("window.Reveal?.isReady()")
        slides = page.locator(".slides > section").count()
        assert slides > 5 and not page.locator("mjx-merror").count()
        assert page.locator("mjx-container").count() or "$" not in deck.read_text().split('<div class="slides">')[1]
        for number in range(1, slides):
            page.keyboard.press("ArrowRight")
            assert page.evaluate("Reveal.getIndices().h") == number
            shown = page.evaluate("[...Reveal.getCurrentSlide().querySelectorAll('img')].map((i) => i.naturalWidth)")
            assert all(shown)
        assert page.evaluate("Reveal.isLastSlide()")
        page.close()
    assert not refused and not complaints
