"""The network in the page: it says what PyTorch says, and answers to mouse and keyboard."""

import gzip
import re
import shutil
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import damm_lite as dl
from browser import ELSEWHERE, HTML, SCRIPTS, answer, chromium, served
from damm_lite.gates import upsample
from damm_lite.tumours.simulate import simulate_nanoparticles, simulate_nuclei
from export_onnx import NETWORKS, NUM_DRAWS, NUM_STEPS, NUM_TISSUES, browser_model
from test_browser import SET_THEME, violations

FOLDER = HTML / "playground"
DENOISE = """async ([name, choice, primary, secondary, seed]) => {
    const base = new URL("playground/", document.baseURI);
    const { denoise, loadNetwork, loadRuntime } = await import(new URL("denoise.js", base));
    const { noise } = await import(new URL("random.js", base));
    const shared = await (await fetch(new URL("playground.json", base))).json();
    const settings = { ...shared, ...shared.networks.find((network) => network.name === name) };
    const { runtime } = document.querySelector("script[data-runtime]").dataset;
    const ort = await loadRuntime(new URL(runtime, document.baseURI).href);
    const network = await loadNetwork(ort, new URL(`${name}/`, base));
    const first = noise(seed, settings.size ** 2);
    const steps = [];
    const images = [primary, secondary].map((image) => Float32Array.from(image));
    for await (const step of denoise(network, settings, choice, ...images, first)) {
        const { uni, multi, map, branch, x0 } = step;
        steps.push({ uni: [...uni], multi: [...multi], map: [...map], branch, x0: [...x0] });
    }
    return { noise: [...first], steps };
}"""
SIZE = {offered.name: offered.size for offered in NETWORKS}
PAPER = {"gate": "damm", "gamma": 0.5}


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def site():
    with served(HTML) as address:
        yield address


@pytest.fixture
def page(browser, site):
    """The playground's page, whose every request to elsewhere is answered from npm's packages."""
    refused = []
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.route(ELSEWHERE, lambda route: answer(route, refused))
    page.goto(f"{site}/playground.html")
    page.wait_for_selector(".playground-tissue")
    yield page
    page.close()
    assert not refused


def in_pytorch(patch, noise, name="tumour-64", choice=PAPER):
    """The same run in PyTorch: (x0, the last step's estimates of both branches and map, the branch of each step)."""
    model, schedule = browser_model(name)
    primary, secondary = patch["primary"][None], patch["secondary"][None]
    size, branches, last = primary.shape[-1], [], []

    def denoiser(xt, t):
        output = model(xt, t, primary, secondary)
        chosen = "multi" if output.confidence >= choice["gamma"] else "uni"
        branches.append({"damm": chosen, "pixel": "both"}.get(choice["gate"], choice["gate"]))
        uni, multi = (model.prediction.to_x0(schedule, xt, x, t) for x in (output.uni, output.multi))
        last[:] = [uni, multi, output.confidence_map]
        u = upsample(output.confidence_map[:, None], 4)
        share = u**2 / (u**2 + (1 - u) ** 2)
        return {"uni": uni, "multi": multi, "both": share * multi + (1 - share) * uni}[branches[-1]].clamp(-1, 1)

    with torch.inference_mode():
        x0 = dl.ddim_sampler(denoiser, schedule, torch.tensor(noise).view(1, 1, size, size), NUM_STEPS)
    return x0, last, branches


@pytest.mark.parametrize(
    "name, choice, kind",
    [
        ("tumour-64", PAPER, "none"),
        ("tumour-64", PAPER, "section"),
        ("study-ours", {"gate": "pixel", "gamma": 0.5}, "dropout"),
        ("study-ours-addition", {"gate": "multi", "gamma": 0.5}, "shift"),
        ("study-ours-query-head", {"gate": "damm", "gamma": 0.4}, "section"),
        ("study-ours-query-head", {"gate": "uni", "gamma": 0.5}, "none"),
    ],
)
def test_the_page_computes_what_pytorch_computes(page, name, choice, kind):
    patch = next(p for p in dl.SyntheticTumours(n=40, size=SIZE[name], seed=7) if p["kind"] == kind)
    images = [patch[stain].flatten().tolist() for stain in ("primary", "secondary")]
    found = page.evaluate(DENOISE, [name, choice, *images, 3])
    noise = np.float32(found["noise"])
    assert max(abs(noise.mean()), abs(noise.std() - 1)) < 3.2 / SIZE[name]  # 0.05 at 64 pixels, of so many numbers

    x0, estimates, branches = in_pytorch(patch, noise, name, choice)
    assert [step["branch"] for step in found["steps"]] == branches
    last = found["steps"][-1]
    for part, expected in zip(("x0", "uni", "multi", "map"), (x0, *estimates), strict=True):
        assert np.abs(np.array(last[part]) - expected.flatten().numpy()).max() < 1e-4, part


