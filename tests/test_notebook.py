"""Chapter parameters: every mistake stops before any work, saying what is allowed."""

import pytest

from damm_lite.notebook import check_parameters, self_check, show_source
from damm_lite.samplers import timestep_grid


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
