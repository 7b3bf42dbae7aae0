"""The competition: evaluations are counted, and who asks for more than the budget is refused."""

import os
import runpy
import threading
import time
from pathlib import Path

import pytest
import torch

from damm_lite.damm import DAMMNet
from damm_lite.metrics import ssim
from damm_lite.predict import predict
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.teaching.competition import BudgetSpent, divergent_patches, metered, score
from damm_lite.tumours import DIVERGENCES
from damm_lite.unet import UNetConfig


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DAMMNet(UNetConfig(2, 1, (16, 16, 16, 16), 16)).eval(), scaled_linear_schedule()


def entry(num_steps, num_samples=1):
    def solve(model, schedule, primary, secondary):
        return predict(model, schedule, primary, secondary, num_steps, num_samples=num_samples).x0

    return solve


def test_a_score_is_the_ssim_of_the_entry(network):
    batch = divergent_patches(3, seed=1, size=16)
    assert batch["divergent"].all()
    x0 = predict(*network, batch["primary"], batch["secondary"], 4).x0
    assert torch.equal(score(entry(4), *network, batch, evaluations=4), ssim(x0, batch["target"]))


@pytest.mark.parametrize("num_steps, num_samples", [(5, 1), (3, 2)])
def test_more_than_the_budget_is_refused(network, num_steps, num_samples):
    batch = divergent_patches(2, seed=1, size=16)
    assert score(entry(num_steps, num_samples), *network, batch, num_steps * num_samples).shape == (2,)
    with pytest.raises(BudgetSpent, match="evaluations asked for, .* allowed"):
        score(entry(num_steps, num_samples), *network, batch, num_steps * num_samples - 1)


def test_evaluations_are_counted_by_patch_in_any_call(network):
    batch = divergent_patches(3, seed=1, size=16)
    images, t = [batch[key] for key in ("target", "primary", "secondary")], torch.full((3,), 500)
    model = metered(network[0], budget=5)
    model(images[0], t, *images[1:])  # three of five
    model.encode(*(x[:2] for x in (images[0], t, *images[1:])))
    with pytest.raises(BudgetSpent, match="6 evaluations asked for, 5 allowed"):
        model.encode(*(x[:1] for x in (images[0], t, *images[1:])))
    network[0](images[0], t, *images[1:])  # the original is not metered


def test_what_is_no_image_is_refused(network):
    batch = divergent_patches(2, seed=1, size=16)
    with pytest.raises(ValueError, match=r"expected x0 of shape \(2, 1, 16, 16\), got None"):
        score(lambda *a: None, *network, batch)
    with pytest.raises(ValueError, match="expected finite values"):
        score(lambda *a: torch.full((2, 1, 16, 16), torch.nan), *network, batch)


@pytest.fixture(scope="module")
def key():
    """What judges the competition."""
    found = list((Path(__file__).parents[1] / "book" / "assignments" / "keys").glob("a4_*.py"))
    if not found:
        pytest.skip("no keys in book/assignments: this copy keeps them elsewhere")
    return runpy.run_path(*found)


def test_every_kind_has_as_many_hidden_patches(key):
    key["hidden_patches"].__globals__["EACH"] = 2
    batch = key["hidden_patches"]()
    kinds = batch["kind"]
    assert kinds[:4] == kinds[4:] and sorted(kinds[:4]) == sorted(DIVERGENCES)
    assert batch["divergent"].all() and len({image.sum().item() for image in batch["target"]}) == 8


@pytest.mark.parametrize("where", ["here", "in a thread", "in another process"])
def test_work_is_seen_wherever_it_is_done(key, where):
    def work():
        start = time.thread_time()
        while time.thread_time() - start < 0.5:
            pass

    def fork():
        if not (child := os.fork()):
            work()
            os._exit(0)
        os.waitpid(child, 0)

    before, started = key["seconds_spent"](os.getpid()), time.process_time()
    if where == "in another process":
        fork()
    elif where == "in a thread":
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    else:
        work()
    own = time.process_time() - started if where != "in another process" else 0.5
    assert key["seconds_spent"](os.getpid()) - before == pytest.approx(own, abs=0.1)
