"""Whole slides: tiles that fade into each other, files that are whole, and memory that stays."""

import numpy as np
import pytest
import tifffile
import torch

from damm_lite import whole_slide
from damm_lite.checkpoint import load_pretrained
from damm_lite.damm import DAMMNet
from damm_lite.gates import DAMMP
from damm_lite.predict import predict
from damm_lite.prediction_types import PredictsImage
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.tumours import growing_image
from damm_lite.tumours.simulate import simulate_nuclei, simulate_vessels
from damm_lite.unet import UNetConfig
from damm_lite.whole_slide import Tiling, predict_slide
from helpers import tiny

SCHEDULE = scaled_linear_schedule()


@pytest.mark.parametrize("tile, overlap, length", [(16, 4, 16), (16, 8, 17), (16, 0, 40), (32, 8, 200), (32, 16, 77)])
def test_blending_weights_sum_to_one_everywhere(tile, overlap, length):
    tiling, total = Tiling(tile, overlap), np.zeros(length)
    for start, weights in zip(tiling.starts(length), tiling.weights(length), strict=True):
        assert (weights > 0).all()
        total[start : start + tile] += weights
    np.testing.assert_allclose(total, 1)
    assert tiling.starts(length)[0] == 0 and tiling.starts(length)[-1] == length - tile


@pytest.fixture
def slide():
    """Vessels and nuclei (1, 40, 52) of one tissue."""
    rng = np.random.default_rng(0)
    vessels = simulate_vessels(rng, (40, 52))
    return vessels[None], simulate_nuclei(rng, vessels)[None]


def test_a_constant_stays_constant(slide, tmp_path):
    model = DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16), prediction=PredictsImage)
    for branch in (model.uni, model.multi):
        torch.nn.init.constant_(branch.out_conv.bias, 0.3)  # all other weights of this layer are zero
    predict_slide(model, SCHEDULE, *slide, tmp_path / "x.tif", 1, tiling=Tiling(16, 8, 4))
    np.testing.assert_allclose(tifffile.imread(tmp_path / "x.tif"), 0.65, atol=1e-4)


