"""Draw the figures that no chapter draws, in book/_static: python tools/make_figures.py

network.svg, the network and one patch on its way through; prediction.png, the figure of the README; the moving strip
of the landing page (denoising.webp, and denoising.png for readers who want no motion); the card that other sites show
for a link (card.png); and the icon of the browser's tab (favicon.png).
"""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image, ImageChops, ImageColor, ImageDraw

import damm_lite as dl
from damm_lite.predict import draw_sample
from damm_lite.teaching.plotting import COLOURMAPS, COLOURS, show_image

OUT = Path(__file__).resolve().parents[1] / "book" / "_static"
HEIGHTS = (2.0, 2.0, 2.0, 1.4, 1.4, 1.4, 0.9, 0.9, 0.9)  # of the nine features: full, half and quarter resolution
UNI, MULTI = 5.2, 0.0  # where the network's branches lie
INK = "#333333"
NUM_STEPS = 20
SHOWN = (0, 8, 12, 14, 15, 16, 17, 18, 19, 20)  # steps of the strip: most happens at the end
STEP_MS, FIRST_MS, GAP = 250, 800, 4  # the strip moves for 3 s, once; pixels between its tiles
CARD_STEPS = (0, 12, 16, 18, 20)


# --- The network


def thumbnail(axis: Axes, image: torch.Tensor, role: str, x: float, y: float, name: str, side: float = 2.0) -> None:
    """Draw an image (1, H, W) around (x, y) with its name below."""
    low = 0 if role == "confidence" else -1
    box = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
    axis.imshow(image.squeeze().numpy(), cmap=COLOURMAPS[role], vmin=low, vmax=1, extent=box, origin="upper", zorder=3)
    axis.text(x, y - side / 2 - 0.15, name, ha="center", va="top", fontsize=9, color=INK)


def arrow(axis: Axes, start: tuple, end: tuple, colour: str = INK, **style) -> None:
    """Draw an arrow from point to point; `style` is FancyArrowPatch's."""
    shape = dict(arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0)
    axis.add_patch(FancyArrowPatch(start, end, color=colour, **shape, **style))


def label(axis: Axes, x: float, y: float, text: str, width: float, colour: str) -> None:
    """Draw a box with a name around (x, y)."""
    box = dict(boxstyle="round,pad=0.08", color=colour, zorder=3)
    axis.add_patch(FancyBboxPatch((x - width / 2, y - 0.35), width, 0.7, **box))
    axis.text(x, y, text, ha="center", va="center", color="white", fontsize=10, weight="bold", zorder=4)


def branch(axis: Axes, y: float, colour: str, name: str, above: float) -> None:
    """Draw nine features of an encoder from x = 3 to 8.2 and its decoder from 11.2 to 13.6, at height y."""
    for i, height in enumerate(HEIGHTS):
        axis.add_patch(Rectangle((3 + 0.6 * i, y - height / 2), 0.36, height, color=colour, alpha=0.85))
    for i, height in enumerate(HEIGHTS[::-3]):
        axis.add_patch(Rectangle((11.2 + 0.9 * i, y - height / 2), 0.6, height, color=colour, alpha=0.85))
    for x, part in ((5.6, f"{name}: encoder"), (12.4, "decoder")):
        axis.text(x, y + above, part, ha="center", va="center", fontsize=10, color=colour, weight="bold")
    arrow(axis, (2.2, y), (2.95, y))
    arrow(axis, (8.25, y), (11.1, y), zorder=1)
    arrow(axis, (13.7, y), (14.45, y))


