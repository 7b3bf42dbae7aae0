/** Sampling in the page: DDIM over the three parts of the network, and DAMMP's choice at each step. */

const PARTS = ["encode", "decode_uni", "decode_multi"];
const REVIEW = 10; // the branch that was not taken is decoded for show at every tenth step, and at the last

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

/**
 * Denoise `noise` under the conditions `primary` and `secondary`: arrays of size * size numbers, in [-1, 1].
 *
 * Yields after each step what went in (`xt`), what each branch says (`uni`, `multi`, of which the one not
 * taken may be some steps old), the `map` of confidence and its mean, the `branch` taken and its `x0`, which
 * is kept in [-1, 1] at every step.
 */
export async function* denoise(network, settings, primary, secondary, noise) {
  const { steps, alphas_cumprod: alphas, gamma } = settings;
  const said = {};
  let xt = noise;
  for (let i = 0; i < steps.length; i++) {
    const encoded = await encode(network, settings.size, xt, steps[i], primary, secondary);
    const map = encoded.confidence_map.data;
    const confidence = map.reduce((sum, u) => sum + u, 0) / map.length;
    const branch = confidence >= gamma ? "multi" : "uni";
    const last = i === steps.length - 1;
    for (const name of ["uni", "multi"]) {
      if (name === branch || last || i % REVIEW === 0) {
        said[name] = await decode(network.decode[name], encoded);
      }
    }
    const x0 = said[branch].map((x) => Math.min(1, Math.max(-1, x)));
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

function encode({ ort, encode }, size, xt, t, primary, secondary) {
  const image = (values) => new ort.Tensor("float32", values, [1, 1, size, size]);
  const step = new ort.Tensor("int64", BigInt64Array.of(BigInt(t)), [1]);
  return encode.run({ xt: image(xt), t: step, primary: image(primary), secondary: image(secondary) });
}

async function decode(session, encoded) {
  const inputs = Object.fromEntries(session.inputNames.map((name) => [name, encoded[name]]));
  return (await session.run(inputs)).x0.data;
}