@pytest.mark.parametrize("name", SIZE)
def test_rounded_weights_predict_as_well(name):
    batch = dl.stack(dl.SyntheticTumours(n=4, size=SIZE[name], seed=7))
    scores = [
        dl.evaluate(dl.predict(model, schedule, batch["primary"], batch["secondary"], num_steps=5).x0, batch["target"])
        for model, schedule in (browser_model(name), dl.load_pretrained(name))
    ]
    assert scores[0]["ssim"] == pytest.approx(scores[1]["ssim"], abs=1e-3)


def test_less_than_six_megabytes_cross_the_network_and_the_button_says_how_many(page):
    runtime = SCRIPTS / "onnxruntime-web" / "dist"

    def megabytes(*folders):
        return sum(len(gzip.compress(file.read_bytes())) for folder in folders for file in folder.iterdir()) / 1e6

    sizes = [megabytes(FOLDER / name) for name in SIZE]
    assert megabytes(runtime) + max(sizes) < 6
    expected = megabytes(runtime) + sizes[0]
    assert page.locator("button[name=run]").inner_text() == f"Load the network ({expected:.0f} MB) and denoise"
    assert "const megabytes = this.ort ? 2 : 5;" in (FOLDER / "playground.js").read_text()
    assert all(1.5 < size < 2.5 for size in sizes)


def test_what_the_page_loads_by_itself_is_small():
    files = [FOLDER.parent / "playground.html", *filter(Path.is_file, FOLDER.iterdir())]
    assert sum(file.stat().st_size for file in files) < 300e3


def test_nothing_is_loaded_before_the_click(page):
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any("playground.json" in name for name in loaded)
    assert not any(name.endswith((".onnx", ".wasm")) for name in loaded)


# Of a tissue that the page offers: its vessels and nuclei, where these act, and the noise of each sample.
TISSUE = """async ([size, number, right, samples]) => {
    const base = new URL("playground/", document.baseURI);
    const { randomTissue } = await import(new URL("tissue.js", base));
    const { noise } = await import(new URL("random.js", base));
    const tissue = Object.assign(randomTissue(size, number), { shift: [right, 0] });
    const { primary, secondary, acting } = tissue.images();
    const noises = Array.from({ length: samples }, (_, k) => [...noise(k + 1, size ** 2)]);
    return [[...primary], [...secondary], [...acting], ...noises];
}"""


def tissue(page, number, right=0, size=64):
    """(vessels, nuclei, moved by `right` pixels, acting nuclei), each (H, W) in [-1, 1], and noises (4, H, W)."""
    found = page.evaluate(TISSUE, [size, number, right, NUM_DRAWS])
    vessels, nuclei, acting, *noises = np.float32(found).reshape(-1, size, size)
    return vessels, nuclei, acting, np.stack(noises)


def stored(size=64):
    """The true maps (T, H, W) and the exact draws (T, D, H, W), in [0, 1]."""
    maps = np.frombuffer((FOLDER / f"draws-{size}.bin").read_bytes(), np.uint8) / 255
    maps = maps.reshape(NUM_TISSUES, NUM_DRAWS + 1, size, size)
    return maps[:, 0], maps[:, 1:]


def number_in(page, selector):
    return float(re.search(r"\d\.\d+", page.locator(selector).inner_text())[0])