def network(patch: dict, uni: dl.Prediction, multi: dl.Prediction, result: dl.Prediction) -> Figure:
    """Both branches, their fusion and the gate, with what each says of a patch (images (1, 1, H, W))."""
    figure, axis = plt.subplots(figsize=(11, 5.2), facecolor="white")
    branch(axis, UNI, COLOURS["primary"], "uni-modal branch", above=1.4)
    branch(axis, MULTI, COLOURS["secondary"], "multi-modal branch", above=-1.4)
    thumbnail(axis, patch["primary"], "primary", 1.2, UNI, "vessels, and noisy $x_t$")
    thumbnail(axis, patch["secondary"], "secondary", 1.2, MULTI, "nuclei, and noisy $x_t$")
    for i, height in enumerate(HEIGHTS):
        x = 3.18 + 0.6 * i
        axis.plot((x, x), (UNI - height / 2, MULTI + height / 2), color="#999999", linewidth=1, zorder=0)
        axis.add_patch(Circle((x, 2.6), 0.2, color=COLOURS["target"], zorder=2))
    fused = dict(color=COLOURS["target"], weight="bold", backgroundcolor="white")
    axis.text(5.6, 3.3, "nine MMFMs fuse the streams", ha="center", va="center", fontsize=10, **fused)
    label(axis, 9.7, MULTI, "UAFM", 1.3, COLOURS["target"])
    thumbnail(axis, result.confidence_map, "confidence", 9.7, 2.9, "confidence $u$", side=1.5)
    arrow(axis, (8.25, UNI - 0.4), (8.85, 3.2), COLOURS["confidence"])
    arrow(axis, (8.25, MULTI + 0.4), (8.85, 2.7), COLOURS["confidence"])
    arrow(axis, (9.7, 1.2), (9.7, 0.5), COLOURS["confidence"])
    thumbnail(axis, uni.x0, "target", 15.6, UNI, "uni-modal $\\hat x_0$")
    thumbnail(axis, multi.x0, "target", 15.6, MULTI, "multi-modal $\\hat x_0$")
    arrow(axis, (10.5, 2.7), (14.65, 2.7), COLOURS["confidence"])
    axis.text(12.6, 2.85, "$c$, its mean: below $\\gamma$?", ha="center", va="bottom", fontsize=10, color=INK)
    label(axis, 15.6, 2.7, "DAMMP", 1.7, COLOURS["confidence"])
    for name, y, end, bend in (("uni", UNI, 3.75, -0.2), ("multi", MULTI, 1.25, 0.2)):
        line = "-" if result.branch == [name] else "--"
        arrow(axis, (16.75, y), (18.2, end), connectionstyle=f"arc3,rad={bend}", linestyle=line)
    thumbnail(axis, result.x0, "target", 18.4, 2.7, "prediction")
    axis.set(xlim=(0, 19.6), ylim=(-1.7, 7), aspect="equal")
    axis.set_axis_off()
    return figure


# --- The strip, the card and the icon


@torch.inference_mode()
def trajectory(model: dl.DAMMNet, schedule: dl.NoiseSchedule, batch: dict, seed: int = 0) -> list[torch.Tensor]:
    """The images (B, 1, H, W) of the reverse process, from the noise to the prediction: NUM_STEPS + 1 of them."""
    path, conditions = [], (batch["primary"], batch["secondary"])
    noise = torch.randn(batch["primary"].shape, generator=torch.Generator().manual_seed(seed))
    sampler = partial(dl.ddim_sampler, callback=lambda t, xt, x0: path.append(xt))
    x0, _ = draw_sample(dl.for_inference(model), schedule, conditions, noise, NUM_STEPS, dl.DAMMP(), sampler)
    return [*path, x0]


def tiles(images: torch.Tensor, role: str) -> np.ndarray:
    """Images (B, 1, H, W) in [-1, 1] in the colours of their role, side by side on white: (H, W', 3), uint8."""
    images = images[:, 0].clamp(-1, 1).add(1).div(2).numpy()
    coloured = plt.get_cmap(COLOURMAPS[role])(images, bytes=True)[..., :3]
    spaced = np.pad(coloured, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(spaced), axis=1)[:, :-GAP]


