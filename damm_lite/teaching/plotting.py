"""Figures in one look: vessels green, nuclei blue, nanoparticles magma,
confidence viridis, MRI grey.
"""

import itertools
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from damm_lite.brains.volumes import planes
from damm_lite.predict import Prediction

# Ramps of one hue, dark to light, so that brightness alone already tells the
# value.
_VESSELS = LinearSegmentedColormap.from_list("vessels", ["#00140a", "#00441b", "#238b45", "#74c476", "#a1d99b"])
_NUCLEI = LinearSegmentedColormap.from_list("nuclei", ["#020a1c", "#08306b", "#2171b5", "#6baed6", "#c6dbef"])

COLOURS = {"primary": "#238b45", "secondary": "#2171b5", "target": "#b63679", "confidence": "#21918c"}
COLOURMAPS = {"primary": _VESSELS, "secondary": _NUCLEI, "target": "magma", "confidence": "viridis"}
COLOURMAPS |= {"mri": "gray", "error": "magma"}
NAMES = {"primary": "vessels", "secondary": "nuclei", "target": "nanoparticles", "confidence": "confidence"}


def show_image(
    ax: Axes,
    image: np.ndarray | torch.Tensor,
    role: str,
    *,
    title: str = "",
    pixel: float = 2.0,
    bar: float = 0,
    limits: tuple[float, float] | None = None,
    unit: str = "µm",
) -> AxesImage:
    """Draw one image (H, W), (1, H, W) or a tensor, in the colours of its
    `role`.

    `role` is "primary", "secondary", "target", "mri" (shown from -1 to 1),
    "confidence" or "error" (from 0 to 1); `limits` show other values. `bar` >
    0 adds a scale bar of that length; it and `pixel`, the side of a pixel, are
    in `unit`. Returns the artist.
    """
    image = image.numpy(force=True) if torch.is_tensor(image) else image
    image = np.asarray(image, dtype=float).squeeze()
    low, high = limits or ((0, 1) if role in ("confidence", "error") else (-1, 1))
    artist = ax.imshow(image, cmap=COLOURMAPS[role], vmin=low, vmax=high, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    if bar:
        scale = AnchoredSizeBar(
            ax.transData, bar / pixel, f"{bar:g} {unit}", "lower right", borderpad=0.6, sep=3, color="white",
            frameon=True, size_vertical=image.shape[0] / 80, fontproperties={"size": 8},
        )  # fmt: skip
        scale.patch.set(facecolor="black", alpha=0.5, linewidth=0)
        ax.add_artist(scale)
    return artist


def image_grid(
    rows: list[tuple[str, Sequence]],
    *,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    pixel: float = 2.0,
    bar: float = 0,
    width: float = 1.7,
    unit: str = "µm",
) -> Figure:
    """A grid of images; `rows` is a list of (role, images), see `show_image`,
    of which the first image gets the scale bar.

    `width` is that of an image in inches. Returns the figure.
    """
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
            show_image(axes[r, c], images[c], role, title=title, pixel=pixel, bar=0 if r or c else bar, unit=unit)
        if row_names:
            axes[r, 0].set_ylabel(row_names[r], fontsize=10)
    return figure


def show_batch(batch: dict, result: Prediction | None = None, *, n: int = 8, pixel: float = 2.0) -> Figure:
    """The first `n` patches of a batch, with a prediction and its confidence
    map where given; `pixel` in µm. Returns the figure.
    """
    n = min(n, len(batch["target"]))
    rows = [(role, batch[role][:n, :1]) for role in ("primary", "secondary", "target")]
    names = [NAMES["primary"], NAMES["secondary"], NAMES["target"]]
    columns = list(batch.get("kind", []))[:n]
    if result is not None:
        rows += [("target", result.x0[:n]), ("confidence", result.confidence_map[:n])]
        names += ["prediction", NAMES["confidence"]]
        found = zip(columns or [""] * n, result.branch, result.confidence.tolist(), strict=False)
        columns = [f"{kind}\n{branch}, c = {c:.2f}".strip() for kind, branch, c in found]
    return image_grid(rows, row_names=names, column_names=columns, pixel=pixel, bar=50, width=1.4)


def show_planes(
    columns: list[tuple], brain: np.ndarray, zooms: tuple[float, ...], at: tuple[int, ...], *, bar: float = 50
) -> Figure:
    """Axial, coronal and sagittal plane of several volumes (X, Y, Z) RAS, cut
    to the brain. Returns the figure.

    `columns` are (title, role, volume, limits or None), `brain` (X, Y, Z) is
    bool, `zooms` are the voxel's sides in mm, `at` is the voxel (x, y, z) in
    which the planes meet, `bar` is in mm.
    """
    box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(brain))
    place = [i - s.start for i, s in zip(at, box, strict=True)]
    x, y, z = (zoom * (s.stop - s.start) for zoom, s in zip(zooms, box, strict=True))  # mm
    width = 1.8 * len(columns)
    figure, axes = plt.subplots(
        3, len(columns), figsize=(width, 1.8 * (y + z + z) / y), height_ratios=[y, z, z],
        squeeze=False, facecolor="white", layout="constrained",
    )  # fmt: skip
    pixels = ((zooms[0], zooms[1]), (zooms[0], zooms[2]), (zooms[1], zooms[2]))  # width and height, mm
    for c, (title, role, volume, limits) in enumerate(columns):
        cuts = planes(np.asarray(volume)[box], place)
        for r, (cut, (across, down)) in enumerate(zip(cuts, pixels, strict=True)):
            with_bar = bar if r == c == 0 else 0
            title = "" if r else title
            show_image(axes[r, c], cut, role, title=title, pixel=across, bar=with_bar, limits=limits, unit="mm")
            axes[r, c].set_aspect(down / across)
    for axis, name in zip(axes[:, 0], ("axial", "coronal", "sagittal"), strict=True):
        axis.set_ylabel(name, fontsize=10)
    return figure


