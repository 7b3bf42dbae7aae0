"""The code that CONTRIBUTING and the README ask to paste runs as it stands, and something real comes out."""

import re
import runpy
from pathlib import Path

import pytest
import torch

import damm_lite as dl

ROOT = Path(__file__).parents[1]


@pytest.fixture
def paste(tmp_path, monkeypatch):
    """A function (page, heading) that runs the code block under a heading in an empty folder; returns its variables."""

    def run(page, heading):
        code = re.search(rf"^#+ {heading}\n(?:(?!^#).)*?```python\n(.*?)```", (ROOT / page).read_text(), re.M | re.S)[1]
        (tmp_path / "pasted.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        return runpy.run_path("pasted.py", run_name="__main__")

    return run


def test_a_fusion_of_ones_own_is_trained_saved_and_loaded(paste):
    made = paste("CONTRIBUTING.md", "A new fusion")
    last, loaded, fusion = made["last"], made["loaded"], made["Maximum"]
    assert last.step == 2 and all(type(part) is fusion for part in loaded.mmfm)
    moments = [last.optimizer.state[p]["exp_avg"] for part in last.model.mmfm for p in part.parameters()]
    assert all(moment.abs().max() > 0 for moment in moments)  # its weights were trained
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs = x, torch.tensor([0, 999]), x, x
    with torch.no_grad():
        kept, back = last.ema.eval()(*inputs), loaded(*inputs)
    assert torch.equal(kept.multi, back.multi) and kept.multi.abs().max() > 0
    with pytest.raises(ValueError, match=r"parts=\[Maximum\]"):
        dl.load_checkpoint("maximum.safetensors")


def test_a_dataset_of_ones_own_trains(paste):
    made = paste("CONTRIBUTING.md", "A new dataset")
    dataset, losses = made["Halves"](), torch.tensor(made["losses"])
    items = list(dataset)
    assert len(items) == len(dataset)
    for again, item in zip(dataset, items, strict=True):
        for name in ("target", "primary", "secondary"):
            assert item[name].shape == (1, 32, 32) and item[name].dtype == torch.float32
            assert item[name].abs().max() <= 1 and torch.equal(item[name], again[name])
    assert losses[-5:].mean() < 0.8 * losses[:5].mean()


def test_a_sampler_of_ones_own_predicts_and_repeats_to_the_bit(paste):
    made = paste("CONTRIBUTING.md", "A new sampler")
    batch, result = made["batch"], made["result"]
    assert result.x0.shape == batch["target"].shape
    assert dl.ssim(result.x0, batch["target"]).mean() > 0.85

    def predict(**options):
        options = {"num_steps": 5, "sampler": made["renoising_sampler"]} | options
        return dl.predict(made["model"], made["schedule"], *made["images"], **options)

    assert torch.equal(predict().samples, result.samples)
    assert not torch.equal(predict(seed=100).samples, result.samples)
    assert not torch.equal(predict(sampler=dl.ddim_sampler).samples, result.samples)


def test_the_training_of_the_readme_leaves_a_network_and_goes_on_where_it_was(paste):
    made = paste("README.md", "Training your own")
    progress, model = made["progress"], made["model"]
    assert progress.step == made["config"].num_steps == len(progress.losses)
    assert torch.tensor(progress.losses).isfinite().all()
    again = paste("README.md", "Training your own")  # the folder is there: nothing is left to do
    assert again["progress"].losses == progress.losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again["model"].parameters(), strict=True))
