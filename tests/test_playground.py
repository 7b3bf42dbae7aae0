"""The network in the page: it says what PyTorch says, and answers to mouse and keyboard."""

import gzip
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

import damm_lite as dl
from browser import ELSEWHERE, HTML, SCRIPTS, answer, chromium, served
from export_onnx import NUM_STEPS, SIZE, browser_model

FOLDER = HTML / "playground"
DENOISE = """async ([primary, secondary, seed]) => {
    const base = new URL("playground/", document.baseURI);
    const { denoise, loadNetwork, loadRuntime } = await import(new URL("denoise.js", base));
    const { noise } = await import(new URL("random.js", base));
    const settings = await (await fetch(new URL("playground.json", base))).json();
    const { runtime } = document.querySelector("script[data-runtime]").dataset;
    const network = await loadNetwork(await loadRuntime(new URL(runtime, document.baseURI).href), base);
    const first = noise(seed, settings.size ** 2);
    const steps = [];
    const images = [primary, secondary].map((image) => Float32Array.from(image));
    for await (const step of denoise(network, settings, ...images, first)) {
        const { uni, multi, map, branch, x0 } = step;
        steps.push({ uni: [...uni], multi: [...multi], map: [...map], branch, x0: [...x0] });
    }
    return { noise: [...first], steps };
}"""


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


def in_pytorch(patch, noise):
    """The same run in PyTorch: (x0, the last step's `DAMMOutput`, the branch of each step)."""
    model, schedule = browser_model()
    primary, secondary = patch["primary"][None], patch["secondary"][None]
    branches, last = [], []

    def denoiser(xt, t):
        output = model(xt, t, primary, secondary)
        branches.append("multi" if output.confidence >= 0.5 else "uni")
        last[:] = [output]
        return model.prediction.to_x0(schedule, xt, getattr(output, branches[-1]), t).clamp(-1, 1)

    with torch.inference_mode():
        x0 = dl.ddim_sampler(denoiser, schedule, torch.tensor(noise).view(1, 1, SIZE, SIZE), NUM_STEPS)
    return x0, last[0], branches


@pytest.mark.parametrize("kind", ["none", "section"])
def test_the_page_computes_what_pytorch_computes(page, kind):
    patch = next(p for p in dl.SyntheticTumours(n=40, size=SIZE, seed=7) if p["kind"] == kind)
    images = [patch[name].flatten().tolist() for name in ("primary", "secondary")]
    found = page.evaluate(DENOISE, [*images, 3])
    noise = np.float32(found["noise"])
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05

    x0, output, branches = in_pytorch(patch, noise)
    assert [step["branch"] for step in found["steps"]] == branches
    last = found["steps"][-1]
    for name, expected in (("x0", x0), ("uni", output.uni), ("multi", output.multi), ("map", output.confidence_map)):
        assert np.abs(np.array(last[name]) - expected.flatten().numpy()).max() < 1e-4, name


def test_rounded_weights_predict_as_well():
    batch = dl.stack(dl.SyntheticTumours(n=4, size=SIZE, seed=7))
    scores = [
        dl.evaluate(dl.predict(model, schedule, batch["primary"], batch["secondary"], num_steps=5).x0, batch["target"])
        for model, schedule in (browser_model(), dl.load_pretrained("tumour-64"))
    ]
    assert scores[0]["ssim"] == pytest.approx(scores[1]["ssim"], abs=1e-3)


def test_less_than_six_megabytes_cross_the_network_and_the_button_says_how_many():
    runtime = SCRIPTS / "onnxruntime-web" / "dist"
    files = [*runtime.iterdir(), *FOLDER.iterdir()]
    size = sum(len(gzip.compress(file.read_bytes())) for file in files)
    assert size < 6e6
    assert f"Load the network ({size / 1e6:.0f} MB)" in (FOLDER / "playground.js").read_text()


def test_nothing_is_loaded_before_the_click(page):
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any("playground.json" in name for name in loaded)
    assert not any(name.endswith((".onnx", ".wasm")) for name in loaded)


def picture(page, selector):
    return page.locator(selector).evaluate("(canvas) => canvas.toDataURL()")


def test_it_denoises_on_request(page):
    page.click("button[name=run]")
    page.wait_for_selector("text=/Step 20 of 20.*Done/")
    assert page.locator("figure.chosen").count() == 1
    panels = ["xt", "uni", "multi", "map", "x0"]
    assert len({picture(page, f"[data-panel={name}] canvas") for name in panels}) >= 4


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
    (tmp_path / "playground" / "encode.onnx").write_bytes(b"no network")
    with served(tmp_path) as address:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.route(ELSEWHERE, lambda route: answer(route, []))
        page.goto(f"{address}/playground.html")
        page.click("button[name=run]")
        page.wait_for_selector("text=The network could not run here")
        assert page.locator("figure.chosen").count() == 0
        page.close()
