"""Make what the site shows of itself, in book/_static: python tools/make_site_images.py

The moving strip of the landing page (denoising.webp, and denoising.png for readers who want no motion), the card
that other sites show for a link (card.png), and the icon of the browser's tab (favicon.png).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageChops, ImageColor, ImageDraw

import damm_lite as dl
from damm_lite.plotting import COLOURMAPS, COLOURS, show_image

OUT = Path(__file__).resolve().parents[1] / "book" / "_static"
NUM_STEPS = 20
SHOWN = (0, 8, 12, 14, 15, 16, 17, 18, 19, 20)  # steps of the strip: most happens at the end
STEP_MS, FIRST_MS, GAP = 250, 800, 4  # the strip moves for 3 s, once; pixels between its tiles
CARD_STEPS = (0, 12, 16, 18, 20)


@torch.inference_mode()
def trajectory(model, schedule, batch, num_steps, seed=0):
    """The images (B, 1, H, W) of the reverse process, from the noise to the prediction: num_steps + 1 of them."""
    gate, path = dl.DAMMP(), []

    def denoiser(xt, t):
        path.append(xt)
        decision = gate(model, model.encode(xt, t, batch["primary"], batch["secondary"]))
        return model.objective.to_eps(schedule, xt, decision.output, t)

    noise = torch.randn(batch["primary"].shape, generator=torch.Generator().manual_seed(seed))
    path.append(dl.ddim_sampler(denoiser, schedule, noise, num_steps))
    return path


def tiles(images, role):
    """Images (B, 1, H, W) in [-1, 1] in the colours of their role, side by side on white: (H, W', 3), uint8."""
    images = images[:, 0].clamp(-1, 1).add(1).div(2).numpy()
    coloured = plt.get_cmap(COLOURMAPS[role])(images, bytes=True)[..., :3]
    spaced = np.pad(coloured, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(spaced), axis=1)[:, :-GAP]


def strip(batch, path):
    """The frames of the moving strip: vessels and nuclei above, which stay, and the noisy image that clears below."""
    still = [tiles(batch["primary"], "primary"), tiles(batch["secondary"], "secondary")]
    between = np.full((GAP, still[0].shape[1], 3), 255, np.uint8)
    rows = [(still[0], between, still[1], between, tiles(path[step], "target")) for step in SHOWN]
    return [Image.fromarray(np.concatenate(parts)) for parts in rows]


def card(batch, path):
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


def favicon(side=64, finer=8):
    """Vessels and nuclei as two discs; where they overlap, the nanoparticles."""
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


def make(out):
    model, schedule = dl.load_pretrained("tumour-64")
    batch = dl.stack(dl.SyntheticTumours(n=6, size=64, seed=7))
    path = trajectory(dl.for_inference(model), schedule, batch, NUM_STEPS)
    frames = strip(batch, path)
    durations = [FIRST_MS] + [STEP_MS] * (len(frames) - 1)
    # Once, and then still: nobody has to stop it.
    frames[0].save(out / "denoising.webp", save_all=True, append_images=frames[1:], duration=durations, loop=1,
                   lossless=True, quality=50, method=4)  # fmt: skip
    frames[-1].save(out / "denoising.png", optimize=True)
    card(batch, path).save(out / "card.png", optimize=True)
    favicon().save(out / "favicon.png", optimize=True)


if __name__ == "__main__":
    make(OUT)
