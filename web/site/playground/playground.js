/** The page's figure: tissue to edit; below it the network at work on it, and what the simulator says. */

import { Ablation } from "./ablation.js";
import { denoise, loadNetwork, loadRuntime } from "./denoise.js";
import { average, coloured, distance, mean, paint, rowHtml, rowsOf, spread } from "./panels.js";
import { noise } from "./random.js";
import { randomTissue, Tissue } from "./tissue.js";

const FOLDER = new URL("./", import.meta.url);
const SAID = { uni: "the uni-modal branch", multi: "the multi-modal branch" };
const TOOLS = { draw: "Draw a vessel", move: "Move a vessel", place: "Place nuclei", erase: "Erase" };

const GATES = {
  damm: "DAMMP, one branch for the patch",
  pixel: "by pixel, both branches mixed",
  uni: "uni-modal branch alone",
  multi: "multi-modal branch alone",
};

const options = (names) => names.map(([value, text]) => `<option value="${value}">${text}</option>`).join("");
const formOf = (networks) => `
  <div class="playground-edit">
    <canvas class="playground-tissue" tabindex="0" role="application" aria-roledescription="drawing"
      aria-label="Tissue: vessels green, nuclei blue" aria-describedby="playground-keys"></canvas>
    <p id="playground-keys">Mouse or finger: press and drag. Keyboard: arrow keys move the cross, the space bar presses
      and lets go.</p>
  </div>
  <form class="playground-form">
    <fieldset><legend>Tool</legend>${Object.entries(TOOLS)
      .map(([tool, name]) => `<label><input type="radio" name="tool" value="${tool}"> ${name}</label>`)
      .join("")}</fieldset>
    <fieldset><legend>Misregister the nuclei</legend>
      <label>right <input type="range" name="right"> <output name="rightText"></output></label>
      <label>down <input type="range" name="down"> <output name="downText"></output></label></fieldset>
    <fieldset><legend>Network and gate</legend>
      <label>network <select name="network">${options(networks.map(({ name, label }) => [name, label]))}</select></label>
      <label>gate <select name="gate">${options(Object.entries(GATES))}</select></label>
      <label>γ <input type="range" name="gamma" min="0" max="1" step="0.01"> <output name="gammaText"></output></label>
    </fieldset>
    <div class="playground-buttons">
      <button type="button" name="fresh">New tissue</button> <button type="button" name="clear">Clear</button>
      <button type="submit" name="run"></button>
    </div>
  </form>
  <p class="playground-status" role="status"></p>
  <p class="playground-step"></p>`;

class Playground {
  constructor(root, settings, runtime) {
    const rows = rowsOf(settings.draws);
    root.innerHTML =
      formOf(settings.networks) + Object.entries(rows).map(([name, row]) => rowHtml(name, row)).join("");
    Object.assign(this, { root, shared: settings, runtime, run: 0, networks: {}, loading: {}, stored: {} });
    this.panels = Object.assign({}, ...Object.values(rows).map(([, panels]) => panels));
    this.canvas = root.querySelector(".playground-tissue");
    this.form = root.querySelector("form").elements;
    this.status = root.querySelector(".playground-status");
    this.form.tool.value = "draw";
    this.form.gamma.value = settings.gamma;
    for (const name of ["right", "down"]) {
      Object.assign(this.form[name], { min: -40, max: 40, step: settings.pixel, value: 0 });
    }
    this.ablation = new Ablation(root, this);
    this.listen();
  }

  /** Change to a network; whatever runs, and is begun later, waits for `using`. */
  use(name) {
    this.run++;
    this.using = this.changed(name);
    return this.using;
  }

  /** Offer the tissues of a network's size; the network itself is loaded when it is asked to denoise. */
  async changed(name) {
    const settings = { ...this.shared, ...this.shared.networks.find((each) => each.name === name) };
    const { size } = settings;
    this.stored[size] ??= new Uint8Array(await (await fetched(`draws-${size}.bin`)).arrayBuffer());
    if (name === this.form.network.value) {
      Object.assign(this, { settings, network: this.networks[name], cross: [size / 2, size / 2] });
      const megabytes = this.ort ? 2 : 5;
      this.form.run.textContent = this.network ? "Denoise again" : `Load the network (${megabytes} MB) and denoise`;
      this.offer(1);
      this.say("Draw, move, erase; then let the network denoise.");
    }
  }