def test_a_slide_of_one_tile_is_a_patch(slide, tmp_path):
    model, patch = tiny(), [image[:, :32, :32] for image in slide]
    decided = predict_slide(model, SCHEDULE, *patch, tmp_path / "x.tif", 2, tiling=Tiling(32, seed=3))
    expected = predict(model, SCHEDULE, *(torch.tensor(x)[None] * 2 - 1 for x in patch), num_steps=2, seed=3)
    x0 = torch.from_numpy(tifffile.imread(tmp_path / "x.tif")) * 2 - 1  # (1, 32, 32)
    torch.testing.assert_close(x0, expected.x0[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decided.confidence.flatten(), expected.confidence)
    assert decided.trust.shape == (1, 1)


def jump(image, columns):
    """Mean absolute difference over the edges before these columns, less that over all, in the range of 1."""
    difference = np.abs(np.diff(image, axis=1)).mean(axis=0)
    return difference[np.array(columns) - 1].mean() - difference.mean()


def test_there_are_no_seams(tmp_path):
    rng = np.random.default_rng(1)
    vessels = simulate_vessels(rng, (64, 256))
    nuclei = simulate_nuclei(rng, vessels)
    model, schedule = load_pretrained("tumour-64")
    jumps = {}
    for overlap in (0, 16):
        tiling, path = Tiling(64, overlap), tmp_path / f"{overlap}.tif"
        predict_slide(model, schedule, vessels[None], nuclei[None], path, 2, tiling=tiling)
        edges = [edge for start in tiling.starts(256) for edge in (start, start + 64) if 0 < edge < 256]
        jumps[overlap] = jump(tifffile.imread(path)[0], edges)
    assert abs(jumps[16]) < 0.01 < jumps[0]


def test_values_are_those_of_read_tiff(slide, tmp_path):
    slide = [np.rint(image * 255).astype(np.uint8) for image in slide]
    for name, images in {"integers": slide, "reals": [image / np.float32(255) for image in slide]}.items():
        torch.manual_seed(0)
        predict_slide(tiny(), SCHEDULE, *images, tmp_path / f"{name}.tif", 1, tiling=Tiling(16, 4))
    integers, reals = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("integers", "reals"))
    np.testing.assert_allclose(integers, reals, atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(secondary=np.zeros((1, 40, 48))), r"secondary: expected shape \(1, 40, 52\), got \(1, 40, 48\)"),
        (dict(primary=np.zeros((40, 52))), r"primary: expected shape \(1, 52\), got \(40, 52\)"),
        (dict(primary=np.full((1, 40, 52), 7.0)), r"primary: expected pixels in \[0, 1\]"),
        (dict(tiling=Tiling(64)), "primary: .* at least 64 x 64"),
        (dict(gate="best"), "damm, uni, multi.*best"),
    ],
)
def test_bad_slides_are_named_before_any_work(change, message, slide, tmp_path):
    arguments = dict(primary=slide[0], secondary=slide[1], path=tmp_path / "x.tif", tiling=Tiling(16, 4)) | change
    with pytest.raises(ValueError, match=message):
        predict_slide(None if "gate" in change else tiny(), SCHEDULE, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_overwritten(slide, tmp_path):
    (tmp_path / "x.tif").write_text("mine")
    with pytest.raises(FileExistsError, match=r"x\.tif"):
        predict_slide(tiny(), SCHEDULE, *slide, tmp_path / "x.tif", 1, tiling=Tiling(16, 4))
    assert (tmp_path / "x.tif").read_text() == "mine"


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def killed_at(call, function, monkeypatch, place):
    """Let `place`'s function of this name raise `Killed` in place of its call number `call`."""
    original, calls = getattr(place, function), []

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(place, function, counted)


MOMENTS = [(whole_slide, "draw_sample", call) for call in (1, 2, 3, 6)]
MOMENTS += [(growing_image, "atomic_write", call) for call in (1, 2, 3)] + [(whole_slide.GrowingImage, "finish", 1)]


@pytest.mark.parametrize("place, function, call", MOMENTS)
def test_a_killed_slide_goes_on_to_the_same_image(place, function, call, slide, tmp_path, monkeypatch):
    """Killed in a batch of tiles, between a band and the note of it, or before the image has its name."""
    model, arguments = tiny(), dict(num_steps=1, tiling=Tiling(16, 4, 3))
    expected = predict_slide(model, SCHEDULE, *slide, tmp_path / "whole.tif", **arguments)
    with monkeypatch.context() as patched:
        killed_at(call, function, patched, place)
        with pytest.raises(Killed):
            predict_slide(model, SCHEDULE, *slide, tmp_path / "x.tif", **arguments)
    assert not (tmp_path / "x.tif").exists()
    calls, draw = [], whole_slide.draw_sample
    monkeypatch.setattr(whole_slide, "draw_sample", lambda *args: calls.append(args) or draw(*args))
    found = predict_slide(model, SCHEDULE, *slide, tmp_path / "x.tif", **arguments)
    assert (tmp_path / "x.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    batches = 3 * 2  # rows of tiles, and batches in each
    rows_done = {"draw_sample": (call - 1) // 2, "atomic_write": call - 1, "finish": 3}[function]
    assert len(calls) == batches - 2 * rows_done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.tif", "x.tif"]


def other_weights(model, arguments, slide):
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)


def other_steps(model, arguments, slide):
    arguments["num_steps"] = 2


def other_gate(model, arguments, slide):
    arguments["gate"] = DAMMP(0.4)


def other_tiles(model, arguments, slide):
    arguments["tiling"] = Tiling(16, 4, 3, seed=1)


def other_slide(model, arguments, slide):
    slide[1][0, -1, -1] = 1 - slide[1][0, -1, -1]


@pytest.mark.parametrize("change", [other_weights, other_steps, other_gate, other_tiles, other_slide])
def test_what_another_prediction_has_left_is_refused(change, slide, tmp_path, monkeypatch):
    model, arguments = tiny(), dict(num_steps=1, gate=DAMMP(0.5), tiling=Tiling(16, 4, 3))
    with monkeypatch.context() as patched:
        killed_at(3, "draw_sample", patched, whole_slide)
        with pytest.raises(Killed):
            predict_slide(model, SCHEDULE, *slide, tmp_path / "x.tif", **arguments)
    change(model, arguments, slide)
    with pytest.raises(ValueError, match=r"x\.tif\.unfinished: expected the beginning of this image"):
        predict_slide(model, SCHEDULE, *slide, tmp_path / "x.tif", **arguments)


@pytest.mark.parametrize(
    "sizes, message", [((18, 4), "multiple of 4"), ((16, 9), r"0\.\.8, half a tile"), ((16, 4, 0), "batch_size")]
)
def test_bad_tilings_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        Tiling(*sizes)
