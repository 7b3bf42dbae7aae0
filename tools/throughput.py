"""Measure images per second, and how near they come to what the machine can do: python tools/throughput.py

Written: data/results/throughput.csv, a row for each step (of training, of prediction), side and batch. The
ceilings are the rate of a large matrix product and that of a large copy. What a step computes is counted
operation by operation, and so is what it moves, as if nothing stayed in a cache between two operations.
Rows of other machines stay. Run nothing else meanwhile.
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import damm_lite as dl
from bench import DEVICE, ON_GPU, RESULTS, apart, load, seconds_of, store

PRECISION = torch.bfloat16 if ON_GPU else torch.float32
SIDES, BATCHES = ((64, 128, 256), (1, 4, 16, 64, 256)) if ON_GPU else ((64, 128), (1, 4, 16))


class Traffic(TorchDispatchMode):
    """Adds up the bytes of what each operation reads and writes; a view moves none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        options = options or {}
        result = operation(*arguments, **options)
        if not operation.is_view:
            self.bytes += sum(x.nbytes for x in tree_leaves((arguments, options, result)) if torch.is_tensor(x))
        return result


def ceilings(side=8192 if ON_GPU else 2048, elements=2**28 if ON_GPU else 2**25):
    """(FLOP/s of a product of square matrices in the working precision, bytes/s of a copy); the best of five."""
    a = torch.randn(side, side, device=DEVICE, dtype=PRECISION)
    x = torch.randn(elements, device=DEVICE)
    y = torch.empty_like(x)
    product, copy = (min(seconds_of(work) for _ in range(5)) for work in (lambda: a @ a, lambda: y.copy_(x)))
    return 2 * side**3 / product, 2 * x.nbytes / copy


def noise(*shape):
    """Images in [-1, 1] that cost the same as any others."""
    return torch.rand(shape) * 2 - 1


def training_step(side, batch):
    """A function that makes one step of training, as the shipped weights were trained."""
    model, schedule = load("tumour-64")
    accelerator = Accelerator(mixed_precision="bf16" if ON_GPU else "no")
    patches = [dict(zip(("target", "primary", "secondary"), noise(3, 1, side, side), strict=True))] * batch
    config = dl.TrainConfig(batch_size=batch)
    steps = dl.train(model, schedule, patches, config, dl.specialist_objective, progress=False, accelerator=accelerator)
    return partial(next, steps)


def reverse_step(side, batch):
    """A function that makes one step of prediction: both encoders, then each decoder for half of the images."""
    model, t = dl.for_inference(load("tumour-64")[0]), torch.full((batch,), 500, device=DEVICE)
    xt, primary, secondary = noise(3, batch, 1, side, side).to(DEVICE)
    use_multi = torch.arange(batch, device=DEVICE) % 2 == 0

    @torch.inference_mode()
    def step():
        with torch.autocast(DEVICE.type, PRECISION, enabled=ON_GPU):
            dl.DAMMP.take(model, model.encode(xt, t, primary, secondary), use_multi)

    return step


def measure(make, side, batch, repeats=5):
    """(seconds, FLOP, bytes) of one step, the best of `repeats`; counting is done in rounds that are not timed."""
    step = make(side, batch)
    with FlopCounterMode(display=False) as counter:
        step()
    with Traffic() as traffic:
        step()
    return min(seconds_of(step) for _ in range(repeats)), counter.get_total_flops(), traffic.bytes


def rows(sides, batches):
    """A dict for each step, side and batch; where the memory does not suffice, without the measurements."""
    most_flops, most_bytes = ceilings()
    for make, side, batch in itertools.product((training_step, reverse_step), sides, batches):
        row = dict(step=make.__name__.replace("_", " "), side=side, batch=batch)
        try:
            (seconds, flops, moved), memory = apart(partial(measure, make, side, batch))
        except torch.OutOfMemoryError:
            yield row
            continue
        rates = dict(images=batch / seconds, tflops=flops / seconds / 1e12, gigabytes=moved / seconds / 1e9)
        shares = dict(of_product=flops / seconds / most_flops, of_copy=moved / seconds / most_bytes)
        yield row | rates | shares | dict(memory=memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="sides of the images, in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table's folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = list(rows(arguments.sides, arguments.batches))
    store(arguments.out / "throughput.csv", found, ["step", "side", "batch"])


if __name__ == "__main__":
    main()
