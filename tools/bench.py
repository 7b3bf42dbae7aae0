"""Measure how fast the package is, beside what it could be compared with; the tables of the status page.

    python tools/bench.py                   # everything
    python tools/bench.py early training    # some of it; the other rows stay as they are

The tables are in data/results; rows of other machines stay. The sides of a ratio take turns, and the median counts.
Seconds are those of the clock, on all cores or OMP_NUM_THREADS of them: run nothing else meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch
from torch.utils.data import DataLoader

import damm_lite as dl
from bench_machine import DEVICE, ON_GPU, apart, in_turn, load, rungs, scaling, store, throughput
from damm_lite.experiments.jobs import usable_cores
from damm_lite.experiments.measure import RESULTS, SIZE
from damm_lite.tumours.synthetic import HELD_OUT_SEED

RELEASED_STEPS = 1000
Rows = Iterator[dict]


def ratio(name: str, ours: float, other: float, wanted: float) -> dict:
    """The row of a benchmark in which `other` took so many times our seconds."""
    return dict(benchmark=name, value=other / ours, unit="times faster", wanted=wanted, ours=ours, other=other)


def patches(n: int) -> dict:
    """A batch of n held-out patches on the device."""
    batch = dl.stack(dl.SyntheticTumours(n, SIZE, HELD_OUT_SEED))
    return {key: x.to(DEVICE) if torch.is_tensor(x) else x for key, x in batch.items()}


def decode_both(model: dl.DAMMNet, step: tuple[torch.Tensor, ...], gamma: float = 0.5) -> torch.Tensor:
    """The released gate's output (B, C, H, W) for (xt, t, primary, secondary): both decoders run, then it chooses."""
    out = model(*step)
    return torch.where(out.confidence[:, None, None, None] < gamma, out.uni, out.multi)


def early_decision(repeats: int) -> Rows:
    """On mixed batches: what a step saves that decodes only what it needs, and how far its outputs are apart."""
    for size in (8, 32):
        seconds, difference = reverse_steps(size, repeats)
        name, saved = f"reverse step, batch {size}", 1 - seconds["ours"] / seconds["other"]
        yield dict(benchmark=f"{name}, share saved by deciding early", value=saved, unit="", wanted=0.25, **seconds)
        yield dict(benchmark=f"{name}, largest difference of outputs", value=difference, unit="", wanted=1e-6)


