/** Sampling in the page: DDIM over the three parts of the network, and what a gate takes of both branches. */

const PARTS = ["encode", "decode_uni", "decode_multi"];
const REVIEW = 10; // a branch that was not taken is decoded for show at every tenth step, and at the last
const FACTOR = 4; // sides of the images over sides of the map

/** Load onnxruntime-web, on one thread, from the folder `runtime`. */
export async function loadRuntime(runtime) {
  const ort = await import(new URL("ort.wasm.min.mjs", runtime));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = runtime;
  return ort;
}

/** Load the three parts from `folder` with the runtime `ort`. */
export async function loadNetwork(ort, folder) {
  const sessions = PARTS.map((part) => ort.InferenceSession.create(new URL(`${part}.onnx`, folder).href));
  const [encode, uni, multi] = await Promise.all(sessions);
  return { ort, encode, decode: { uni, multi } };
}

/** Which branch a gate takes of a patch with the mean confidence c: "uni", "multi", or "both", pixel by pixel. */
export function branchOf({ gate, gamma }, c) {
  const taken = { damm: c >= gamma ? "multi" : "uni", pixel: "both", uni: "uni", multi: "multi" };
  return taken[gate];
}

/**
 * Denoise `noise` under the conditions `primary` and `secondary`: arrays of size * size numbers, in [-1, 1].
 * `choice` is {gate, gamma}: "damm", "pixel", "uni" or "multi".
 *
 * Yields after each step what went in (`xt`), what each branch says (`uni`, `multi`, of which the one not
 * taken may be some steps old), the `map` of confidence and its mean, the `branch` taken and its `x0`, which
 * is kept in [-1, 1] at every step.
 */
export async function* denoise(network, settings, choice, primary, secondary, noise) {
  const { size, steps, alphas_cumprod: alphas, to_x0: toX0, sharpness } = settings;
  const said = {};
  let xt = noise;
  for (let i = 0; i < steps.length; i++) {
    const encoded = await encode(network, size, xt, steps[i], primary, secondary);
    const map = encoded.confidence_map.data;
    const confidence = map.reduce((sum, u) => sum + u, 0) / map.length;
    const branch = branchOf(choice, confidence);
    const last = i === steps.length - 1;
    for (const name of ["uni", "multi"]) {
      if (branch === name || branch === "both" || last || i % REVIEW === 0) {
        said[name] = estimate(xt, await decode(network.decode[name], encoded), toX0[i]);
      }
    }
    const taken = branch === "both" ? mixed(said, shares(map, sharpness)) : said[branch];
    const x0 = taken.map((x) => Math.min(1, Math.max(-1, x)));
    yield { i, xt, ...said, map, confidence, branch, x0 };
    if (!last) {
      xt = ddimStep(xt, x0, alphas[i], alphas[i + 1]);
    }
  }
}

/** From the noise level `a` to `aNext` (both alphas_cumprod), without fresh noise (Song et al. 2021, eq. 12). */
export function ddimStep(xt, x0, a, aNext) {
  return xt.map((x, k) => {
    const eps = (x - Math.sqrt(a) * x0[k]) / Math.sqrt(1 - a);
    return Math.sqrt(aNext) * x0[k] + Math.sqrt(1 - aNext) * eps;
  });
}

/** The multi-modal branch's share of each pixel, u^k / (u^k + (1 - u)^k), of the map on all pixels. */
export function shares(map, sharpness) {
  return upsample(map).map((u) => 1 / (1 + ((1 - u) / u) ** sharpness));
}

/** A square map, bilinearly, on four times as many rows and columns. */
export function upsample(map) {
  const side = Math.sqrt(map.length);
  const places = Array.from({ length: FACTOR * side }, (_, k) => {
    const at = Math.max(0, (k + 0.5) / FACTOR - 0.5);
    const low = Math.floor(at);
    return { low, high: Math.min(low + 1, side - 1), part: at - low };
  });
  const between = (from, to, part) => from + part * (to - from);
  return Float32Array.from({ length: map.length * FACTOR ** 2 }, (_, k) => {
    const [row, column] = [places[Math.floor(k / places.length)], places[k % places.length]];
    const along = (r) => between(map[r * side + column.low], map[r * side + column.high], column.part);
    return between(along(row.low), along(row.high), row.part);
  });
}

function mixed({ uni, multi }, share) {
  return uni.map((x, k) => share[k] * multi[k] + (1 - share[k]) * x);
}

/** x0 of a branch, from what it says of `xt`: a sum of the two, whatever the network predicts. */
function estimate(xt, output, [ofXt, ofOutput]) {
  return output.map((y, k) => ofXt * xt[k] + ofOutput * y);
}

function encode({ ort, encode }, size, xt, t, primary, secondary) {
  const image = (values) => new ort.Tensor("float32", values, [1, 1, size, size]);
  const step = new ort.Tensor("int64", BigInt64Array.of(BigInt(t)), [1]);
  return encode.run({ xt: image(xt), t: step, primary: image(primary), secondary: image(secondary) });
}

async function decode(session, encoded) {
  const inputs = Object.fromEntries(session.inputNames.map((name) => [name, encoded[name]]));
  return (await session.run(inputs)).output.data;
}
