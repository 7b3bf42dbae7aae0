"""What the benchmarks measure with, and how the network uses the machine.

Time, memory, traffic and the machine's ceilings; `scaling`, `throughput` and `rungs` measure the network with them, and
`store` puts rows into tables that name the machine.
"""

import datetime
import gc
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from accelerate import Accelerator
from cpuinfo import get_cpu_info
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import damm_lite as dl
from damm_lite.atomic import atomic_write
from damm_lite.experiments import ladder
from damm_lite.gates import decode_chosen
from damm_lite.resumable import peak_memory

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"
PRECISION = torch.bfloat16 if ON_GPU else torch.float32  # in which networks work
SIDES, BATCHES = ((64, 128, 256), (1, 4, 16, 64, 256)) if ON_GPU else ((64, 128), (1, 4, 16))  # of the throughput


def seconds_of(work: Callable[[], Any]) -> float:
    """How many seconds one call of `work` takes, on a GPU until it has finished."""
    if ON_GPU:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function of a dict, called A, B, A, B, ... after one round that does not count."""
    rounds = [{name: seconds_of(work) for name, work in sides.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(each[name] for each in rounds[1:]) for name in sides}


def memory_held() -> float:
    """GiB taken now: on a GPU by tensors, else by this process."""
    held = torch.cuda.memory_allocated(DEVICE) if ON_GPU else psutil.Process().memory_info().rss
    return held / 2**30


def peak_of(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work()` returns, and the GiB that it takes at its peak beyond what was held before.

    On a CPU that is an upper bound: imports may have had a higher peak of their own.
    """
    before = memory_held()
    return work(), peak_memory(DEVICE) - before


def apart(work: Callable[[], Any]) -> tuple[Any, float]:
    """`peak_of(work)`, on a CPU in a process of its own, so that `work` is a module's function or a partial of one."""
    if ON_GPU:  # whose peak can be set back
        gc.collect()  # what is freed only later would count as held before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak_of(work)
    # A process started by "spawn" inherits this one's peak on Linux; one of the fork server does not.
    # Windows has "spawn" alone.
    how = {"forkserver", "spawn"} & set(multiprocessing.get_all_start_methods())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(min(how))) as pool:
        return pool.submit(peak_of, work).result()


class Traffic(TorchDispatchMode):
    """Within it, `bytes` adds up what each operation reads and writes; a view moves none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        options = options or {}
        result = operation(*arguments, **options)
        if not operation.is_view:
            self.bytes += sum(x.nbytes for x in tree_leaves((arguments, options, result)) if torch.is_tensor(x))
        return result


def ceilings(side: int = 8192 if ON_GPU else 2048, elements: int = 2**28 if ON_GPU else 2**25) -> tuple[float, float]:
    """(FLOP/s of a product of square matrices in the working precision, bytes/s of a copy); the best of five."""
    a = torch.randn(side, side, device=DEVICE, dtype=PRECISION)
    x = torch.randn(elements, device=DEVICE)
    y = torch.empty_like(x)
    product, copy = (min(seconds_of(work) for _ in range(5)) for work in (lambda: a @ a, lambda: y.copy_(x)))
    return 2 * side**3 / product, 2 * x.nbytes / copy


def load(name: str) -> tuple[nn.Module, dl.NoiseSchedule]:
    """(network, schedule) of the shipped weights, on the device."""
    model, schedule = dl.load_pretrained(name)
    return model.to(DEVICE), schedule


def scaling(repeats: int) -> Iterator[dict]:
    """A row for each size of the whole network's forward pass, varied one at a time: seconds, work and memory."""
    narrow = (16, 16, 32, 64)
    settings = [("side", side, (narrow, side, 1)) for side in (32, 64, 128, 256, 512)]
    settings += [("batch", batch, (narrow, 64, batch)) for batch in (1, 4, 16, 64)]
    settings += [("width", factor, (tuple(factor * w for w in narrow), 64, 1)) for factor in (1, 2, 4, 8)]
    for varied, size, setting in settings:
        (seconds, multiply_adds), peak = apart(partial(forward_once, *setting))
        yield dict(varied=varied, size=size, seconds=seconds, multiply_adds=multiply_adds, memory=peak)


def forward_once(widths: tuple[int, ...], side: int, batch: int) -> tuple[float, float]:
    """(seconds, multiply-adds in 10^9) of a whole network's forward pass, the second of two."""
    torch.manual_seed(0)
    model = dl.for_inference(dl.DAMMNet(dl.UNetConfig(2, 1, widths, 64))).to(DEVICE)
    image, t = torch.zeros(batch, 1, side, side, device=DEVICE), torch.full((batch,), 500, device=DEVICE)
    work = partial(model, image, t, image, image)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            work()
        return seconds_of(work), counter.get_total_flops() / 2e9  # a multiply-add counts as two


