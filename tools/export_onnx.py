"""Export `tumour-64` for the page that denoises in the browser: python tools/export_onnx.py

Writes the network's three parts as ONNX and `playground.json` (steps, colours) to web/site/playground.
Like the paper's gate, the page encodes first and then decodes only what it needs. Weights are
rounded to 9 significant bits and stored as 16-bit floats, so that with onnxruntime-web's own
code less than 6 MB cross the network.
"""

import json
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
from damm_lite.tumours.simulate import Physics

OUT = Path(__file__).resolve().parents[1] / "web" / "site" / "playground"
SIZE, NUM_STEPS, SIGNIFICANT_BITS = 64, 20, 9
UNI, MULTI = ([f"{branch}{i}" for i in range(9)] for branch in ("uni", "multi"))


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


def main():
    model, schedule = browser_model()
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
    (OUT / "playground.json").write_text(json.dumps(settings(schedule)) + "\n")


if __name__ == "__main__":
    main()