@pytest.mark.parametrize("size", [64, 32])
def test_the_true_maps_are_those_of_the_tissues(page, size):
    truths, _ = stored(size)
    for number, truth in enumerate(truths, start=1):
        vessels, _, acting, _ = tissue(page, number, size=size)
        expected = simulate_nanoparticles((vessels + 1) / 2, (acting + 1) / 2)
        assert np.abs(truth - expected).max() < 1 / 255
        if size == 32:  # what assignment A5 is graded on
            for channel, image in (("CD31", (vessels + 1) / 2), ("DAPI", (acting + 1) / 2), ("QD", expected)):
                kept = dl.tumours.read_channel(
                    dl.fetch("playground_tissues") / channel / f"{number:05d}.tif", channel, 2.0
                )
                np.testing.assert_allclose(kept, image, atol=1e-4)


def test_the_draws_are_draws_for_the_vessels(page):
    """They lie about the mean of many others as far as those do, and further from that of other vessels."""
    _, draws = stored()
    for number in (1, NUM_TISSUES):
        vessels = (tissue(page, number)[0] + 1) / 2
        rng = np.random.default_rng(number)
        others = np.stack([simulate_nanoparticles(vessels, simulate_nuclei(rng, vessels)) for _ in range(32)])

        usual, found, elsewhere = (
            np.sqrt(((maps - others.mean(axis=0)) ** 2).mean(axis=(1, 2)))
            for maps in (others, draws[number - 1], draws[number % NUM_TISSUES])
        )
        assert 0.6 * usual.min() < found.min() and found.max() < 1.5 * usual.max() < elsewhere.min()
        first, *rest = draws[number - 1]
        assert all(np.abs(first - other).mean() > 0.01 for other in rest)


def test_the_draws_of_each_tissue_are_shown_until_its_vessels_change(page):
    shown = page.locator("[data-row=draws] .playground-panels")
    seen = {picture(page, "[data-panel=draw1] canvas")}
    spreads = stored()[1].std(axis=1, ddof=1).mean(axis=(1, 2)) * 2  # of images in [-1, 1]
    for expected in (*spreads[1:], spreads[0]):
        page.click("button[name=fresh]")
        seen.add(picture(page, "[data-panel=draw1] canvas"))
        assert shown.is_visible() and page.locator("[data-panel=truth]").is_visible()
        assert number_in(page, "[data-panel=drawSpread]") == pytest.approx(expected, abs=6e-4)
    assert len(seen) == NUM_TISSUES, "the first tissue comes again after the last"
    page.focus("input[name=right]")
    page.keyboard.press("ArrowRight")
    assert page.locator("[data-panel=truth]").is_visible(), "nuclei that are imaged elsewhere act where they were"
    page.check("input[value=place]")
    page.focus(".playground-tissue")
    for key in (" ", *["ArrowUp", "ArrowLeft"] * 8, " "):
        page.keyboard.press(key)
    assert shown.is_visible() and page.locator("[data-panel=truth]").is_hidden()
    page.click("button[name=clear]")
    assert shown.is_hidden() and page.locator("text=The simulator has not seen these vessels").is_visible()


@pytest.mark.parametrize("width, smallest, columns", [(1280, 160, 4), (360, 140, 2)])
def test_images_are_large_enough_to_see(page, width, smallest, columns):
    page.set_viewport_size({"width": width, "height": 800})
    boxes = [canvas.bounding_box() for canvas in page.locator("[data-row=samples] canvas").all()]
    assert len(boxes) == NUM_DRAWS + 2 and all(box["width"] >= smallest for box in boxes)
    assert len({round(box["x"]) for box in boxes}) == columns
    assert all(box["width"] == pytest.approx(box["height"]) for box in boxes)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 360])
