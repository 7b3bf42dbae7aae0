"""What the site shows of itself elsewhere: a card and a description for every link, an icon, a moving strip."""

from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageSequence

import make_figures
from links_from_elsewhere import address_of

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
PAGES = sorted(path.stem for path in (ROOT / "book").glob("*") if path.suffix in (".md", ".ipynb"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    make_figures.make(folder)
    return folder


def frames(path):
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGBA"), float) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize("name", ["denoising.webp", "denoising.png", "card.png", "favicon.png", "prediction.png"])
def test_images_are_what_the_tool_makes(made, name):
    shipped = make_figures.OUT / name
    # Not to the bit: a processor may sum in another order, and a pixel of noise take the next colour.
    assert np.abs(frames(made / name) - frames(shipped)).mean() < 0.5
    assert shipped.stat().st_size < 300e3


def test_another_noise_would_be_noticed():
    first, *_, last = frames(make_figures.OUT / "denoising.webp")
    assert np.abs(np.roll(first, 1, axis=1) - first).mean() > 20 and np.abs(first - last).mean() > 10


def test_the_strip_clears_up_once_and_then_rests():
    with Image.open(make_figures.OUT / "denoising.webp") as strip:
        assert strip.info["loop"] == 1
        shown = [frame.copy().info["duration"] for frame in ImageSequence.Iterator(strip)]
    assert len(shown) == len(make_figures.SHOWN) and sum(shown) < 5000  # WCAG 2.2.2
    moving, resting = frames(make_figures.OUT / "denoising.webp"), frames(make_figures.OUT / "denoising.png")
    assert np.array_equal(moving[-1:], resting)
    height = moving.shape[1] // 3
    assert np.array_equal(*(moving[[0, -1], : 2 * height])), "vessels and nuclei stay"
    rough = [np.abs(np.diff(frame[-height:, :, :3], axis=1)).mean() for frame in moving]
    assert rough[0] > 4 * rough[-1] and rough == sorted(rough, reverse=True)


def test_the_address_follows_the_repository():
    assert address_of("https://github.com/Prof/course") == "https://prof.github.io/course/"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_has_a_card(name):
    if not (HTML / f"{name}.html").is_file():
        pytest.skip(f"no built {name}.html; run `make book` first")
    page = BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")
    told = {tag["property"]: tag["content"] for tag in page.find_all("meta", property=True)}
    site = told["og:url"].removesuffix(f"{name}.html")
    assert site.startswith("https://") and page.find("link", rel="canonical")["href"] == told["og:url"]
    assert (HTML / told["og:image"].removeprefix(site)).is_file()
    assert (HTML / page.find("link", rel="icon")["href"]).is_file()
    assert told["og:title"] and len(told["og:image:alt"]) > 30
    (description,) = page.find_all("meta", attrs={"name": "description"})
    assert description["content"] == told["og:description"] and "Open in Colab" not in description["content"]
