"""What the playground loads: python tools/export_onnx.py [networks|settings|tissues|draws ...] (default: all)

networks   the three parts of each of `NETWORKS` as ONNX. Like the paper's gate, the page encodes first and then decodes
           only what it needs. Weights are rounded to 9 significant bits and stored as 16-bit floats, so that with
           onnxruntime-web's own code less than 6 MB cross the network.
settings   playground.json: the networks with their steps, colours, how many tissues are offered
tissues    data/playground_tissues: the smaller tissues that the page offers (its own script draws them, in Node), in
           the layout of data/tumour_sample; assignment A5 is graded on them
draws      draws-SIDE.bin, of the tissues that the page offers: for each the true map, and exact draws for the same
           vessels with other nuclei; 8 bits a pixel

All but the tissues is written to web/site/playground.
"""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from matplotlib import colormaps
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import damm_lite as dl
from damm_lite.damm import Encoded
from damm_lite.teaching.plotting import COLOURMAPS
from damm_lite.tumours.simulate import Physics, simulate_nanoparticles, simulate_nuclei
from make_data import DATA, make_named, write_field


class Offered(NamedTuple):
    """A network that the page offers, by the name of its weights."""

    name: str
    size: int  # side of a patch that it was trained on
    label: str


NETWORKS = [
    Offered("tumour-64", 64, "that of the chapters, 64 × 64 pixels"),
    Offered("study-ours", 32, "of the study: MMFM, head that reads both streams"),
    Offered("study-ours-addition", 32, "of the study: addition, head that reads both streams"),
    Offered("study-ours-query-head", 32, "of the study: MMFM, head that reads the queries"),
]
OUT = Path(__file__).resolve().parents[1] / "web" / "site" / "playground"
NUM_STEPS, SIGNIFICANT_BITS = 20, 9
NUM_TISSUES, NUM_DRAWS, DRAWS_SEED = 8, 4, 11
UNI, MULTI = ([f"{branch}{i}" for i in range(9)] for branch in ("uni", "multi"))


class Encode(nn.Module):
    """xt, t, primary, secondary -> e, both branches' nine features, u."""

    def __init__(self, model: dl.DAMMNet):
        super().__init__()
        self.model = model

    def forward(self, xt, t, primary, secondary):
        encoded = self.model.encode(xt, t, primary, secondary)
        return encoded.e, *encoded.uni, *encoded.multi, encoded.confidence_map


class DecodeUni(Encode):
    """e and the uni-modal features -> that branch's output."""

    def forward(self, e, *uni):
        return self.model.decode_uni(Encoded(e, list(uni), [], None))


class DecodeMulti(Encode):
    """e, the last uni-modal feature, u and the multi-modal features -> that branch's output."""

    def forward(self, e, last_uni, u, *multi):
        return self.model.decode_multi(Encoded(e, [last_uni], list(multi), u))


def browser_model(name: str) -> tuple[dl.DAMMNet, dl.NoiseSchedule]:
    """(the network as the page computes it, schedule): batch norms folded into convolutions, weights rounded."""
    model, schedule = dl.load_pretrained(name)
    model = dl.for_inference(model).to(memory_format=torch.contiguous_format)
    scale = 2**SIGNIFICANT_BITS
    with torch.no_grad():
        for weight in model.parameters():
            mantissa, exponent = torch.frexp(weight)
            weight.copy_(torch.ldexp((mantissa * scale).round() / scale, exponent).half())
    return model, schedule


