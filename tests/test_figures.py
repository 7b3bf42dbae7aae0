"""Figures: every image in its colours and its place, and sliders that need no kernel."""

from base64 import b64encode

import matplotlib

matplotlib.use("Agg")
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from damm_lite.data import stack
from damm_lite.predict import Prediction
from damm_lite.teaching.plotting import (
    COLOURMAPS,
    image_grid,
    scaling_exponents,
    show_ablation,
    show_batch,
    show_image,
    show_planes,
    show_scaling,
    to_frames,
)
from damm_lite.teaching.widgets import slider_of_frames
from damm_lite.tumours.synthetic import SyntheticTumours


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_brightness_alone_tells_the_value():
    for name, colours in COLOURMAPS.items():
        rgb = plt.get_cmap(colours)(np.linspace(0, 1, 64))[:, :3]
        luminance = (rgb**2.2) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luminance) > -1e-3).all(), name


def test_an_image_is_drawn_as_it_is_with_a_scale_bar():
    image = torch.linspace(-1, 1, 32 * 48).view(1, 32, 48)
    artist = show_image(plt.figure().subplots(), image, "target", title="one", pixel=2.0, bar=20)
    assert np.array_equal(artist.get_array(), image[0].numpy()) and artist.get_clim() == (-1, 1)
    bar = artist.axes.artists[0]
    assert bar.size_bar.get_children()[0].get_width() == 10  # 20 µm of 2 µm pixels
    assert bar.txt_label.get_children()[0].get_text() == "20 µm"


def test_a_batch_with_its_prediction():
    batch = stack(SyntheticTumours(n=3, size=16, seed=0))
    maps = torch.rand(3, 4, 4)
    result = Prediction(batch["target"][None], ["uni", "multi", "uni"], maps.mean((1, 2)), maps)
    figure = show_batch(batch, result)
    axes = np.array(figure.axes).reshape(5, 3)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == [
        "vessels",
        "nuclei",
        "nanoparticles",
        "prediction",
        "confidence",
    ]
    assert axes[0, 1].get_title() == f"{batch['kind'][1]}\nmulti, c = {maps[1].mean():.2f}"
    assert np.allclose(axes[3, 2].images[0].get_array(), batch["target"][2, 0])
    assert np.allclose(axes[4, 2].images[0].get_array(), maps[2])
    assert len(show_batch(batch, n=2).axes) == 6


def test_rows_of_unequal_length():
    figure = image_grid([("target", np.zeros((3, 8, 8))), ("primary", np.zeros((1, 8, 8)))])
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 0, 0]


def test_slider_is_linked_in_the_page_and_every_frame_is_described():
    frames = to_frames(plt.figure(figsize=(1, 1)) for _ in range(3))
    assert all(frame.startswith(b"\x89PNG") for frame in frames) and not plt.get_fignums()
    slider, shown = slider_of_frames(frames, [0, 50, 100], "noise", alt="A patch.").children
    assert isinstance(slider, ipywidgets.IntSlider) and slider.max == 2
    for n, frame, image in zip((0, 50, 100), frames, shown.children, strict=True):
        assert f'alt="A patch. noise: {n}."' in image.value and b64encode(frame).decode() in image.value
    live = ipywidgets.widgets.widget._instances
    links = [w for w in live.values() if isinstance(w, ipywidgets.widgets.widget_link.Link)]
    assert any(w.source == (slider, "value") and w.target == (shown, "selected_index") for w in links)
    with pytest.raises(ValueError, match="as many frames as labels.*3 and 2"):
        slider_of_frames(frames, [0, 50], "noise", alt="A patch.")


def test_planes_of_a_volume_keep_their_proportions():
    volume, brain = np.random.default_rng(0).random((12, 10, 8)), np.zeros((12, 10, 8), bool)
    brain[2:10, 1:9, 2:6] = True
    columns = [("truth", "mri", volume, None), ("error", "error", volume, (0, 0.5))]
    figure = show_planes(columns, brain, (1.0, 2.0, 3.0), (4, 5, 3), bar=4)
    axes = np.array(figure.axes).reshape(3, 2)
    assert [axis.get_title() for axis in axes[:, 1]] == ["error", "", ""]
    assert [axis.get_aspect() for axis in axes[:, 0]] == [2.0, 3.0, 1.5]
    assert axes[0, 0].images[0].get_clim() == (-1, 1) and axes[1, 1].images[0].get_clim() == (0, 0.5)
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), volume[2:10, 1:9, 3][::-1, ::-1].T)
    np.testing.assert_array_equal(axes[2, 0].images[0].get_array(), volume[4, 1:9, 2:6][::-1, ::-1].T)
    bar = axes[0, 0].artists[0]
    assert bar.size_bar.get_children()[0].get_width() == 4 and "4 mm" in bar.txt_label.get_children()[0].get_text()


def test_an_ablation_has_a_point_for_each_training_and_a_line_at_their_mean():
    rows = [("prediction", "noise", 0, 0.5), ("prediction", "noise", 0, 0.7), ("prediction", "noise", 1, 0.8)]
    rows += [("gate", "mean of branches", seed, 0.9) for seed in (0, 1)]
    axis = show_ablation(pd.DataFrame(rows, columns=["factor", "level", "seed", "ssim"])).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["prediction: noise", "gate: mean of branches"]
    points, mean, other, _ = axis.lines
    np.testing.assert_allclose(points.get_xdata(), [0.6, 0.8])
    assert mean.get_xdata() == pytest.approx([0.7]) and other.get_ydata().tolist() == [1, 1]


def test_exponents_are_those_of_the_largest_sizes():
    """Seconds 3 n^2 and memory 1 + n^3 / 1000, which is flat at first; rows in any order."""
    n = np.array([16.0, 1.0, 4.0])
    sides = pd.DataFrame(dict(varied="side", size=n, seconds=3 * n**2, memory=1 + n**3 / 1000))
    batches = pd.DataFrame(dict(varied="batch", size=n, seconds=n, memory=7.0))
    table, columns = pd.concat([sides, batches]), ["seconds", "memory"]
    found = scaling_exponents(table, columns)
    assert found.index.tolist() == ["side", "batch"]
    steep = np.log((1 + 4.096) / (1 + 0.064)) / np.log(4)
    np.testing.assert_allclose(found, [[2, steep], [1, 0]], atol=1e-12)

    figure = show_scaling(table, pd.DataFrame([[2, 3], [1, 1]], index=["side", "batch"], columns=columns))
    lines = {(axis.get_xlabel(), axis.get_ylabel()): axis.lines for axis in figure.axes}
    expected, measured = lines["side", "memory (GiB)"]
    np.testing.assert_allclose(measured.get_ydata(), [1.001, 1.064, 5.096])
    np.testing.assert_allclose(expected.get_ydata(), 1.001 * np.array([1, 4, 16]) ** 3)