def strip(batch: dict, path: list[torch.Tensor]) -> list[Image.Image]:
    """The frames of the moving strip: vessels and nuclei above, which stay, and the noisy image that clears below."""
    still = [tiles(batch["primary"], "primary"), tiles(batch["secondary"], "secondary")]
    between = np.full((GAP, still[0].shape[1], 3), 255, np.uint8)
    rows = [(still[0], between, still[1], between, tiles(path[step], "target")) for step in SHOWN]
    return [Image.fromarray(np.concatenate(parts)) for parts in rows]


def card(batch: dict, path: list[torch.Tensor]) -> Image.Image:
    """1200 x 630 pixels, the size that sites ask for."""
    figure = plt.figure(figsize=(12, 6.3), facecolor="white")
    figure.text(0.05, 0.86, "DAMM-Diffusion, step by step", fontsize=44, weight="bold", va="center", color="#222222")
    told = "Where do nanoparticles end up in a tumour?\nA book in executable chapters, and a network to play with."
    figure.text(0.05, 0.67, told, fontsize=23, va="center", linespacing=1.5, color="#444444")
    shown = [(batch["primary"][0], "primary", "vessels"), (batch["secondary"][0], "secondary", "nuclei")]
    shown += [(path[step][0].clamp(-1, 1), "target", "") for step in CARD_STEPS]
    for i, (image, role, name) in enumerate(shown):
        axis = figure.add_axes((0.05 + 0.128 * i + 0.014 * (i > 1), 0.2, 0.12, 0.12 * 1200 / 630))
        show_image(axis, image, role)
        axis.text(0.5, -0.08, name, transform=axis.transAxes, ha="center", va="top", fontsize=18, color=COLOURS[role])
    below = dict(ha="center", va="top", fontsize=18, color=COLOURS["target"])
    figure.text(0.634, 0.182, "from noise to the nanoparticles", **below)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def favicon(side: int = 64, finer: int = 8) -> Image.Image:
    """Vessels and nuclei as two discs; where they overlap, the nanoparticles. `side` pixels, drawn `finer`."""
    discs = []
    for left in (0, 0.36):
        disc = Image.new("L", (side * finer, side * finer))
        box = [side * finer * x for x in (left, 0.18, left + 0.64, 0.82)]
        ImageDraw.Draw(disc).ellipse(box, fill=255)
        discs.append(disc)
    icon = Image.new("RGBA", discs[0].size)
    for role, where in zip(("primary", "secondary", "target"), [*discs, ImageChops.multiply(*discs)], strict=True):
        icon.paste((*ImageColor.getrgb(COLOURS[role]), 255), mask=where)
    return icon.resize((side, side), Image.Resampling.LANCZOS)


def make(out: Path) -> None:
    """Write all figures into the folder `out`."""
    model, schedule = dl.load_pretrained("tumour-64")
    batch = dl.stack(dl.SyntheticTumours(n=8, size=64, seed=7))
    result = dl.predict(model, schedule, batch["primary"], batch["secondary"])
    dl.show_batch(batch, result).savefig(
        out / "prediction.png", dpi=110, facecolor="white", metadata={"Software": None}
    )

    first = {role: batch[role][:1] for role in ("primary", "secondary")}
    predictions = (dl.predict(model, schedule, **first, gate=gate) for gate in ("uni", "multi", "damm"))
    with plt.rc_context({"svg.hashsalt": "network", "svg.fonttype": "path"}):
        svg = dict(bbox_inches="tight", metadata={"Date": None, "Creator": None})
        network(first, *predictions).savefig(out / "network.svg", **svg)

    six = next(dl.chunks(batch, 6))
    path = trajectory(model, schedule, six)
    frames = strip(six, path)
    durations = [FIRST_MS] + [STEP_MS] * (len(frames) - 1)
    # Once, and then still: nobody has to stop it.
    moving = dict(append_images=frames[1:], duration=durations, loop=1, lossless=True, quality=50, method=4)
    frames[0].save(out / "denoising.webp", save_all=True, **moving)
    frames[-1].save(out / "denoising.png", optimize=True)
    card(six, path).save(out / "card.png", optimize=True)
    favicon().save(out / "favicon.png", optimize=True)


if __name__ == "__main__":
    make(OUT)
