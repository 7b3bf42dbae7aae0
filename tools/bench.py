"""Measure how fast the package is, beside what it could be compared with; the tables of the status page.

    python tools/bench.py                   # everything, data/results/benchmarks.csv and scaling.csv
    python tools/bench.py early training    # some of it; the other rows stay as they are

The two sides of a ratio take turns in one process, and the median of each counts. Seconds are those of
the clock, on all cores unless OMP_NUM_THREADS says otherwise: run nothing else meanwhile.
"""

import argparse
import datetime
import gc
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import tifffile
import torch
from cpuinfo import get_cpu_info
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import damm_lite as dl
from damm_lite.files import written_aside
from damm_lite.run import peak_memory
from measure_tumours import RESULTS, SIZE

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
RELEASED_STEPS = 1000


def seconds_of(work):
    """How long one call of `work` takes."""
    if ON_GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(sides, repeats):
    """Median seconds of each function of a dict, called A, B, A, B, ... after one round that does not count."""
    rounds = [{name: seconds_of(work) for name, work in sides.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(each[name] for each in rounds[1:]) for name in sides}


def ratio(name, ours, other, wanted):
    """The row of a benchmark in which `other` took so many times our seconds."""
    return dict(benchmark=name, value=other / ours, unit="times faster", wanted=wanted, ours=ours, other=other)


def patches(n, seed=dl.HELD_OUT_SEED):
    """A batch of n patches on the device."""
    batch = dl.stack(dl.SyntheticTumours(n, SIZE, seed))
    return {key: x.to(DEVICE) if torch.is_tensor(x) else x for key, x in batch.items()}


def load(name):
    """(network, schedule) of the shipped weights, on the device."""
    model, schedule = dl.load_pretrained(name)
    return model.to(DEVICE), schedule


def rows_of(batch):
    """Its samples, as batches of one."""
    return list(dl.chunks(batch, 1))


def early_decision(repeats):
    """A reverse step that decodes what it needs, and one that runs both decoders and then chooses."""
    for size in (8, 32):
        yield from reverse_step(size, repeats)


def reverse_step(size, repeats):
    """Both kinds of step on a mixed batch of `size` patches: what is saved, and how far the outputs are apart."""
    model, batch = dl.for_inference(load("tumour-64")[0]), patches(size)
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(size, 1, SIZE, SIZE, generator=generator).to(DEVICE), torch.full((size,), 500, device=DEVICE)
    step += batch["primary"], batch["secondary"]
    with torch.inference_mode():
        gamma = model.encode(*step).confidence.quantile(0.5).item()  # half the batch on either side

        def early():
            return dl.DAMMP(gamma)(model, model.encode(*step)).output

        def both():
            out = model(*step)
            return torch.where(out.confidence[:, None, None, None] < gamma, out.uni, out.multi)

        seconds = in_turn({"early": early, "both": both}, repeats)
        apart = (early() - both()).abs().max().item()
    name = f"reverse step, batch {size}"
    saved = 1 - seconds["early"] / seconds["both"]
    sides = dict(ours=seconds["early"], other=seconds["both"])
    yield dict(benchmark=f"{name}, share saved by deciding early", value=saved, unit="", wanted=0.25, **sides)
    yield dict(benchmark=f"{name}, largest difference of outputs", value=apart, unit="", wanted=1e-6)


def training_step(size, repeats):
    """The released second phase on a whole batch, and as released: one sample at a time."""
    model, schedule = load("tumour-64-released")
    drawn = dl.stack(dl.SyntheticTumours(size, SIZE, dl.HELD_OUT_SEED))
    ready = dl.prepare(schedule, model.objective.target, drawn, torch.Generator().manual_seed(0))
    batch = {key: x.to(DEVICE) for key, x in ready.items()}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-6)

    def step(parts):
        for part in parts:
            (dl.released_objective(model, part) / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()

    sides = {"whole": partial(step, [batch]), "one by one": partial(step, rows_of(batch))}
    return in_turn(sides, repeats)


def training(repeats):
    """Training steps at two batch sizes."""
    for size, wanted in ((8, 1.5), (32, 10.0 if ON_GPU else 2.0)):
        seconds = training_step(size, repeats)
        yield ratio(f"training step, batch {size}, over one sample at a time", *seconds.values(), wanted)


def prediction(repeats, released_steps=2):
    """20 steps with early decision on 8 patches; the release's 1000 with both decoders, one patch at a time.

    Of the 1000 steps only a few are run, and their time multiplied: all steps do the same work.
    """
    (model, schedule), batch = load("tumour-64"), patches(8)

    def ours():
        dl.predict(model, schedule, batch["primary"], batch["secondary"], num_steps=20)

    def released():
        for part in rows_of(batch):

            def denoiser(xt, t, part=part):
                out = model(xt, t, part["primary"], part["secondary"])
                output = torch.where(out.confidence[:, None, None, None] < 0.5, out.uni, out.multi)
                return model.objective.to_eps(schedule, xt, output, t)

            dl.ddim_sampler(denoiser, schedule, torch.randn_like(part["primary"]), released_steps, eta=1.0)

    with torch.inference_mode():
        seconds = in_turn({"ours": ours, "released": released}, repeats)
    other = seconds["released"] * RELEASED_STEPS / released_steps
    title = f"prediction of 8 patches, 20 steps over {RELEASED_STEPS} (of which {released_steps} run)"
    yield ratio(title, seconds["ours"], other, 60.0)


def quality(repeats, n=256 if ON_GPU else 8):
    """The SSIM that 20 steps lose against the release's 1000, all of which are run: once, whatever `repeats`."""
    (model, schedule), batch = load("tumour-64"), patches(n)
    sources = batch["primary"], batch["secondary"]
    ancestral = partial(dl.ddim_sampler, eta=1.0, generator=torch.Generator().manual_seed(0))
    few = dl.predict(model, schedule, *sources, num_steps=20)
    many = dl.predict(model, schedule, *sources, num_steps=RELEASED_STEPS, sampler=ancestral)
    lost = dl.evaluate(many.x0, batch["target"])["ssim"] - dl.evaluate(few.x0, batch["target"])["ssim"]
    title = f"prediction of {n} patches, SSIM lost by 20 steps instead of {RELEASED_STEPS}"
    yield dict(benchmark=title, value=lost, unit="", wanted=0.005)


def unets(repeats):
    """Our U-Net and two libraries', of about as many parameters at the same three resolutions."""
    from diffusers import UNet2DModel
    from monai.networks.nets import DiffusionModelUNet

    widths = (56, 88, 120)
    kinds = dict(down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3, add_attention=False)
    networks = {
        "ours": dl.UNet(dl.UNetConfig(2, 1, (32, 64, 96, 128), 128)),
        "diffusers": UNet2DModel(SIZE, 2, 1, block_out_channels=widths, norm_num_groups=8, **kinds),
        "MONAI": DiffusionModelUNet(
            2,
            2,
            1,
            channels=widths,
            num_res_blocks=2,
            attention_levels=(False,) * 3,
            norm_num_groups=8,
            num_head_channels=8,
        ),
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


def simulator(repeats, n=128):
    """Patches a second with a worker process on every core, their start not counted."""
    data, cores = dl.SyntheticTumours(n, SIZE, dl.HELD_OUT_SEED), len(os.sched_getaffinity(0))
    loader = DataLoader(data, 8, num_workers=cores, collate_fn=dl.stack, persistent_workers=True)
    seconds = in_turn({"ours": lambda: list(loader)}, repeats)["ours"] / n
    title = f"simulator, {cores} worker processes"
    yield dict(benchmark=title, value=1 / seconds, unit="patches/s", wanted=50.0 * cores, ours=seconds)


def imports(repeats):
    """Seconds to import the package by itself; processor seconds of all that a prediction needs, beyond torch's."""

    def start(code):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    alone = partial(subprocess.run, [sys.executable, "-c", "import damm_lite"], check=True)
    seconds = in_turn({"ours": alone}, repeats)["ours"]
    yield dict(benchmark="import, by itself", value=seconds, unit="s", wanted=3.0)

    codes = ("import torch, damm_lite as dl; dl.predict, dl.SyntheticTumours", "import torch")
    ours, other = (
        statistics.median(column) for column in zip(*[map(start, codes) for _ in range(repeats)], strict=True)
    )
    yield dict(benchmark="import, beyond torch", value=ours - other, unit="s", wanted=1.5, ours=ours, other=other)


def memory_held():
    """GiB taken now: on a GPU by tensors, else by this process."""
    held = torch.cuda.memory_allocated(DEVICE) if ON_GPU else psutil.Process().memory_info().rss
    return held / 2**30


def peak_of(work):
    """What `work()` returns, and the GiB that it takes at its peak beyond what was held before.

    On a CPU that is an upper bound: imports may have had a higher peak of their own.
    """
    before = memory_held()
    return work(), peak_memory(DEVICE) - before


def apart(work):
    """`peak_of(work)`, on a CPU in a process of its own: `work` must be a function of this file or a partial of one."""
    if ON_GPU:  # whose peak can be set back
        gc.collect()  # what is freed only later would count as held before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak_of(work)
    # A process started by "spawn" inherits this one's peak on Linux; one of the fork server does not.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return pool.submit(peak_of, work).result()


def predict_patches(n):
    """What the memory of a prediction is measured on."""
    batch = patches(n)
    dl.predict(*load("tumour-64"), batch["primary"], batch["secondary"], num_steps=2)


def memory(repeats):
    """Peaks, the network and its optimizer included; one run each, since they do not vary."""
    for name, work in (
        ("training step, batch 32", partial(training_step, 32, 1)),
        ("prediction of 8 patches", partial(predict_patches, 8)),
    ):
        yield dict(benchmark=f"peak memory, {name}", value=apart(work)[1], unit="GiB")


def predict_a_slide(side, num_steps):
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


def slide(repeats, side=512):
    """Memory and seams of a whole slide, in one run of one step."""
    seams, peak = apart(partial(predict_a_slide, side, 1))
    yield dict(benchmark=f"slide {side} x {side}, seams", value=seams, unit="of the range", wanted=0.01)
    yield dict(benchmark=f"slide {side} x {side}, peak memory", value=peak, unit="GiB", wanted=2.0)


def forward_once(widths, side, batch):
    """(seconds, multiply-adds in 10^9) of a whole network's forward pass, the second of two."""
    torch.manual_seed(0)
    model = dl.for_inference(dl.DAMMNet(dl.UNetConfig(2, 1, widths, 64))).to(DEVICE)
    image, t = torch.zeros(batch, 1, side, side, device=DEVICE), torch.full((batch,), 500, device=DEVICE)
    work = partial(model, image, t, image, image)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            work()
        return seconds_of(work), counter.get_total_flops() / 2e9  # a multiply-add counts as two


def scaling():
    """A row for each size of the whole network's forward pass, varied one at a time: seconds, work and memory."""
    narrow = (16, 16, 32, 64)
    settings = [("side", side, (narrow, side, 1)) for side in (32, 64, 128, 256, 512)]
    settings += [("batch", batch, (narrow, 64, batch)) for batch in (1, 4, 16, 64)]
    settings += [("width", factor, (tuple(factor * w for w in narrow), 64, 1)) for factor in (1, 2, 4, 8)]
    for varied, size, setting in settings:
        (seconds, multiply_adds), peak = apart(partial(forward_once, *setting))
        yield dict(varied=varied, size=size, seconds=seconds, multiply_adds=multiply_adds, memory=peak)


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
}


def machine():
    """What the figures were measured on, as columns."""
    name = torch.cuda.get_device_name() if ON_GPU else get_cpu_info().get("brand_raw", platform.machine())
    now = datetime.datetime.now(datetime.timezone.utc)
    return dict(date=f"{now:%Y-%m-%d}", machine=name, threads=torch.get_num_threads(), torch=torch.__version__)


def store(path, rows, keys):
    """Put rows, with the machine they were measured on, into the table; its own with the same keys are replaced."""
    table = pd.DataFrame(rows).assign(**machine())
    if path.is_file():
        table = pd.concat([pd.read_csv(path), table]).drop_duplicates([*keys, "machine"], keep="last")
    with written_aside(path) as whole:
        table.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x).to_csv(whole, index=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}, scaling; default all")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of which the median counts")
    parser.add_argument("--side", type=int, default=512, help="side of the slide, in pixels")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the tables' folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*BENCHMARKS, "scaling"}:
        parser.error(f"names: expected {', '.join(BENCHMARKS)} or scaling, got {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.names or [*BENCHMARKS, "scaling"]
    benchmarks = BENCHMARKS | {"slide": partial(slide, side=arguments.side)}
    for name in names:
        if name == "scaling":
            store(arguments.out / "scaling.csv", scaling(), ["varied", "size"])
            continue
        rows = list(benchmarks[name](arguments.repeats))
        store(arguments.out / "benchmarks.csv", rows, ["benchmark"])
        print(pd.DataFrame(rows).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
