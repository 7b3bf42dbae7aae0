"""The page on other libraries: its code gives one image in three of them, and what it says of them is so."""

import importlib
import re
from inspect import signature
from pathlib import Path

import diffusers
import nibabel as nib
import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.training_utils import EMAModel
from monai.inferers import DiffusionInferer
from monai.networks import schedulers
from monai.networks.nets import ControlNet, DiffusionModelUNet
from monai.transforms import LoadImage, Orientation
from pybtex.database import parse_file
from torch.optim.swa_utils import AveragedModel

import damm_lite as dl
from damm_lite.brains.nifti import read_nifti
from damm_lite.grids import log_snr_grid
from damm_lite.train import _average
from helpers import randomised, relative_error

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "rosetta.md").read_text()
CELLS = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", PAGE, re.S)
SCHEDULE = dl.scaled_linear_schedule()
BETAS = {"beta_start": 0.002, "beta_end": 0.02}
LIBRARIES = {
    "diffusers": (diffusers, {"beta_schedule": "scaled_linear"}),
    "MONAI": (schedulers, {"schedule": "scaled_linear_beta"}),
}
THEIR_WORDS = {dl.PredictsNoise: "epsilon", dl.PredictsImage: "sample", dl.PredictsVelocity: "v_prediction"}
TOLERANCE = 1e-4


def network(prediction):
    """A small network, nothing of which is zero, and its conditions: 2 patches of 16 x 16."""
    model = randomised(dl.UNet(dl.UNetConfig(widths=(16, 16, 16, 16), time_dim=32), prediction))
    return model, torch.rand(2, 1, 16, 16) * 2 - 1


@pytest.fixture(scope="module")
def page():
    """What the page's code leaves behind, and how often it called each library's step."""
    calls, patch = {}, pytest.MonkeyPatch()
    for name, (library, _) in LIBRARIES.items():
        step = library.DDIMScheduler.step

        def counted(*args, step=step, name=name):
            calls[name] = calls.get(name, 0) + 1
            return step(*args)

        patch.setattr(library.DDIMScheduler, "step", counted)
    found = {}
    for cell in CELLS:
        exec(cell, found)
    patch.undo()
    return found, calls


def test_the_code_of_the_page_gives_one_image_three_times(page):
    found, calls = page
    assert calls == {"diffusers": 20, "MONAI": 20}
    assert set(found["differences"]) == set(LIBRARIES)
    assert all(0 <= difference < TOLERANCE for difference in found["differences"].values())
    # An image, and the right one.
    assert dl.ssim(found["ours"][0], found["batch"]["target"]).mean() > 0.7
    assert (found["by_diffusers"] - found["ours"]).abs().max() < TOLERANCE
    assert (found["by_monai"] - found["ours"]).abs().max() < TOLERANCE


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("prediction", [*THEIR_WORDS, dl.PredictsFlow, dl.PredictsPreconditioned])
def test_their_ddim_behind_our_interface(page, prediction, library):
    sampler = page[0]["their_ddim"](LIBRARIES[library][0])
    model, conditions = network(prediction)
    for schedule, num_steps in ((SCHEDULE, 7), (dl.cosine_schedule(), 10)):
        ours = dl.predict_unet(model, schedule, conditions, num_steps, num_samples=2)
        theirs = dl.predict_unet(model, schedule, conditions, num_steps, num_samples=2, sampler=sampler)
        assert (ours - theirs).abs().max() < TOLERANCE and ours.std() > 0.05


def raw_loop(scheduler, model, xt, conditions, **arguments):
    """Their sampling as their users write it: the network's output goes to `step`."""
    with torch.inference_mode():
        for t in scheduler.timesteps:
            output = model(xt, t.expand(len(xt)), conditions)
            xt = scheduler.step(output, t, xt, **arguments)[0]
    return xt


def denoiser_of(model, schedule, conditions, limit):
    def denoiser(xt, t):
        x0 = model.prediction.to_x0(schedule, xt, model(xt, t, conditions), t)
        return x0.clamp(-limit, limit)

    return torch.inference_mode()(denoiser)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("prediction, word", THEIR_WORDS.items())