def to_frames(figures: Iterable[Figure]) -> list[bytes]:
    """Turn figures into PNG bytes and close them, for
    `widgets.slider_of_frames`.
    """
    from io import BytesIO

    frames = []
    for figure in figures:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
        plt.close(figure)
        frames.append(buffer.getvalue())
    return frames


def show_ablation(table: pd.DataFrame) -> Figure:
    """Mean SSIM of every level of an ablation: a point for each training seed,
    and a line at their mean. Returns the figure.

    `table` has a row for each patch and columns factor, level, seed, ssim, as
    `python -m damm_lite.experiments.ablate` writes it.
    """
    by_seed = table.groupby(["factor", "level", "seed"], sort=False)["ssim"].mean()
    by_level = dict(list(by_seed.groupby(["factor", "level"], sort=False)))
    figure, axis = plt.subplots(figsize=(6, 1.2 + 0.32 * len(by_level)), facecolor="white", layout="constrained")
    for y, scores in enumerate(by_level.values()):
        axis.plot(scores, np.full(len(scores), y), "o", color=COLOURS["target"], alpha=0.6)
        axis.plot(scores.mean(), y, "|", color="#444444", markersize=16)
    axis.set_yticks(range(len(by_level)), [": ".join(level) for level in by_level], fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="mean SSIM on held-out patches; one point a training seed")
    axis.grid(axis="x", alpha=0.3)
    return figure


def scaling_exponents(
    table: pd.DataFrame, columns: Sequence[str] = ("seconds", "multiply_adds", "memory")
) -> pd.DataFrame:
    """The exponents p of growth like size^p, from the second largest to the
    largest size.

    `table` has columns varied (what was varied), size, and those named in
    `columns`. Returns a row for each quantity that was varied.
    """
    largest = table.sort_values("size").groupby("varied", sort=False).tail(2).groupby("varied", sort=False)
    growth = np.log(largest[["size", *columns]].last() / largest[["size", *columns]].first())
    return growth[[*columns]].div(growth["size"], axis=0).reindex(table["varied"].unique())


def show_scaling(table: pd.DataFrame, expected: pd.DataFrame) -> Figure:
    """Seconds and memory over the size of what was varied, on logarithmic
    axes, beside lines of the expected slopes.

    `table` is as in `scaling_exponents`; `expected` has the expected exponents
    in the rows and columns of its result. Returns the figure.
    """
    rows = {"seconds": "seconds", "memory": "memory (GiB)"}
    figure, axes = plt.subplots(
        len(rows), len(expected), figsize=(2.8 * len(expected), 5), sharex="col", sharey="row", squeeze=False,
        facecolor="white", layout="constrained",
    )  # fmt: skip
    for (r, column), (c, varied) in itertools.product(enumerate(rows), enumerate(expected.index)):
        axis, part = axes[r, c], table[table["varied"] == varied].sort_values("size")
        sizes, exponent = part["size"].to_numpy(), expected.loc[varied, column]
        slope = (sizes / sizes[0]) ** exponent * part[column].iloc[0]
        axis.loglog(sizes, slope, "--", color="#777777", label=f"size$^{exponent}$")
        axis.loglog(sizes, part[column], "o-", color=COLOURS["target"], label="measured")
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        axes[-1, c].set_xlabel(varied)
        axes[r, 0].set_ylabel(rows[column])
    return figure
