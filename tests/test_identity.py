"""Two runs are one only where all that makes them is the same, in whatever process."""

import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from damm_lite.data import to_tensor
from damm_lite.fusion import MMFM
from damm_lite.identity import identity_of, name_of
from damm_lite.losses import our_loss, squared_error
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.unet import UNet, UNetConfig


def weighted(alpha):
    """A loss that holds its weight."""

    def loss(output, target, trusted):
        return alpha * squared_error(output, target)

    return loss


class Weighted:
    """The same as an object."""

    def __init__(self, alpha):
        self.alpha = alpha

    def __call__(self, output, target, trusted):
        return self.alpha * squared_error(output, target)

    def half(self, output, target, trusted):
        return self(output, target, trusted) / 2


class Nested(nn.Module):
    def __init__(self, beta):
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.SmoothL1Loss(beta=beta))


def with_default(alpha):
    return lambda output, target, trusted, alpha=alpha: alpha * squared_error(output, target)


def of_source(source):
    """What a cell with this source defines as `loss`."""
    defined = {"__name__": "__main__"}
    exec(textwrap.dedent(source), defined)
    return defined["loss"]


FAMILIES = {  # f(1) and f(2) are two parts, f(1) and f(1) are one
    "closure": weighted,
    "object": Weighted,
    "bound method": lambda n: Weighted(n).half,
    "partial": lambda n: functools.partial(squared_error, scale=n),
    "partial of a closure": lambda n: functools.partial(weighted(n), trusted=None),
    "partial with a closure": lambda n: functools.partial(our_loss, alpha=weighted(n)),
    "default": with_default,
    "PyTorch's loss": lambda n: nn.HuberLoss(delta=n),
    "nested module": Nested,
    "weights": lambda n: nn.CrossEntropyLoss(weight=torch.full((2000,), n) + torch.arange(2000) // 1999 * n),
    "tensor": lambda n: torch.cat([torch.zeros(2000), torch.full((1,), n), torch.zeros(2000)]),
    "constant": lambda n: of_source(f"def loss(output, target, trusted): return {n} * (output - target).abs().mean()"),
    "operator": lambda n: of_source(f"loss = lambda output, target, trusted: output {'+-'[n - 1]} target"),
    "set": lambda n: of_source(f"def loss(a, b, c): return a in {{'x', 'y', 'z', 'w{n}'}}"),
    "inner function": lambda n: of_source(f"def loss(a, b, c):\n    f = lambda x: x + {n}\n    return f(a)"),
    "method": lambda n: of_source(f"class loss:\n    def __call__(self, a, b, c): return a + {n}"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_differs_has_another_name_and_what_does_not_has_one(family):
    make = FAMILIES[family]
    assert name_of(make(1)) == name_of(make(1)) != name_of(make(2))
    assert "0x" not in name_of(make(1))


def test_a_name_is_the_same_in_every_process():
    code = "import test_identity as t\nfor make in t.FAMILIES.values(): print(t.name_of(make(1)))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    }
    assert len(found) == 1 and len(found.pop().splitlines()) == len(FAMILIES)


def test_a_function_may_move_in_its_file():
    source = "def loss(output, target, trusted):\n    return (output - target).abs().mean()\n"
    assert name_of(of_source(source)) == name_of(of_source(f"import torch\n\n# a comment\n{source}"))


def test_the_names_of_the_package_are_plain():
    """They are in the states of every run so far."""
    assert [name_of(part) for part in (our_loss, MMFM, "primary", 1.5, ("a",))] == [
        "our_loss",
        "MMFM",
        "'primary'",
        "1.5",
        "('a',)",
    ]
    assert name_of(functools.partial(our_loss, power=0.0)) == "our_loss(power=0.0)"


def test_what_holds_itself_has_a_name():
    def loss(output, target, trusted):
        return loss

    holder = Weighted(1)
    holder.alpha = holder
    assert name_of(loss) == name_of(loss) and name_of(holder).startswith("Weighted")
    assert len(name_of(weighted(list(range(10_000))))) < 400


@pytest.mark.parametrize("changed", range(6))
def test_every_item_of_a_list_counts(changed):
    items = [{"target": to_tensor(torch.rand(4, 4).numpy())} for _ in range(6)]
    other = [dict(item) for item in items]
    other[changed]["target"] = other[changed]["target"] * 0.999
    model, schedule = UNet(UNetConfig(widths=(16, 16, 16, 16), time_dim=16)), scaled_linear_schedule()
    found = [identity_of(model, schedule, each, squared_error)["data"] for each in (items, list(items), other)]
    assert found[0] == found[1] != found[2]