def test_the_room_kept_for_the_figure_is_about_its_size(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    figure = page.locator("#playground-figure")
    kept = float(figure.evaluate("(figure) => getComputedStyle(figure).minHeight").removesuffix("px"))
    figure.evaluate("(figure) => { figure.style.minHeight = 0; }")
    assert 0.9 * kept < figure.bounding_box()["height"] < 1.05 * kept


def picture(page, selector):
    return page.locator(selector).evaluate("(canvas) => canvas.toDataURL()")


def test_it_denoises_on_request(page):
    """Four samples with misplaced nuclei, of whose doubt the page says what PyTorch does; all of it accessible."""
    page.focus("input[name=right]")
    page.keyboard.press("End")
    page.click("button[name=run]")
    page.wait_for_selector("text=/Done in .* 4 samples/", timeout=300_000)
    assert "Sample 4 of 4, step 20 of 20" in page.locator(".playground-step").inner_text()
    assert page.locator("figure.chosen").count() == 1 and page.locator("figure.stale").count() == 0
    panels = ["xt", "uni", "multi", "map", "x0"]
    assert len({picture(page, f"[data-panel={name}] canvas") for name in panels}) >= 4
    samples = [picture(page, f"[data-panel=sample{k}] canvas") for k in (1, 2, 3, 4)]
    assert len(set(samples)) == 4 and samples[0] == picture(page, "[data-panel=x0] canvas")

    vessels, nuclei, _, noises = tissue(page, 1, right=20)
    patch = {"primary": torch.tensor(vessels)[None], "secondary": torch.tensor(nuclei)[None]}
    runs = [in_pytorch(patch, noise) for noise in noises]
    expected = torch.stack([x0 for x0, _, _ in runs]).std(dim=0).mean()
    assert number_in(page, "[data-panel=sampleSpread]") == pytest.approx(float(expected), abs=6e-4)
    trusting = sum(branches[-1] == "multi" for *_, branches in runs)
    assert f"of which {trusting} end with the multi-modal branch" in page.locator(".playground-status").inner_text()
    for theme in ("dark", "light"):
        page.evaluate(SET_THEME, theme)
        assert violations(page) == []


def test_mean_and_spread_are_those_of_numpy(page):
    images = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    found = page.evaluate(
        """async (images) => {
            const { mean, spread } = await import(new URL("playground/panels.js", document.baseURI));
            const arrays = images.map((image) => Float32Array.from(image));
            return [[...mean(arrays)], [...spread(arrays)]];
        }""",
        images.tolist(),
    )
    np.testing.assert_allclose(found, [images.mean(axis=0), images.std(axis=0, ddof=1)], rtol=1e-5, atol=1e-6)


def test_every_tool_answers_to_the_keyboard(page):
    page.click("button[name=clear]")
    tissue, empty = ".playground-tissue", picture(page, ".playground-tissue")
    seen = [empty]
    for tool in ("draw", "move", "place", "erase"):
        page.focus(f"input[value={tool}]")
        page.keyboard.press(" ")
        page.focus(tissue)
        for key in [" ", *["ArrowRight"] * 4, " "]:
            page.keyboard.press(key)
        page.locator(tissue).blur()
        seen.append(picture(page, tissue))
    assert all(before != after for before, after in pairwise(seen))


def test_every_tool_answers_to_the_pointer(page):
    page.click("button[name=clear]")
    box = page.locator(".playground-tissue").bounding_box()
    seen = [picture(page, ".playground-tissue")]
    for tool in ("draw", "move", "place", "erase"):
        page.check(f"input[value={tool}]")
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6, steps=6)
        page.mouse.up()
        seen.append(picture(page, ".playground-tissue"))
    assert all(before != after for before, after in pairwise(seen))


def test_misregistration_moves_the_nuclei(page):
    before = picture(page, ".playground-tissue")
    page.focus("input[name=right]")
    page.keyboard.press("ArrowRight")
    assert page.locator("output[name=rightText]").inner_text() == "2 µm"
    assert picture(page, ".playground-tissue") != before


def test_a_browser_without_webassembly_is_told(browser, site):
    page = browser.new_page()
    page.route(ELSEWHERE, lambda route: answer(route, []))
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(f"{site}/playground.html")
    page.wait_for_selector("text=This browser has no WebAssembly")
    page.close()


