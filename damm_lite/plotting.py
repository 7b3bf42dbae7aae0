"""Figures in one look: vessels green, nuclei blue, nanoparticles magma, confidence viridis."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

# Ramps of one hue, dark to light, so that brightness alone already tells the value.
_VESSELS = LinearSegmentedColormap.from_list("vessels", ["#00140a", "#00441b", "#238b45", "#74c476", "#a1d99b"])
_NUCLEI = LinearSegmentedColormap.from_list("nuclei", ["#020a1c", "#08306b", "#2171b5", "#6baed6", "#c6dbef"])

COLOURS = {"primary": "#238b45", "secondary": "#2171b5", "target": "#b63679", "confidence": "#21918c"}
COLOURMAPS = {"primary": _VESSELS, "secondary": _NUCLEI, "target": "magma", "confidence": "viridis"}
NAMES = {"primary": "vessels", "secondary": "nuclei", "target": "nanoparticles", "confidence": "confidence"}


def show_image(ax, image, role, *, title="", pixel=2.0, bar=0, limits=None):
    """Draw one image (H, W), (1, H, W) or a tensor, in the colours of its `role`.

    `role` is "primary", "secondary", "target" (in [-1, 1]) or "confidence" (in [0, 1]);
    `bar` > 0 adds a scale bar of that many µm for pixels of `pixel` µm. Returns the artist.
    """
    image = np.asarray(image, dtype=float).squeeze()
    low, high = limits or ((0, 1) if role == "confidence" else (-1, 1))
    artist = ax.imshow(image, cmap=COLOURMAPS[role], vmin=low, vmax=high, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    if bar:
        scale = AnchoredSizeBar(
            ax.transData, bar / pixel, f"{bar:g} µm", "lower right", borderpad=0.6, sep=3, color="white",
            frameon=True, size_vertical=image.shape[0] / 80, fontproperties={"size": 8},
        )  # fmt: skip
        scale.patch.set(facecolor="black", alpha=0.5, linewidth=0)
        ax.add_artist(scale)
    return artist


def image_grid(rows, *, row_names=(), column_names=(), pixel=2.0, bar=0, width=1.7):
    """A grid of images; `rows` is a list of (role, images). Returns the figure."""
    columns = max(len(images) for _, images in rows)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(width * columns, width * len(rows) + 0.3),
        squeeze=False, facecolor="white", layout="constrained",
    )  # fmt: skip
    for r, (role, images) in enumerate(rows):
        for c in range(columns):
            if c >= len(images):
                axes[r, c].set_axis_off()
                continue
            title = column_names[c] if r == 0 and column_names else ""
            show_image(axes[r, c], images[c], role, title=title, pixel=pixel, bar=0 if r or c else bar)
        if row_names:
            axes[r, 0].set_ylabel(row_names[r], fontsize=10)
    return figure


def show_batch(batch, result=None, *, n=8, pixel=2.0):
    """The first `n` patches of a batch, with a prediction and its confidence map where given."""
    n = min(n, len(batch["target"]))
    rows = [(role, batch[role][:n, :1]) for role in ("primary", "secondary", "target")]
    names = [NAMES["primary"], NAMES["secondary"], NAMES["target"]]
    columns = list(batch.get("kind", []))[:n]
    if result is not None:
        rows += [("target", result.x0[:n]), ("confidence", result.confidence_map[:n])]
        names += ["prediction", NAMES["confidence"]]
        columns = [f"{kind}\n{branch}, c = {c:.2f}".strip() for kind, branch, c in
                   zip(columns or [""] * n, result.branch, result.confidence.tolist(), strict=False)]  # fmt: skip
    return image_grid(rows, row_names=names, column_names=columns, pixel=pixel, bar=50, width=1.4)


def to_frames(figures):
    """Turn figures into PNG bytes and close them, for `widgets.slider_of_frames`."""
    from io import BytesIO

    frames = []
    for figure in figures:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
        plt.close(figure)
        frames.append(buffer.getvalue())
    return frames
