"""Draw book/_static/network.svg, the network and one patch on its way through: python tools/make_network_figure.py"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

import damm_lite as dl
from damm_lite.plotting import COLOURMAPS, COLOURS

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "network.svg"
HEIGHTS = (2.0, 2.0, 2.0, 1.4, 1.4, 1.4, 0.9, 0.9, 0.9)  # of the nine features: full, half and quarter resolution
UNI, MULTI = 5.2, 0.0  # where the branches lie
INK = "#333333"


def thumbnail(axis, image, role, x, y, label, side=2.0):
    """An image (1, H, W) around (x, y) with its name below."""
    low = 0 if role == "confidence" else -1
    box = (x - side / 2, x + side / 2, y - side / 2, y + side / 2)
    axis.imshow(image.squeeze(), cmap=COLOURMAPS[role], vmin=low, vmax=1, extent=box, origin="upper", zorder=3)
    axis.text(x, y - side / 2 - 0.15, label, ha="center", va="top", fontsize=9, color=INK)


def arrow(axis, start, end, colour=INK, **style):
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=colour, shrinkA=0, shrinkB=0, **style)
    )


def u_net(axis, y, colour, name, above):
    """Nine features of an encoder from x = 3 to 8.2 and its decoder from 11.2 to 13.6, at height y."""
    for i, height in enumerate(HEIGHTS):
        axis.add_patch(Rectangle((3 + 0.6 * i, y - height / 2), 0.36, height, color=colour, alpha=0.85))
    for i, height in enumerate(HEIGHTS[::-3]):
        axis.add_patch(Rectangle((11.2 + 0.9 * i, y - height / 2), 0.6, height, color=colour, alpha=0.85))
    for x, part in ((5.6, f"{name}: encoder"), (12.4, "decoder")):
        axis.text(x, y + above, part, ha="center", va="center", fontsize=10, color=colour, weight="bold")
    arrow(axis, (2.2, y), (2.95, y))
    arrow(axis, (8.25, y), (11.1, y), zorder=1)
    arrow(axis, (13.7, y), (14.45, y))


def label(axis, x, y, text, width, colour):
    axis.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.35), width, 0.7, boxstyle="round,pad=0.08", color=colour, zorder=3)
    )
    axis.text(x, y, text, ha="center", va="center", color="white", fontsize=10, weight="bold", zorder=4)


def draw(images, uni, multi, result):
    figure, axis = plt.subplots(figsize=(11, 5.2), facecolor="white")
    u_net(axis, UNI, COLOURS["primary"], "uni-modal branch", above=1.4)
    u_net(axis, MULTI, COLOURS["secondary"], "multi-modal branch", above=-1.4)
    thumbnail(axis, images["primary"], "primary", 1.2, UNI, "vessels, and noisy $x_t$")
    thumbnail(axis, images["secondary"], "secondary", 1.2, MULTI, "nuclei, and noisy $x_t$")
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


def main():
    model, schedule = dl.load_pretrained("tumour-64")
    patch = dl.SyntheticTumours(n=8, size=64, seed=7)[0]
    images = {key: patch[key][None] for key in ("primary", "secondary")}
    uni, multi, result = (dl.predict(model, schedule, **images, branch=branch) for branch in ("uni", "multi", "damm"))
    plt.rcParams |= {"svg.hashsalt": "network", "svg.fonttype": "path"}
    with torch.inference_mode():
        draw(images, uni, multi, result).savefig(OUT, bbox_inches="tight", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