def test_a_broken_network_is_told(browser, tmp_path):
    """The negative control of the runs above: with a part of the network missing, nothing is denoised."""
    shutil.copytree(FOLDER, tmp_path / "playground")
    for name in ("playground.html", "_static"):
        (tmp_path / name).symlink_to(HTML / name)
    (tmp_path / "playground" / "tumour-64" / "encode.onnx").write_bytes(b"no network")
    with served(tmp_path) as address:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.route(ELSEWHERE, lambda route: answer(route, []))
        page.goto(f"{address}/playground.html")
        page.click("button[name=run]")
        page.wait_for_selector("text=The network could not run here")
        assert page.locator("figure.chosen").count() == 0
        page.close()


def measured(page, network, gate, right=0, noise=1):
    """Measure a setting; what the page then says."""
    page.select_option("select[name=network]", network)
    page.wait_for_function("(name) => document.querySelector('select[name=network]').value === name", arg=network)
    page.select_option("select[name=gate]", gate)
    page.locator("input[name=right]").fill(str(right))
    page.locator("input[name=noise]").fill(str(noise))
    page.locator(".playground-measuring").evaluate("(said) => { said.textContent = ''; }")
    page.click("button[name=measure]")
    page.wait_for_selector(".playground-measuring:text('Error')", timeout=300_000)
    return page.locator(".playground-measuring").inner_text()


def test_it_measures_all_tissues_and_saves_a_hand_in(page, tmp_path):
    """One setting, with two noises, beside PyTorch; the notebook holds it with its band."""
    said = measured(page, "study-ours", "multi", right=12)
    measured(page, "study-ours", "multi", right=12, noise=2)
    errors, c = [], []
    for number in range(1, NUM_TISSUES + 1):
        vessels, nuclei, acting, noises = tissue(page, number, right=6, size=32)
        truth = 2 * simulate_nanoparticles((vessels + 1) / 2, (acting + 1) / 2) - 1
        patch = {"primary": torch.tensor(vessels)[None], "secondary": torch.tensor(nuclei)[None]}
        choice = {"gate": "multi", "gamma": 0.5}
        runs = [in_pytorch(patch, noise, "study-ours", choice) for noise in noises]
        mean = torch.stack([x0 for x0, *_ in runs]).mean(dim=0)[0, 0]
        errors.append((mean - torch.tensor(truth)).abs().mean())
        c += [estimates[-1].mean() for _, estimates, _ in runs]
    found = [float(number) for number in re.findall(r"\d\.\d+", said)]
    assert found == pytest.approx([np.mean(errors), np.mean(c)], abs=6e-3)
    assert found[0] == pytest.approx(np.mean(errors), abs=2e-3)  # maps are stored in 8 bits

    cells = page.locator("[data-row=ablation] tbody td").all_inner_texts()
    assert cells[:4] == ["study-ours", "multi", "12", "1, 2"]
    both = [float(number) for number in re.findall(r"\d\.\d+", cells[5])]  # mean, lowest, highest
    assert both[0] == pytest.approx(sum(both[1:]) / 2, abs=1e-4) and found[0] in both[1:]
    for end, value in (("from", "0.05"), ("to", "0.06")):
        page.fill(f"input[aria-label='band of setting 1, {end}']", value)
    page.fill("textarea[name=words]", "It misleads.")
    assert violations(page) == []
    with page.expect_download() as download:
        page.click("button[name=save]")
    assert download.value.suggested_filename == "a5_ablation_in_the_page.ipynb"
    download.value.save_as(tmp_path / "handed_in.ipynb")
    said = page.locator(".playground-measuring").inner_text()
    assert said.startswith("Saved, with 1 settings.") and said.endswith("wider than 0.04: 0.")
    notebook = nbformat.read(tmp_path / "handed_in.ipynb", as_version=4)
    nbformat.validate(notebook)
    given = {}
    exec(notebook.cells[1].source, given)
    expected = dict(network="study-ours", gate="multi", right=12, low=0.05, high=0.06)
    assert given["answers"] == [expected] and "It misleads." in notebook.cells[2].source


def test_what_else_is_begun_ends_a_measurement(page):
    page.select_option("select[name=network]", "study-ours")
    page.click("button[name=measure]")
    page.wait_for_selector("text=/Tissue 2 of 8/", timeout=120_000)
    page.click("button[name=fresh]")
    page.wait_for_selector("text=Something else was begun: not measured.")
    assert page.locator("[data-row=ablation] tbody tr").count() == 0
