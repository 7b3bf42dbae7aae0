"""Chapter parameters: every mistake stops before any work, saying what is allowed."""

import pytest

from damm_lite.grids import timestep_grid
from damm_lite.teaching import notebook
from damm_lite.teaching.notebook import check_parameters, load_results, self_check, show_source


def check(namespace):
    check_parameters(namespace, profile=("fast", "full"), folders=("data_root",), names=("seed",))


def test_good_parameters_pass(tmp_path):
    good = {"profile": "fast", "data_root": None, "seed": 7, "math": object(), "_private": 1, "In": [""]}
    check(good)
    check(good | {"data_root": str(tmp_path)})


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"profile": "fats"}, ValueError, "expected one of fast, full, got 'fats'"),
        ({"sead": 7}, NameError, "unknown parameter sead; this chapter has data_root, profile, seed"),
        ({"data_root": "/nowhere/at/all"}, FileNotFoundError, "data_root: expected a folder or None.*nowhere"),
    ],
)
def test_bad_parameters_are_named(change, error, message):
    with pytest.raises(error, match=message):
        check({"profile": "fast", "data_root": None, "seed": 7} | change)


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
