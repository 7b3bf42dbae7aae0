"""What the playground loads: python tools/export_onnx.py [network|settings|draws ...] (default: all)

network    the three parts of `tumour-64` as ONNX. Like the paper's gate, the page encodes first and then decodes only
           what it needs. Weights are rounded to 9 significant bits and stored as 16-bit floats, so that with
           onnxruntime-web's own code less than 6 MB cross the network.
settings   playground.json: steps, colours, how many tissues are offered
draws      draws.bin, of the tissues that the page offers (its own script draws them, in Node): for each the true map,
           and exact draws for the same vessels with other nuclei; 8 bits a pixel, 64 x 64 pixels a map

All is written to web/site/playground.
"""

import json
import subprocess
from pathlib import Path

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
from make_data import make_named

OUT = Path(__file__).resolve().parents[1] / "web" / "site" / "playground"
SIZE, NUM_STEPS, SIGNIFICANT_BITS = 64, 20, 9
NUM_TISSUES, NUM_DRAWS, DRAWS_SEED = 8, 4, 11
UNI, MULTI = ([f"{branch}{i}" for i in range(9)] for branch in ("uni", "multi"))
TISSUES = f"""import {{ randomTissue }} from "./tissue.js";
const images = Array.from({{ length: {NUM_TISSUES} }}, (_, k) => randomTissue({SIZE}, k + 1).images());
console.log(JSON.stringify(images.map(({{ primary, acting }}) => [[...primary], [...acting]])));"""


class Encode(nn.Module):
    """xt, t, primary, secondary -> e, both branches' nine features, u."""

    def __init__(self, model):
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


def browser_model() -> tuple[dl.DAMMNet, dl.NoiseSchedule]:
    """(`tumour-64` as the page computes it, schedule): batch norms folded into convolutions, weights rounded."""
    model, schedule = dl.load_pretrained("tumour-64")
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


def settings(schedule: dl.NoiseSchedule) -> dict:
    """What the page must know beside the network: the sampler's steps, the gate, sizes in µm, colours."""
    steps = dl.timestep_grid(schedule, NUM_STEPS)
    colours = (np.arange(256) / 255).tolist()
    return dict(
        size=SIZE,
        tissues=NUM_TISSUES,
        draws=NUM_DRAWS,
        pixel=Physics().pixel,
        gamma=dl.DAMMP().gamma,
        steps=steps,
        alphas_cumprod=schedule.alphas_cumprod[steps].tolist(),
        colours={
            role: (colormaps.get_cmap(colourmap)(colours)[:, :3] * 255).round().astype(int).ravel().tolist()
            for role, colourmap in COLOURMAPS.items()
            if role in ("primary", "secondary", "target", "confidence")
        },
    )


def offered_tissues() -> np.ndarray:
    """Vessels and nuclei (T, 2, H, W) in [0, 1] of the tissues that the page offers."""
    command = ["node", "--input-type=module", "--eval", TISSUES]
    drawn = subprocess.run(command, cwd=OUT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return (np.array(json.loads(drawn)).reshape(-1, 2, SIZE, SIZE) + 1) / 2


def exact_maps(tissues: np.ndarray) -> np.ndarray:
    """For each of the tissues (T, 2, H, W) the true map and the exact draws: uint8 (T, 1 + D, H, W)."""
    maps = []
    for number, (vessels, nuclei) in enumerate(tissues):
        rng = np.random.default_rng([DRAWS_SEED, number])
        others = [simulate_nuclei(rng, vessels) for _ in range(NUM_DRAWS)]
        maps.append([simulate_nanoparticles(vessels, acting) for acting in (nuclei, *others)])
    return np.rint(255 * np.array(maps)).astype(np.uint8)


def write_network() -> None:
    model, _ = browser_model()
    xt, primary, secondary = torch.zeros(3, 1, 1, SIZE, SIZE)  # three tensors: one passed thrice would become one input
    arguments = (xt, torch.tensor([500]), primary, secondary)
    with torch.no_grad():
        e, *features, u = Encode(model)(*arguments)
    uni, multi = features[:9], features[9:]
    parts = dict(
        encode=export(
            Encode(model), arguments, ["xt", "t", "primary", "secondary"], ["e", *UNI, *MULTI, "confidence_map"]
        ),
        decode_uni=export(DecodeUni(model), (e, *uni), ["e", *UNI], ["x0"]),
        decode_multi=export(
            DecodeMulti(model), (e, uni[-1], u, *multi), ["e", UNI[-1], "confidence_map", *MULTI], ["x0"]
        ),
    )
    for name, part in parts.items():
        onnx.save(part, OUT / f"{name}.onnx")


MAKERS = {
    "network": write_network,
    "settings": lambda: (OUT / "playground.json").write_text(json.dumps(settings(browser_model()[1])) + "\n"),
    "draws": lambda: (OUT / "draws.bin").write_bytes(exact_maps(offered_tissues()).tobytes()),
}


if __name__ == "__main__":
    make_named(MAKERS, __doc__)