def test_ddim_with_their_own_words_and_all_steps(prediction, word, library, clip):
    """MONAI keeps the eps of the estimate before it was clipped; diffusers does not if told so."""
    package, schedule_word = LIBRARIES[library]
    betas = {"beta_start": 0.002, "beta_end": 0.3}
    schedule, (model, conditions) = dl.scaled_linear_schedule(20, **betas), network(prediction)
    scheduler = package.DDIMScheduler(20, **betas, **schedule_word, prediction_type=word, clip_sample=clip)
    scheduler.set_timesteps(20)
    noise = torch.randn(2, 1, 16, 16)
    corrected = {"use_clipped_model_output": True} if clip and library == "diffusers" else {}
    theirs = raw_loop(scheduler, model, noise, conditions, **corrected)
    denoiser = denoiser_of(model, schedule, conditions, 1 if clip else torch.inf)
    error = relative_error(dl.ddim_sampler(denoiser, schedule, noise, 20), theirs)
    assert error > 0.01 if clip and library == "MONAI" else error < TOLERANCE


@pytest.mark.parametrize("prediction, word", THEIR_WORDS.items())
def test_dpm_solver_of_diffusers(prediction, word):
    model, conditions = network(prediction)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, beta_schedule="scaled_linear", prediction_type=word, lower_order_final=False
    )
    scheduler.set_timesteps(timesteps=log_snr_grid(SCHEDULE, 10))
    noise = torch.randn(2, 1, 16, 16)
    ours = dl.dpm_sampler(denoiser_of(model, SCHEDULE, conditions, torch.inf), SCHEDULE, noise, 10)
    assert relative_error(ours, raw_loop(scheduler, model, noise, conditions)) < TOLERANCE
    assert "clip_sample" not in scheduler.config


def test_our_network_in_the_inferer_of_monai():
    model, conditions = network(dl.PredictsImage)
    schedule = dl.scaled_linear_schedule(20, **BETAS)
    scheduler = schedulers.DDIMScheduler(20, "scaled_linear_beta", **BETAS, prediction_type="sample", clip_sample=False)
    (code,) = re.findall(r"`(lambda x, timesteps, context: .*?)`", PAGE)
    noise = torch.randn(2, 1, 16, 16)
    theirs = DiffusionInferer(scheduler).sample(
        noise, eval(code, {"unet": model}), conditioning=conditions, mode="concat", verbose=False
    )
    ours = dl.ddim_sampler(denoiser_of(model, schedule, conditions, torch.inf), schedule, noise, 20)
    assert (ours - theirs).abs().max() < TOLERANCE


# What the tables say.


def monai_of(**arguments):
    return schedulers.DDIMScheduler(**({"schedule": "scaled_linear_beta"} | BETAS | arguments))


def test_their_schedules_are_ours():
    for ours, schedule, name in (
        (SCHEDULE, "scaled_linear_beta", "scaled_linear"),
        (dl.linear_schedule(beta_start=0.002), "linear_beta", "linear"),
        (dl.cosine_schedule(), "cosine", "squaredcos_cap_v2"),
    ):
        arguments = {} if schedule == "cosine" else BETAS
        monai = schedulers.DDIMScheduler(schedule=schedule, **arguments)
        other = diffusers.DDIMScheduler(beta_schedule=name, **arguments)
        for theirs in (monai, other):
            torch.testing.assert_close(theirs.alphas_cumprod, ours.alphas_cumprod, rtol=1e-4, atol=1e-7)
    assert diffusers.DDIMScheduler().config.beta_start == 1e-4 and diffusers.DDIMScheduler().config.clip_sample
    assert signature(schedulers.DDIMScheduler).parameters["clip_sample"].default
    assert diffusers.DDIMScheduler().config.beta_schedule == "linear"
    assert signature(schedulers.DDIMScheduler).parameters["schedule"].default == "linear_beta"
    assert schedulers.DDIMScheduler(schedule="scaled_linear_beta").betas[0].item() == pytest.approx(1e-4)