def reverse_steps(size: int, repeats: int) -> tuple[dict[str, float], float]:
    """(seconds of a step that decides early, "ours", and of one that decodes both; largest difference of outputs)."""
    model, batch = dl.for_inference(load("tumour-64")[0]), patches(size)
    xt = torch.randn(size, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    step = xt, torch.full((size,), 500, device=DEVICE), batch["primary"], batch["secondary"]
    with torch.inference_mode():
        gamma = model.encode(*step).confidence.quantile(0.5).item()  # half the batch on either side
        gate, both = dl.DAMMP(gamma), partial(decode_both, model, step, gamma)

        def early():
            return gate(model, model.encode(*step)).output

        return in_turn({"ours": early, "other": both}, repeats), (early() - both()).abs().max().item()


def training(repeats: int) -> Rows:
    """The released second phase on a whole batch, and as released: one sample at a time."""
    for size, wanted in ((8, 1.5), (32, 10.0 if ON_GPU else 2.0)):
        seconds = released_training(size, repeats)
        yield ratio(f"training step, batch {size}, over one sample at a time", *seconds.values(), wanted)


def released_training(size: int, repeats: int) -> dict[str, float]:
    """Seconds of a training step of the released network on a batch, as a whole and one by one."""
    model, schedule = load("tumour-64-released")
    drawn, generator = dl.stack(dl.SyntheticTumours(size, SIZE, HELD_OUT_SEED)), torch.Generator().manual_seed(0)
    ready = dl.prepare(schedule, model.prediction, drawn, generator, corrupted=0.0)
    batch = {key: x.to(DEVICE) for key, x in ready.items()}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-6)

    def step(parts):
        for part in parts:
            output = model(part["xt"], part["t"], part["primary"], part["secondary"])
            (dl.released_loss(output, part["output_target"]) / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()

    sides = {"whole": partial(step, [batch]), "one by one": partial(step, list(dl.chunks(batch, 1)))}
    return in_turn(sides, repeats)


def prediction(repeats: int, released_steps: int = 2) -> Rows:
    """20 steps with early decision on 8 patches; the release's 1000 with both decoders, one patch at a time.

    Of the 1000 steps only a few are run, and their time multiplied: all steps do the same work.
    """
    (model, schedule), batch = load("tumour-64"), patches(8)

    def released():
        for part in dl.chunks(batch, 1):

            def denoiser(xt, t, part=part):
                output = decode_both(model, (xt, t, part["primary"], part["secondary"]))
                return model.prediction.to_x0(schedule, xt, output, t).clamp(-1, 1)

            dl.ddim_sampler(denoiser, schedule, torch.randn_like(part["primary"]), released_steps, eta=1.0)

    ours = partial(dl.predict, model, schedule, batch["primary"], batch["secondary"], num_steps=20)
    with torch.inference_mode():
        seconds = in_turn({"ours": ours, "released": released}, repeats)
    other = seconds["released"] * RELEASED_STEPS / released_steps
    title = f"prediction of 8 patches, 20 steps over {RELEASED_STEPS} (of which {released_steps} run)"
    yield ratio(title, seconds["ours"], other, 60.0)


def quality(repeats: int, n: int = 256 if ON_GPU else 8) -> Rows:
    """The SSIM that 20 steps lose against the release's 1000, all of which are run: once, whatever `repeats`."""
    (model, schedule), batch = load("tumour-64"), patches(n)
    predict = partial(dl.predict, model, schedule, batch["primary"], batch["secondary"])
    few, many = predict(num_steps=20), predict(RELEASED_STEPS, sampler=partial(dl.ddim_sampler, eta=1.0))
    lost = dl.evaluate(many.x0, batch["target"])["ssim"] - dl.evaluate(few.x0, batch["target"])["ssim"]
    title = f"prediction of {n} patches, SSIM lost by 20 steps instead of {RELEASED_STEPS}"
    yield dict(benchmark=title, value=lost, unit="", wanted=0.005)


def unets(repeats: int) -> Rows:
    """Our U-Net and two libraries', of about as many parameters at the same three resolutions."""
    from diffusers import UNet2DModel
    from monai.networks.nets import DiffusionModelUNet

    widths, three = (56, 88, 120), dict(attention_levels=(False,) * 3, num_res_blocks=2, num_head_channels=8)
    kinds = dict(down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3, add_attention=False)
    networks = {
        "ours": dl.UNet(dl.UNetConfig(2, 1, (32, 64, 96, 128), 128)),
        "diffusers": UNet2DModel(SIZE, 2, 1, block_out_channels=widths, norm_num_groups=8, **kinds),
        "MONAI": DiffusionModelUNet(2, 2, 1, channels=widths, norm_num_groups=8, **three),
    }
    x, t = torch.randn(8, 2, SIZE, SIZE, device=DEVICE), torch.full((8,), 500, device=DEVICE)
    ready = {name: dl.for_inference(network.to(DEVICE)) for name, network in networks.items()}
    arguments = {"ours": (x[:, :1], t, x[:, 1:])}
    with torch.inference_mode():
        sides = {name: partial(network, *arguments.get(name, (x, t))) for name, network in ready.items()}
        seconds = in_turn(sides, repeats)
    size = {name: sum(p.numel() for p in network.parameters()) / 1e6 for name, network in networks.items()}
    for name in ("diffusers", "MONAI"):
        title = f"U-Net forward, {size['ours']:.2f} M parameters, over {name}'s of {size[name]:.2f} M"
        yield ratio(title, seconds["ours"], seconds[name], 1.0)


def simulator(repeats: int, n: int = 128) -> Rows:
    """Patches a second with a worker process on every core, their start not counted."""
    data, cores = dl.SyntheticTumours(n, SIZE, HELD_OUT_SEED), usable_cores()
    loader = DataLoader(data, 8, num_workers=cores, collate_fn=dl.stack, persistent_workers=True)
    seconds = in_turn({"ours": lambda: list(loader)}, repeats)["ours"] / n
    title = f"simulator, {cores} worker processes"
    yield dict(benchmark=title, value=1 / seconds, unit="patches/s", wanted=50.0 * cores, ours=seconds)


def imports(repeats: int) -> Rows:
    """Seconds to import the package by itself; processor seconds of all that a prediction needs, beyond torch's."""

    def run(code):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    alone = in_turn({"ours": partial(run, "import damm_lite")}, repeats)["ours"]
    yield dict(benchmark="import, by itself", value=alone, unit="s", wanted=3.0)
    codes = ("import torch, damm_lite as dl; dl.predict, dl.SyntheticTumours", "import torch")
    ours, other = map(statistics.median, zip(*[map(run, codes) for _ in range(repeats)], strict=True))
    yield dict(benchmark="import, beyond torch", value=ours - other, unit="s", wanted=1.5, ours=ours, other=other)


def memory(repeats: int) -> Rows:
    """Peaks, the network and its optimizer included; one run each, since they do not vary."""
    training_peak, prediction_peak = apart(partial(released_training, 32, 1))[1], apart(partial(predict_patches, 8))[1]
    yield dict(benchmark="peak memory, training step, batch 32", value=training_peak, unit="GiB")
    yield dict(benchmark="peak memory, prediction of 8 patches", value=prediction_peak, unit="GiB")


def predict_patches(n: int) -> None:
    """What the memory of a prediction is measured on."""
    batch = patches(n)
    dl.predict(*load("tumour-64"), batch["primary"], batch["secondary"], num_steps=2)


def slide(repeats: int, side: int = 512) -> Rows:
    """Memory and seams of a whole slide, in one run of one step."""
    seams, peak = apart(partial(predict_a_slide, side, 1))
    yield dict(benchmark=f"slide {side} x {side}, seams", value=seams, unit="of the range", wanted=0.01)
    yield dict(benchmark=f"slide {side} x {side}, peak memory", value=peak, unit="GiB", wanted=2.0)


def predict_a_slide(side: int, num_steps: int) -> float:
    """The seams of a predicted slide: by how much the mean step over tiles' edges exceeds that over all pixels."""
    rng, quarter = np.random.default_rng(0), side // 4
    vessels = dl.simulate_vessels(rng, quarter)
    stains = {"vessels": vessels, "nuclei": dl.simulate_nuclei(rng, vessels)}
    with tempfile.TemporaryDirectory() as folder:
        for name, image in stains.items():  # mirrored to the full size, so that simulating it is no work
            whole = np.pad(image, (0, side - quarter), mode="symmetric")
            tifffile.imwrite(Path(folder, f"{name}.tif"), np.rint(255 * whole).astype(np.uint8))
        images = [tifffile.memmap(Path(folder, f"{name}.tif"))[None] for name in stains]
        dl.predict_slide(*load("tumour-64"), *images, Path(folder, "out.tif"), num_steps)
        out, tiling = tifffile.memmap(Path(folder, "out.tif"))[0], dl.Tiling()
        starts = np.array(tiling.starts(side))
        edges = np.unique(np.concatenate([starts[1:], starts[:-1] + tiling.tile])) - 1
        steps = [np.abs(np.diff(out, axis=axis)).mean(axis=1 - axis) for axis in (0, 1)]
        return max(abs(step[edges].mean() - step.mean()) for step in steps)


BENCHMARKS = {
    "early": early_decision,
    "training": training,
    "prediction": prediction,
    "quality": quality,
    "unets": unets,
    "simulator": simulator,
    "imports": imports,
    "memory": memory,
    "slide": slide,
    "scaling": scaling,
    "throughput": throughput,
    "ladder": rungs,
}
KEYS = {"scaling": ["varied", "size"], "throughput": ["step", "side", "batch"], "ladder": ["rung", "side", "batch"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of which the median counts")
    parser.add_argument("--side", type=int, default=512, help="side of the slide, in pixels")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the tables' folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"names: expected {', '.join(BENCHMARKS)}, got {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or BENCHMARKS:
        options = {"side": arguments.side} if name == "slide" else {}
        rows = list(BENCHMARKS[name](arguments.repeats, **options))
        table, keys = (name, KEYS[name]) if name in KEYS else ("benchmarks", ["benchmark"])
        store(arguments.out / f"{table}.csv", rows, keys)
        print(pd.DataFrame(rows).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