def export(
    part: nn.Module, arguments: tuple[torch.Tensor, ...], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    """One part of the network as an ONNX model, its large constants in 16 bits."""
    # ONNX's own attention wants a dimension for heads; plain matrix products do not.
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        program = torch.export.export(part, arguments).run_decompositions()
    names = dict(input_names=inputs, output_names=outputs)
    return halve(torch.onnx.export(program, dynamo=True, verbose=False, **names).model_proto)


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store constants of 64 numbers and more as float16; casts, done once when the model is loaded, undo it."""
    graph = model.graph
    for constant in list(graph.initializer):
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < 64:
            continue
        name, stored = constant.name, f"{constant.name}.half"
        constant.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        graph.node.insert(0, onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    for note in (graph.value_info, graph.metadata_props, *(node.metadata_props for node in graph.node)):
        del note[:]  # shapes and stack traces of the export
    onnx.checker.check_model(model, full_check=True)
    return model


def write_network(offered: Offered) -> None:
    """Write the three parts of a network to a folder of its name."""
    model, _ = browser_model(offered.name)
    xt, primary, secondary = torch.zeros(3, 1, 1, offered.size, offered.size)  # three: one passed thrice becomes one
    arguments = (xt, torch.tensor([500]), primary, secondary)
    with torch.no_grad():
        e, *features, u = Encode(model)(*arguments)
    uni, multi = features[:9], features[9:]
    parts = dict(
        encode=export(
            Encode(model), arguments, ["xt", "t", "primary", "secondary"], ["e", *UNI, *MULTI, "confidence_map"]
        ),
        decode_uni=export(DecodeUni(model), (e, *uni), ["e", *UNI], ["output"]),
        decode_multi=export(
            DecodeMulti(model), (e, uni[-1], u, *multi), ["e", UNI[-1], "confidence_map", *MULTI], ["output"]
        ),
    )
    folder = OUT / offered.name
    folder.mkdir(exist_ok=True)
    for name, part in parts.items():
        onnx.save(part, folder / f"{name}.onnx")


def to_x0(model: dl.DAMMNet, schedule: dl.NoiseSchedule, steps: list[int]) -> list[list[float]]:
    """For each step, what x0 takes of xt and of the network's output: whatever it predicts, x0 is a sum of the two."""
    zero, one, t = torch.zeros(len(steps), 1, 1, 1), torch.ones(len(steps), 1, 1, 1), torch.tensor(steps)
    both = [model.prediction.to_x0(schedule, *pair, t).flatten() for pair in ((one, zero), (zero, one))]
    return torch.stack(both, dim=1).tolist()


def settings() -> dict:
    """What the page must know beside the networks: sampling steps, the gate, sizes in µm, colours."""
    colours, networks = (np.arange(256) / 255).tolist(), []
    for offered in NETWORKS:
        model, schedule = dl.load_pretrained(offered.name)
        steps = dl.timestep_grid(schedule, NUM_STEPS)
        sampling = dict(
            steps=steps, alphas_cumprod=schedule.alphas_cumprod[steps].tolist(), to_x0=to_x0(model, schedule, steps)
        )
        networks.append(offered._asdict() | sampling)
    return dict(
        networks=networks,
        tissues=NUM_TISSUES,
        draws=NUM_DRAWS,
        pixel=Physics().pixel,
        gamma=dl.DAMMP().gamma,
        sharpness=dl.SpatialDAMMP().sharpness,
        colours={
            role: (colormaps.get_cmap(colourmap)(colours)[:, :3] * 255).round().astype(int).ravel().tolist()
            for role, colourmap in COLOURMAPS.items()
            if role in ("primary", "secondary", "target", "confidence")
        },
    )


def offered_tissues(size: int) -> np.ndarray:
    """Vessels and nuclei (T, 2, H, W) in [0, 1] of the tissues that the page offers."""
    script = f"""import {{ randomTissue }} from "./tissue.js";
    const images = Array.from({{ length: {NUM_TISSUES} }}, (_, k) => randomTissue({size}, k + 1).images());
    console.log(JSON.stringify(images.map(({{ primary, acting }}) => [[...primary], [...acting]])));"""
    command = ["node", "--input-type=module", "--eval", script]
    drawn = subprocess.run(command, cwd=OUT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return (np.array(json.loads(drawn)).reshape(-1, 2, size, size) + 1) / 2


def exact_maps(tissues: np.ndarray) -> np.ndarray:
    """For each of the tissues (T, 2, H, W) the true map and the exact draws: uint8 (T, 1 + D, H, W)."""
    maps = []
    for number, (vessels, nuclei) in enumerate(tissues):
        rng = np.random.default_rng([DRAWS_SEED, number])
        others = [simulate_nuclei(rng, vessels) for _ in range(NUM_DRAWS)]
        maps.append([simulate_nanoparticles(vessels, acting) for acting in (nuclei, *others)])
    return np.rint(255 * np.array(maps)).astype(np.uint8)


def write_tissues(folder: Path) -> None:
    """The smaller tissues, as TIFFs."""
    for field, (vessels, nuclei) in enumerate(offered_tissues(32), start=1):
        maps = {"CD31": vessels, "DAPI": nuclei, "QD": simulate_nanoparticles(vessels, nuclei)}
        write_field(folder, field, maps)


def write_draws() -> None:
    for size in sorted({offered.size for offered in NETWORKS}):
        (OUT / f"draws-{size}.bin").write_bytes(exact_maps(offered_tissues(size)).tobytes())


MAKERS = {
    "networks": lambda: [write_network(offered) for offered in NETWORKS],
    "settings": lambda: (OUT / "playground.json").write_text(json.dumps(settings()) + "\n"),
    "tissues": lambda: write_tissues(DATA / "playground_tissues"),
    "draws": write_draws,
}


if __name__ == "__main__":
    make_named(MAKERS, __doc__)