def test_spacing_of_steps():
    spaced = {"MONAI": monai_of()}
    for spacing in ("leading", "trailing", "linspace"):
        spaced[spacing] = diffusers.DDIMScheduler(timestep_spacing=spacing)
    for scheduler in spaced.values():
        scheduler.set_timesteps(20)
    first = {name: scheduler.timesteps[[0, 1, 2, -1]].tolist() for name, scheduler in spaced.items()}
    assert first["MONAI"] == first["linspace"] == [999, 946, 894, 0]
    assert first["leading"] == [950, 900, 850, 0] and first["trailing"] == [999, 949, 899, 49]
    assert diffusers.DDIMScheduler().config.timestep_spacing == "leading"
    assert diffusers.DDPMScheduler().config.timestep_spacing == "leading"
    ours = dl.timestep_grid(SCHEDULE, 20)
    assert [ours[i] for i in (0, 1, 2, -1)] == [999, 946, 893, 0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_their_ddim_goes_down_by_a_fixed_number(library):
    """With x0 = 0 a step only scales xt, by sqrt((1 - a_next) / (1 - a)): which step is next can be read off it."""
    package, schedule_word = LIBRARIES[library]
    even = {"timestep_spacing": "linspace"} if library == "diffusers" else {}
    scheduler = package.DDIMScheduler(**BETAS, **schedule_word, **even, prediction_type="sample")
    scheduler.set_timesteps(20)
    a = SCHEDULE.alphas_cumprod.double()
    for t, following in zip(scheduler.timesteps[:-2], scheduler.timesteps[1:-1], strict=True):
        scale = scheduler.step(torch.zeros(1), t, torch.ones(1))[0].double()
        reached = int((1 - scale**2 * (1 - a[t]) - a).abs().argmin())
        assert reached == t - 50 > following - 50 and reached >= following
    assert t - 50 > scheduler.timesteps[-2], "more noise than the next step says"


def test_monais_ddpm_takes_all_steps_and_that_of_diffusers_any():
    x0, xt = torch.randn(2, 1, 4, 4)
    few, all_steps = (
        schedulers.DDPMScheduler(schedule="scaled_linear_beta", **BETAS, prediction_type="sample") for _ in range(2)
    )
    few.set_timesteps(20)
    steps = [s.step(x0, 526, xt, torch.Generator().manual_seed(0))[0] for s in (few, all_steps)]
    assert torch.equal(*steps)
    other = diffusers.DDPMScheduler(timestep_spacing="linspace")
    other.set_timesteps(20)
    assert other.previous_timestep(526) == 473


def test_velocity_has_one_sign():
    x0, eps, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0, 500, 999])
    ours = dl.PredictsVelocity.target(SCHEDULE, x0, eps, t)
    for theirs in (diffusers.DDIMScheduler(**BETAS, beta_schedule="scaled_linear"), monai_of()):
        torch.testing.assert_close(theirs.get_velocity(x0, eps, t), ours, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(theirs.add_noise(x0, eps, t), SCHEDULE.add_noise(x0, eps, t), rtol=1e-3, atol=1e-4)


def test_preconditioning_is_that_of_edm():
    edm, t = diffusers.EDMEulerScheduler(sigma_data=0.5), 400
    xt, output = torch.randn(2, 3, 1, 4, 4)
    signal, noise = SCHEDULE.signal_and_noise(t, xt)
    theirs = edm.precondition_outputs(xt / signal, output, noise / signal)
    torch.testing.assert_close(dl.PredictsPreconditioned.to_x0(SCHEDULE, xt, output, t), theirs)
    sigma = float(noise / signal)
    assert edm.precondition_noise(sigma).item() == pytest.approx(0.25 * np.log(sigma))
    assert not torch.equal(edm.precondition_inputs(xt, sigma), xt)


def test_flows_and_their_signs():
    x0, eps = torch.randn(2, 3, 1, 4, 4)
    flow = dl.PredictsFlow.target(SCHEDULE, x0, eps, 400)
    torch.testing.assert_close(flow, eps - x0, rtol=1e-4, atol=1e-5)
    euler = diffusers.FlowMatchEulerDiscreteScheduler()
    euler.set_timesteps(4)
    t, sigma = euler.timesteps[1], euler.sigmas[1]
    xt = euler.scale_noise(x0, t[None], eps)
    torch.testing.assert_close(xt, (1 - sigma) * x0 + sigma * eps)
    for t in euler.timesteps[1:]:
        xt = euler.step(flow, t, xt).prev_sample
    torch.testing.assert_close(xt, x0, rtol=1e-4, atol=1e-4)
    rectified = schedulers.RFlowScheduler()
    rectified.set_timesteps(4)
    xt = rectified.add_noise(x0, eps, torch.full((3,), 250))
    torch.testing.assert_close(xt, 0.75 * x0 + 0.25 * eps)
    torch.testing.assert_close(rectified.step(-flow, 250, xt, 0)[0], x0, rtol=1e-4, atol=1e-4)


def test_time_embeddings():
    t = torch.tensor([0, 1, 500, 999])
    ours = dl.timestep_embedding(t, 32)
    torch.testing.assert_close(ours, get_timestep_embedding(t, 32), rtol=1e-4, atol=1e-4)
    defaults = signature(diffusers.UNet2DModel).parameters
    assert defaults["flip_sin_to_cos"].default and defaults["freq_shift"].default == 0
    monai = importlib.import_module("monai.networks.nets.diffusion_model_unet").get_timestep_embedding(t, 32)
    assert torch.equal(monai[0], torch.cat([torch.ones(16), torch.zeros(16)])), "cosines first"
    assert (monai.roll(16, dims=1) - ours).abs().max() > 0.1, "and other frequencies"
    for controlled in (ControlNet, diffusers.ControlNetModel):
        assert "conditioning_scale" in signature(controlled.forward).parameters
    assert "context" in signature(DiffusionModelUNet.forward).parameters


def test_averages_of_weights_rise_alike():
    layer = torch.nn.Linear(3, 3)
    ours = AveragedModel(layer, multi_avg_fn=_average(0.999), use_buffers=True)
    theirs = EMAModel(layer.parameters(), decay=0.999)
    for _ in range(30):
        with torch.no_grad():
            layer.weight.add_(torch.randn(3, 3))
        ours.update_parameters(layer)
        theirs.step(layer.parameters())
    torch.testing.assert_close(theirs.shadow_params[0], ours.module.weight)
    assert EMAModel([]).decay == 0.9999 and dl.TrainConfig().ema_decay == 0.999


def test_only_ours_turns_voxels_when_it_reads(tmp_path):
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(volume, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "lps.nii")
    ours, _ = read_nifti(tmp_path / "lps.nii")
    theirs = LoadImage(ensure_channel_first=True)(tmp_path / "lps.nii")
    assert np.array_equal(ours, volume[::-1, ::-1]) and np.array_equal(theirs[0].numpy(), volume)
    assert np.array_equal(Orientation("RAS", labels=None)(theirs)[0].numpy(), ours)


# The page as a text.


def test_what_the_page_names_can_be_imported():
    names = set(re.findall(r"`((?:diffusers|monai|damm_lite)\.[\w.]+)`", PAGE))
    counts = [sum(name.startswith(package) for name in names) for package in ("diffusers", "monai", "damm_lite")]
    assert min(counts) >= 9, counts
    for name in names:
        owner, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(owner), last), name


def test_what_the_page_cites_is_in_the_references():
    entries = parse_file(ROOT / "book" / "references.bib").entries
    cited = set(re.findall(r"\{cite:\w\}`(\w+)`", PAGE))
    assert {"zhou2025damm", "saharia2022palette", "li2023bbdm", "liu2023i2sb"} < cited
    assert {"ozbey2023syndiff", "dalmaz2022resvit"} < cited <= set(entries)
    for key in cited:
        assert {"title", "year"} <= set(entries[key].fields) and entries[key].persons["author"]


def test_tables_are_whole_and_code_fits_the_page():
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(columns) == 1, table[:60]
    assert CELLS and all(len(line) <= 76 for cell in CELLS for line in cell.splitlines())