def throughput(repeats: int = 5, sides: Sequence[int] = SIDES, batches: Sequence[int] = BATCHES) -> Iterator[dict]:
    """Images a second of a step of training and of prediction, and their shares of the machine's ceilings.

    What a step computes is counted operation by operation, and so is what it moves, as if nothing stayed in a cache
    between two operations. Where the memory does not suffice, a row has no measurements.
    """
    most_flops, most_bytes = ceilings()
    for make, side, batch in product((training_step, reverse_step), sides, batches):
        row = dict(step=make.__name__.replace("_", " "), side=side, batch=batch)
        try:
            (seconds, flops, moved), peak = apart(partial(measure, make, side, batch, repeats))
        except torch.OutOfMemoryError:
            yield row
            continue
        rates = dict(images=batch / seconds, tflops=flops / seconds / 1e12, gigabytes=moved / seconds / 1e9)
        shares = dict(of_product=flops / seconds / most_flops, of_copy=moved / seconds / most_bytes)
        yield row | rates | shares | dict(memory=peak)


def measure(make: Callable, side: int, batch: int, repeats: int) -> tuple[float, int, int]:
    """(seconds, FLOP, bytes) of one step, the best of `repeats`; counting is done in rounds that are not timed."""
    step = make(side, batch)
    with FlopCounterMode(display=False) as counter:
        step()
    with Traffic() as traffic:
        step()
    return min(seconds_of(step) for _ in range(repeats)), counter.get_total_flops(), traffic.bytes


def training_step(side: int, batch: int) -> Callable:
    """A function that makes one step of training, as the shipped weights were trained."""
    model, schedule = load("tumour-64")
    accelerator = Accelerator(mixed_precision="bf16" if ON_GPU else "no")
    images = dict(zip(("target", "primary", "secondary"), torch.rand(3, 1, side, side) * 2 - 1, strict=True))
    config = dl.TrainConfig(batch_size=batch)
    return partial(next, dl.train(model, schedule, [images] * batch, config, progress=False, accelerator=accelerator))


def reverse_step(side: int, batch: int) -> Callable:
    """A function that makes one step of prediction: both encoders, then each decoder for half of the images."""
    model, t = dl.for_inference(load("tumour-64")[0]), torch.full((batch,), 500, device=DEVICE)
    xt, primary, secondary = torch.rand(3, batch, 1, side, side, device=DEVICE) * 2 - 1
    use_multi = torch.arange(batch, device=DEVICE) % 2 == 0

    @torch.inference_mode()
    def step():
        with torch.autocast(DEVICE.type, PRECISION, enabled=ON_GPU):
            decode_chosen(model, model.encode(xt, t, primary, secondary), use_multi)

    return step


def rungs(repeats: int = 5, batch: int = 32, side: int = 64) -> Iterator[dict]:
    """A row for each way to make a step of training faster or smaller, alone: images a second, GiB, and the loss."""
    for name, make in (ladder.RUNGS | (ladder.GPU_RUNGS if ON_GPU else {})).items():
        (seconds, loss), peak = apart(partial(time_step, make, batch, side, repeats))
        yield dict(rung=name, side=side, batch=batch, images=batch / seconds, loss=loss, memory=peak)


def time_step(make: Callable, batch: int, side: int, repeats: int) -> tuple[float, float]:
    """(seconds of a step, loss before the first); steps are timed in rounds of five, of which the best counts."""
    step = make(batch, side)
    loss, _ = float(step()), step()
    return min(seconds_of(lambda: [step() for _ in range(5)]) / 5 for _ in range(repeats)), loss


def machine() -> dict[str, Any]:
    """The columns of a table that say when and on what it was measured."""
    name = torch.cuda.get_device_name() if ON_GPU else get_cpu_info().get("brand_raw", platform.machine())
    now = datetime.datetime.now(datetime.UTC)
    return dict(date=f"{now:%Y-%m-%d}", machine=name, threads=torch.get_num_threads(), torch=torch.__version__)


def store(path: Path, rows: Iterable[dict], keys: list[str]) -> None:
    """Put rows into the table `path` with this machine; its own rows with the same `keys` are replaced."""
    table = pd.DataFrame(rows).assign(**machine())
    if path.is_file():
        table = pd.concat([pd.read_csv(path), table]).drop_duplicates([*keys, "machine"], keep="last")
    with atomic_write(path) as whole:
        table.map(lambda x: float(f"{x:.4g}") if isinstance(x, float) else x).to_csv(whole, index=False)