  listen() {
    this.form.fresh.addEventListener("click", () => {
      this.offer((this.number % this.settings.tissues) + 1);
      this.again();
    });
    this.form.network.addEventListener("change", () => this.use(this.form.network.value).then(() => this.again()));
    this.form.gate.addEventListener("change", () => this.again());
    this.form.gamma.addEventListener("input", () => this.draw());
    this.form.gamma.addEventListener("change", () => this.again());
    this.form.clear.addEventListener("click", () => this.edit(new Tissue(this.settings.size)));
    for (const name of ["right", "down"]) {
      this.form[name].addEventListener("input", () => this.draw());
      this.form[name].addEventListener("change", () => this.edited());
    }
    this.root.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.press(this.place(event));
    });
    this.canvas.addEventListener("pointermove", (event) => this.drag(this.place(event)));
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => this.release());
    }
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.draw());
    this.canvas.addEventListener("blur", () => this.release());
  }

  /** Where on the tissue an event is, in pixels of the image. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.settings.size / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      this.drag(this.cross.map((at, k) => Math.min(this.settings.size, Math.max(0, at + 2 * steps[event.key][k]))));
    } else if (event.key === " ") {
      this.pressed ? this.release() : this.press(this.cross);
    } else {
      return;
    }
    event.preventDefault();
  }

  press(at) {
    [this.pressed, this.cross, this.last] = [true, at, at];
    this.held = this.tissue.nearest(...at, 8);
    if (this.form.tool.value === "draw") {
      this.tissue.begin(...at);
    }
    this.drag(at);
  }

  drag(at) {
    this.cross = at;
    if (this.pressed) {
      const actions = {
        draw: () => this.tissue.extend(...at),
        move: () => this.held?.points.forEach((point) => point.forEach((_, k) => (point[k] += at[k] - this.last[k]))),
        place: () => this.tissue.place(...at),
        erase: () => this.tissue.erase(...at),
      };
      actions[this.form.tool.value]();
      this.last = at;
    }
    this.draw();
  }

  release() {
    if (this.pressed) {
      this.pressed = false;
      this.edited();
    }
    this.draw();
  }

  /** Edit one of the tissues for which the true map and the simulator's draws are stored: number 1, 2, … */
  offer(number) {
    const tissue = randomTissue(this.settings.size, number);
    const { size, draws } = this.settings;
    const [truth, ...others] = Array.from({ length: draws + 1 }, (_, k) => {
      const start = ((number - 1) * (draws + 1) + k) * size ** 2;
      return Float32Array.from(this.stored[size].subarray(start, start + size ** 2), (byte) => byte / 127.5 - 1);
    });
    Object.assign(this, { number, truth, offered: tissue.images(), tissue });
    this.show("truth", truth);
    this.showAll("draw", others);
    this.draw();
    this.compare();
  }

  edit(tissue) {
    this.tissue = tissue;
    this.draw();
    this.edited();
  }

  draw() {
    const { right, down, rightText, downText, gamma, gammaText } = this.form;
    gammaText.value = Number(gamma.value).toFixed(2);
    this.tissue.shift = [right, down].map((slider) => slider.value / this.settings.pixel);
    [rightText.value, downText.value] = [right, down].map((slider) => `${slider.value} µm`);
    this.images = this.tissue.images();
    const vessels = coloured(this.images.primary, "primary", this.settings.colours);
    const nuclei = coloured(this.images.secondary, "secondary", this.settings.colours);
    paint(this.canvas, vessels.map((value, k) => Math.max(value, nuclei[k])), this.settings.size);
    if (document.activeElement === this.canvas) {
      const context = this.canvas.getContext("2d");
      const [x, y] = this.cross.map(Math.floor);
      context.fillStyle = this.pressed ? "#ffd400" : "#ffffff";
      for (const [dx, dy] of [[-4, 0], [2, 0]]) {
        context.fillRect(x + dx, y + dy, 3, 1);
        context.fillRect(x + dy, y + dx, 1, 3);
      }
    }
  }

  show(name, image) {
    const panel = this.panel(name);
    const pixels = coloured(image, this.panels[name][0], this.settings.colours);
    paint(panel.querySelector("canvas"), pixels, Math.sqrt(image.length));
    panel.classList.remove("stale");
  }

  /** Show several images, and from two on their mean and spread; returns the average spread, as text. */
  showAll(name, images) {
    images.forEach((image, k) => this.show(`${name}${k + 1}`, image));
    if (images.length < 2) {
      return "";
    }
    const deviation = spread(images);
    this.show(`${name}Mean`, mean(images));
    this.show(`${name}Spread`, deviation);
    const text = average(deviation).toFixed(3);
    this.panel(`${name}Spread`).querySelector("output").value = `: ${text} on average`;
    return text;
  }

  panel(name) {
    return this.root.querySelector(`[data-panel=${name}]`);
  }

  say(text) {
    this.status.textContent = text;
  }

  /** After an edit, hide what the simulator said of other tissue, and denoise anew. */
  edited() {
    this.compare();
    this.again();
  }

  compare() {
    const isOffered = (name) => this.images[name].every((value, k) => value === this.offered[name][k]);
    const row = this.root.querySelector("[data-row=draws]");
    const note = row.querySelector(".playground-note");
    note.textContent =
      `The simulator has not seen these vessels. Its draws are stored for ${this.settings.tissues} tissues: ` +
      "New tissue brings the next of them.";
    note.hidden = isOffered("primary");
    row.querySelector(".playground-panels").hidden = !note.hidden;
    this.panel("truth").hidden = !isOffered("acting");
  }

  /** Denoise, if the network is there. */
  again() {
    if (this.network) {
      this.start();
    }
  }

  choice() {
    return { gate: this.form.gate.value, gamma: Number(this.form.gamma.value) };
  }

  async start() {
    const run = ++this.run;
    try {
      await this.load();
      this.say("Denoising …");
      const began = performance.now();
      const found = await this.sample(run, 1);
      if (found) {
        const seconds = ((performance.now() - began) / 1000).toFixed(1);
        const ends = `, of which ${found.trusting} end with the multi-modal branch`;
        const off = distance(mean(found.samples), this.truth).toFixed(3);
        this.say(
          `Done in ${seconds} s: ${found.samples.length} samples${this.choice().gate === "damm" ? ends : ""}. ` +
            `Their spread is ${found.spread} on average` +
            (this.panel("truth").hidden ? "." : `, and their mean is ${off} from the true map.`),
        );
      }
    } catch (error) {
      this.say(`The network could not run here: ${error.message}`);
    }
  }

  /** Draw all samples, the first from noise of the seed `first`; nothing as soon as a newer run has begun. */
  async sample(run, first) {
    this.root.querySelectorAll("[data-row=samples] figure").forEach((panel) => panel.classList.add("stale"));
    const { primary, secondary } = this.images;
    const found = { samples: [], trusting: 0, confidence: 0, spread: "" };
    for (let k = 0; k < this.settings.draws; k++) {
      const seeded = noise(first + k, this.settings.size ** 2);
      let step;
      for await (step of denoise(this.network, this.settings, this.choice(), primary, secondary, seeded)) {
        await pause();
        if (run !== this.run) {
          return undefined;
        }
        this.report(step, k + 1);
      }
      found.samples.push(step.x0);
      found.trusting += step.branch === "multi";
      found.confidence += step.confidence / this.settings.draws;
      found.spread = this.showAll("sample", found.samples);
    }
    return found;
  }

  /** Over all tissues, with the nuclei moved to the right as they are now: the error of the samples' mean, and c. */
  async measure(first, progress) {
    const run = ++this.run;
    await this.load();
    this.form.down.value = 0;
    const errors = [];
    const confidences = [];
    for (let number = 1; number <= this.settings.tissues; number++) {
      progress(number);
      this.offer(number);
      const found = await this.sample(run, first);
      if (!found) {
        return undefined;
      }
      errors.push(distance(mean(found.samples), this.truth));
      confidences.push(found.confidence);
    }
    return { error: average(errors), confidence: average(confidences) };
  }

  async load() {
    await this.using;
    const { name } = this.settings;
    if (!this.networks[name]) {
      this.say("Loading the network …");
      this.loading[name] ??= this.loaded(name);
      try {
        this.networks[name] = await this.loading[name];
      } finally {
        this.loading[name] = undefined;
      }
    }
    if (name === this.settings.name) {
      this.network = this.networks[name];
      this.form.run.textContent = "Denoise again";
    }
  }

  async loaded(name) {
    this.ort ??= await loadRuntime(this.runtime);
    return loadNetwork(this.ort, new URL(`${name}/`, FOLDER));
  }

  report(step, number) {
    if (number === 1) {
      for (const name of ["xt", "uni", "multi", "map", "x0"]) {
        this.show(name, step[name]);
        this.panel(name).classList.toggle("chosen", name === step.branch || (step.branch === "both" && name in SAID));
      }
    }
    this.show(`sample${number}`, step.x0);
    const { steps, draws } = this.settings;
    const { gate, gamma } = this.choice();
    const compared = gate === "damm" ? ` ${step.branch === "multi" ? "≥" : "<"} γ = ${gamma}` : "";
    this.root.querySelector(".playground-step").textContent =
      `Sample ${number} of ${draws}, step ${step.i + 1} of ${steps.length}: ` +
      `c = ${step.confidence.toFixed(2)}${compared}, taken: ${SAID[step.branch] ?? "both branches, mixed"}.`;
  }
}

/** Let the page paint and answer; a timer would wait longer than there is need for. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

async function fetched(name) {
  const answer = await fetch(new URL(name, FOLDER));
  if (!answer.ok) {
    throw new Error(`${name}: expected a file, got status ${answer.status}`);
  }
  return answer;
}

const root = document.getElementById("playground-figure");
const script = document.querySelector("script[data-runtime]");
if (typeof WebAssembly === "undefined") {
  root.textContent =
    "This browser has no WebAssembly, or has it switched off, so the network cannot run here. " +
    "The chapters show the same, as pictures.";
} else {
  const settings = await (await fetched("playground.json")).json();
  const playground = new Playground(root, settings, new URL(script.dataset.runtime, document.baseURI).href);
  await playground.use(settings.networks[0].name);
}
