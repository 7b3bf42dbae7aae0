"""Chapter parameters: every mistake stops before any work, saying what is allowed."""

from pathlib import Path

import numpy as np
import pytest

from damm_lite.grids import timestep_grid
from damm_lite.teaching import notebook
from damm_lite.teaching.notebook import check_parameters, load_results, self_check, show_source

GOOD = {
    "profile": "fast",
    "data_root": None,
    "seed": 7,
    "size": None,
    "pixel": None,
    "skip_bad": False,
    "out_dir": None,
}


def check(namespace):
    kinds = dict(seed=int, size=int | None, pixel=float | None, skip_bad=bool, out_dir=Path | None)
    check_parameters(namespace, profile=("fast", "full"), folders=("data_root",), **kinds)
    return namespace


def test_good_parameters_pass(tmp_path):
    check(GOOD | {"math": object(), "_private": 1, "In": [""]})
    check(GOOD | {"data_root": str(tmp_path)})


@pytest.mark.parametrize(
    "name, given, taken",
    [
        ("skip_bad", "false", False),  # what papermill makes of -p skip_bad false
        ("skip_bad", "True", True),
        ("skip_bad", np.bool_(False), False),
        ("seed", 0, 0),
        ("seed", np.int64(3), 3),
        ("size", 64.0, 64),
        ("pixel", 1, 1.0),
        ("out_dir", "~/runs", Path.home() / "runs"),
    ],
)
def test_parameters_are_brought_to_their_types(name, given, taken):
    found = check(GOOD | {name: given})[name]
    assert found == taken and type(found) is type(taken)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"profile": "fats"}, ValueError, "expected one of fast, full, got 'fats'"),
        ({"sead": 7}, NameError, "unknown parameter sead; this chapter has data_root, out_dir, pixel, profile, seed"),
        ({"data_root": "/nowhere/at/all"}, FileNotFoundError, "data_root: expected a folder or None.*nowhere"),
        ({"data_root": "~/nowhere/at/all"}, FileNotFoundError, f"got {Path.home()}/nowhere"),
        ({"skip_bad": "no"}, ValueError, "skip_bad: expected True or False, got 'no'"),
        ({"skip_bad": 0}, ValueError, "skip_bad: expected True or False, got 0"),
        ({"size": 0}, ValueError, "size: expected a whole number from 1 up or None, got 0"),
        ({"size": "64"}, ValueError, "size: expected a whole number from 1 up or None, got '64'"),
        ({"size": True}, ValueError, "size: expected a whole number"),
        ({"seed": -1}, ValueError, "seed: expected a whole number from 0 up, got -1"),
        ({"seed": None}, ValueError, "seed: expected a whole number from 0 up, got None"),
        ({"seed": 1.5}, ValueError, "seed: expected a whole number"),
        ({"pixel": 0.0}, ValueError, "pixel: expected a number above 0 or None, got 0.0"),
        ({"pixel": float("nan")}, ValueError, "pixel: expected a number above 0"),
        ({"out_dir": ""}, ValueError, "out_dir: expected a path or None, got ''"),
    ],
)
def test_bad_parameters_are_named(change, error, message):
    with pytest.raises(error, match=message):
        check(GOOD | change)


def test_public_images_are_fetched_by_name_or_left_out_with_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "fetch", lambda name: tmp_path / name)
    (tmp_path / "lightsheet").mkdir()
    assert check(GOOD | {"data_root": "lightsheet"})["data_root"] == tmp_path / "lightsheet"

    def unreachable(name):
        raise OSError("https://example.org/a.npy: not downloaded")

    monkeypatch.setattr(notebook, "fetch", unreachable)
    assert check(GOOD | {"data_root": "open-ms"})["data_root"] is None
    said = capsys.readouterr().out
    assert "a.npy: not downloaded" in said and "data_root = None instead" in said and "simulated" in said


def test_source_is_shown_as_code():
    shown = show_source(timestep_grid).data
    assert shown.startswith("```python\ndef timestep_grid(") and shown.endswith("```")


def test_results_are_of_one_sample_or_of_means(tmp_path, monkeypatch):
    (tmp_path / "patches.csv").write_text("index,ssim_uni,ssim_uni_mean,psnr_uni,psnr_uni_mean\n7,0.5,0.6,20,21\n")
    monkeypatch.setattr(notebook, "fetch", lambda name: tmp_path / name.removeprefix("results/"))
    assert load_results("patches").to_dict("list") == {"index": [7], "ssim_uni": [0.5], "psnr_uni": [20]}
    assert load_results("patches", means=True).to_dict("list") == {"index": [7], "ssim_uni": [0.6], "psnr_uni": [21]}


def test_a_self_check_names_the_mistake(capsys):
    def check_double(double):
        assert double(2), "return a number"
        assert double(2) == 4, "twice, not more"

    for answer, verdict in (
        (lambda x: None, "Not yet: return a number."),
        (lambda x: 3 * x, "Not yet: twice, not more."),
        (lambda x: 2 * x, "Right."),
    ):
        self_check(check_double, answer)
        assert capsys.readouterr().out == verdict + "\n"
